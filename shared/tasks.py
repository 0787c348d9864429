"""Ending tasks for certain."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Any

AGAIN_SECONDS = 0.5


async def end(tasks: Iterable[asyncio.Task[Any]]) -> None:
    """Cancel tasks until they have ended; how they end is not told.

    Once may not be enough: until Python 3.12 `asyncio.wait_for` forgets a cancellation that comes in the same
    turn of the loop as what it waits for, and whoever works in a loop goes on.
    """
    everything = list(tasks)
    waiting = set(everything)
    while waiting:
        for task in waiting:
            task.cancel()
        _, waiting = await asyncio.wait(waiting, timeout=AGAIN_SECONDS)
    await asyncio.gather(*everything, return_exceptions=True)
