"""Passwords are hashed a few at a time, and nobody's password takes as long as somebody's."""

from __future__ import annotations

import asyncio
import os
import sys
import threading
from collections.abc import Iterator

import pytest
from argon2 import PasswordHasher

from services.auth.hashing import NICE, Hasher
from shared.errors import TooMany

QUICK = PasswordHasher(memory_cost=64, time_cost=1, parallelism=1)


@pytest.fixture
def hasher() -> Iterator[Hasher]:
    with Hasher(QUICK, workers=2, queue=1) as hasher:
        yield hasher


async def test_a_hash_knows_its_password_and_no_other(hasher: Hasher) -> None:
    made = await hasher.hash("eleven purple kettles")
    assert made.startswith("$argon2id$")
    assert await hasher.verify(made, "eleven purple kettles")
    assert not await hasher.verify(made, "eleven purple kettle")


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere threads have no priority of their own")
async def test_hashes_let_others_go_first(hasher: Hasher) -> None:
    await hasher.hash("x")
    own = os.getpriority(os.PRIO_PROCESS, 0)
    of_threads = {
        os.getpriority(os.PRIO_PROCESS, thread.native_id or 0)
        for thread in threading.enumerate()
        if thread.name.startswith("argon2")
    }
    assert of_threads == {min(own + NICE, 19)}
    assert own == os.getpriority(os.PRIO_PROCESS, threading.main_thread().native_id or 0)


async def test_nobody_has_no_password(hasher: Hasher) -> None:
    assert not await hasher.verify(None, "")


async def test_more_than_may_wait_are_refused_and_served_when_the_others_are_done(hasher: Hasher) -> None:
    results = await asyncio.gather(*(hasher.hash("x") for _ in range(5)), return_exceptions=True)
    refused = [result for result in results if isinstance(result, TooMany)]
    assert (len(refused), refused[0].retry_after) == (2, 1)
    assert await hasher.hash("x")


async def test_a_hash_of_other_parameters_is_outdated(hasher: Hasher) -> None:
    assert not hasher.is_outdated(await hasher.hash("x"))
    assert hasher.is_outdated(PasswordHasher(memory_cost=128, time_cost=1, parallelism=1).hash("x"))
