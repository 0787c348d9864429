"""Signals: the first asks to stop, the second or time ends at once; wrong settings are said in one line."""

from __future__ import annotations

import asyncio
import os
import signal
import sys

PROGRAM = """
import asyncio, sys
from shared.runtime import stop_event

async def main():
    stopping = stop_event(float(sys.argv[1]))
    print("ready", flush=True)
    await stopping.wait()
    print("stopping", flush=True)
    await asyncio.Event().wait()  # work that never ends

asyncio.run(main())
"""


async def test_the_first_signal_drains_and_the_second_exits_at_once() -> None:
    for first in (signal.SIGTERM, signal.SIGINT):
        child = await asyncio.create_subprocess_exec(
            sys.executable, "-c", PROGRAM, "60", stdout=asyncio.subprocess.PIPE
        )
        assert child.stdout is not None
        assert await child.stdout.readline() == b"ready\n"
        child.send_signal(first)
        assert await child.stdout.readline() == b"stopping\n"
        assert child.returncode is None
        child.send_signal(signal.SIGTERM)
        assert await child.wait() == 1


async def test_what_does_not_end_in_time_is_ended_and_says_what_it_did() -> None:
    child = await asyncio.create_subprocess_exec(
        sys.executable,
        *("-c", PROGRAM, "1"),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    assert child.stdout is not None
    assert await child.stdout.readline() == b"ready\n"
    child.send_signal(signal.SIGTERM)
    async with asyncio.timeout(20):
        words, threads = await child.communicate()
    assert child.returncode == 1
    assert b"not_ended" in words
    assert b"coroutine object main" in words
    assert b"most recent call first" in threads


async def test_a_service_without_its_settings_names_every_one_that_is_missing() -> None:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("POSTHOUSE_")}
    child = await asyncio.create_subprocess_exec(
        sys.executable,
        *("-m", "services.ingest"),
        env=environment | {"POSTHOUSE_INBOX_HOURS": "never"},
        stderr=asyncio.subprocess.PIPE,
    )
    _, words = await child.communicate()
    assert child.returncode == 1
    assert b"POSTHOUSE_AMQP_URL is missing" in words
    assert b"POSTHOUSE_INBOX_HOURS" in words
    assert len(words.splitlines()) == 1
