"""A task that loses a cancellation is cancelled again."""

from __future__ import annotations

import asyncio
import contextlib

from shared.tasks import end


async def test_a_task_that_loses_its_cancellation_is_ended_all_the_same() -> None:
    lost = 0

    async def goes_on() -> None:
        nonlocal lost
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.Event().wait()
        lost += 1
        await asyncio.Event().wait()

    async def fails() -> None:
        raise ValueError

    tasks = [asyncio.create_task(goes_on()), asyncio.create_task(fails())]
    await asyncio.sleep(0)
    await asyncio.wait_for(end(tasks), 10)
    assert lost == 1
    assert all(task.done() for task in tasks)


async def test_nothing_is_ended_at_once() -> None:
    await end([])
