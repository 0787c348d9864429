"""S9: nobody learns which accounts there are, neither from an answer nor from how long it takes."""

from __future__ import annotations

import itertools
import statistics
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
from argon2 import PasswordHasher

from shared.vault import Vault
from tests.faults.town import PASSWORD, Said, Town, samples, town
from tests.servers import Place, cloned_database

pytestmark = pytest.mark.timeout(600)

WARMING = 5
MOST_TRIES = 40


@pytest.fixture(scope="module")
async def place(
    database_template: Place, vault: Vault, amqp_url: str, management_url: str, redis_url: str
) -> AsyncIterator[Town]:
    """Passwords cost what they cost in production."""
    argon2 = PasswordHasher(memory_cost=19_456, time_cost=2, parallelism=1)
    async with (
        cloned_database(database_template) as database,
        town(database, vault, amqp_url, management_url, redis_url, argon2) as opened,
    ):
        await opened.set_up()
        await opened.add_people([f"known-{number}" for number in range(samples(25) + WARMING)])
        await opened.database.pool.execute(
            "UPDATE account SET deleted_at = now(), purge_at = now() + interval '1 day', deleted_by = id"
            " WHERE name ~ '[05]$' AND name <> 'ann'"
        )
        yield opened


def addresses() -> Iterator[str]:
    """Each one once: no limit is reached."""
    return (f"2001:db8:{one:x}:{two:x}::1" for one in range(1 << 16) for two in range(1 << 16))


FRESH = addresses()


async def sign_in(place: Town, name: str) -> Said:
    body = {"name": name, "password": "twelve purple kettles"}
    return await place.ask("POST", "/v1/sessions", body, address=next(FRESH))


async def sign_in_by_address(place: Town, name: str) -> Said:
    return await sign_in(place, f"{name}@example.org")


async def restore(place: Town, name: str) -> Said:
    body = {"name": name, "password": "twelve purple kettles"}
    return await place.ask("POST", "/v1/me/restore", body, address=next(FRESH))


async def sign_up(place: Town, name: str) -> Said:
    body = {"name": name, "email": f"{name}@example.org", "password": PASSWORD}
    return await place.ask("POST", "/v1/users", body, address=next(FRESH))


@pytest.mark.parametrize("way", [sign_in, sign_in_by_address, restore, sign_up])
async def test_the_answer_is_the_same_and_takes_as_long(place: Town, way: Any) -> None:
    count = samples(25)
    known, unknown = [], []
    for number in range(count + WARMING):
        pair = [(known, f"known-{number}"), (unknown, f"stray-{number}")]
        for kept, name in pair if number % 2 else pair[::-1]:
            said = await way(place, name)
            if number >= WARMING:
                kept.append(said)
    answers = [{(said.status, repr(said.body)) for said in kept} for kept in (known, unknown)]
    print(f"S9 {way.__name__}: {count} known and unknown each, {_figures(known, unknown)}")
    assert answers[0] == answers[1]
    assert len(answers[0]) == 1


async def test_limits_are_reached_alike(place: Town) -> None:
    lines = []
    for name in ("known-1", "stray-1"):
        said = [await sign_in(place, f"{name}") for _ in range(MOST_TRIES)]
        lines.append([(each.status, each.code) for each in said])
    first = [code for _, code in lines[0]].index("too_many_requests")
    print(f"S9 limits: known and unknown refused after {first} tries")
    # Both names were tried a little before.
    assert lines[0] == lines[1]


def _figures(known: list[Said], unknown: list[Said]) -> str:
    """How far apart the medians are, and how often a known one took longer than an unknown one (AUC)."""
    ours, theirs = [said.seconds for said in known], [said.seconds for said in unknown]
    difference = statistics.median(ours) - statistics.median(theirs)
    pairs = itertools.product(ours, theirs)
    slower = sum((one > other) + (one == other) / 2 for one, other in pairs)
    auc = slower / (len(ours) * len(theirs))
    return f"medians differ by {difference * 1000:+.2f} ms, AUC {auc:.3f}"
