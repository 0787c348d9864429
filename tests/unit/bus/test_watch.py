"""What runs too long is ended, what ends in time is left alone, and the end of the process goes first."""

from __future__ import annotations

import asyncio

import pytest

from shared.bus.watch import TooLong, Watch


async def for_ever() -> None:
    await asyncio.Event().wait()


async def test_what_runs_too_long_is_ended_and_the_task_goes_on() -> None:
    watch = Watch(0.02)
    for _ in range(2):
        with pytest.raises(TooLong):
            await watch.run(for_ever())
    await asyncio.sleep(0)


async def test_what_ends_in_time_is_left_alone() -> None:
    watch = Watch(0.2)
    assert await watch.run(asyncio.sleep(0, "done")) == "done"
    await asyncio.sleep(0.25)


async def test_each_task_has_its_own_time() -> None:
    watch = Watch(0.3)
    ended: list[str] = []

    async def run(name: str, seconds: float) -> None:
        try:
            await watch.run(asyncio.sleep(seconds))
        except TooLong:
            ended.append(name)

    await asyncio.gather(run("short", 0.001), run("long", 60), run("longer", 600))
    assert sorted(ended) == ["long", "longer"]


async def test_a_cancellation_from_elsewhere_stays_one() -> None:
    watch = Watch(0.02)
    asked = asyncio.Event()

    async def stubborn() -> None:
        try:
            await for_ever()
        except asyncio.CancelledError:
            asked.set()
            await for_ever()

    task = asyncio.create_task(watch.run(stubborn()))
    await asked.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_an_error_of_its_own_is_not_hidden() -> None:
    watch = Watch(0.02)

    async def fails() -> None:
        try:
            await for_ever()
        except asyncio.CancelledError:
            raise ZeroDivisionError from None

    with pytest.raises(ZeroDivisionError):
        await watch.run(fails())
