"""Ends what runs too long: one timer looks at everything that runs, instead of one timer for each."""

from __future__ import annotations

import asyncio
from types import TracebackType


class TooLong(Exception):
    """It did not end in time and was cancelled."""


class Watch:
    """`with watch:` in a task raises TooLong there when the block takes more than `seconds`.

    It looks ten times in that span, so a block may get a tenth longer. Not to be nested in one task.
    """

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._since: dict[asyncio.Task[object], float] = {}
        self._cancelled: set[asyncio.Task[object]] = set()
        self._looking = False

    def __enter__(self) -> None:
        task = asyncio.current_task()
        assert task is not None
        loop = task.get_loop()
        self._since[task] = loop.time()
        if not self._looking:
            self._looking = True
            loop.call_later(self._seconds / 10, self._look, loop)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        task = asyncio.current_task()
        assert task is not None
        del self._since[task]
        if task in self._cancelled:
            self._cancelled.discard(task)
            # Somebody else's cancellation, the end of the process, goes before ours.
            if task.uncancel() == 0 and kind is asyncio.CancelledError:
                raise TooLong(f"it ran for {self._seconds} s") from None

    def _look(self, loop: asyncio.AbstractEventLoop) -> None:
        latest = loop.time() - self._seconds
        for task, since in self._since.items():
            if since <= latest and task not in self._cancelled:
                self._cancelled.add(task)
                task.cancel()
        if self._since:
            loop.call_later(self._seconds / 10, self._look, loop)
        else:
            self._looking = False
