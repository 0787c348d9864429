"""Ends what runs too long: one timer looks at everything that runs, instead of one timer for each."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


class TooLong(Exception):
    """It did not end in time and was cancelled."""


class Watch:
    """Lets coroutines run for `seconds`, or a tenth longer: it looks ten times in that span."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._since: dict[asyncio.Task[Any], float] = {}
        self._cancelled: set[asyncio.Task[Any]] = set()
        self._looking = False

    async def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Await it in this task; raises TooLong when it was ended. Not to be nested in one task."""
        task = asyncio.current_task()
        assert task is not None
        self._since[task] = time.monotonic()
        if not self._looking:
            self._looking = True
            self._look_again(task.get_loop())
        cancelled = False
        try:
            return await work
        except asyncio.CancelledError:
            cancelled = True
            raise
        finally:
            del self._since[task]
            if task in self._cancelled:
                self._cancelled.discard(task)
                # Somebody else's cancellation, the end of the process, goes before ours.
                if task.uncancel() == 0 and cancelled:
                    raise TooLong(f"it ran for {self._seconds} s") from None

    def _look_again(self, loop: asyncio.AbstractEventLoop) -> None:
        loop.call_later(self._seconds / 10, self._look, loop)

    def _look(self, loop: asyncio.AbstractEventLoop) -> None:
        latest = time.monotonic() - self._seconds
        for task, since in self._since.items():
            if since <= latest and task not in self._cancelled:
                self._cancelled.add(task)
                task.cancel()
        if self._since:
            self._look_again(loop)
        else:
            self._looking = False
