"""Calls on their way: told how they ended, once, and never later than somebody waits."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any

import structlog

from shared.bus import codec
from shared.bus.codec import Frame
from shared.bus.link import LinkDown, Nacked, NotPublished, Unroutable
from shared.bus.pressure import Flow
from shared.bus.requests import Ended, OutcomeUnknown, Unavailable
from shared.contracts.base import Message

if TYPE_CHECKING:
    from shared.bus.requester import BusRequester

log = structlog.get_logger()
# Beyond what a service is told, for the 503 of one that held the frame (it looks every 50 ms); it is told a
# little less than somebody waits, so that he is answered half before and half after his time.
GRACE_SECONDS, EARLY_SECONDS = 0.1, 0.05


class Pending:
    """One call that waits for its reply."""

    __slots__ = (
        "_requester",
        "began",
        "encoded",
        "ended",
        "flow",
        "frame",
        "kind",
        "may_have_left",
        "over",
        "sent",
        "until",
    )

    def __init__(
        self, requester: BusRequester, kind: type[Message], frame: Frame, flow: Flow, ended: Ended
    ) -> None:
        self._requester = requester
        self.kind = kind
        self.frame = frame
        self.encoded = codec.encode(frame)
        self.began = time.monotonic()
        self.until = self.began + frame.remaining_ms / 1000 + GRACE_SECONDS
        self.flow = flow
        self.ended = ended
        self.may_have_left = False
        self.sent = 0
        self.over = False

    def end(self, reply: Any, error: BaseException | None = None) -> None:
        """Tell whoever waits, once."""
        if self.over:
            return
        self._close()
        self.flow.ended(time.monotonic() - self.began)
        try:
            self.ended(reply, error)
        except Exception:  # the replies beside it are not to suffer
            log.exception("call_ended_badly", topic=self.frame.topic)

    def expire(self) -> None:
        """Its time is up."""
        self.end(None, _too_late(self))

    def cancel(self) -> None:
        """Nobody waits any more."""
        if not self.over:
            self._close()
            self.flow.gone()

    def _close(self) -> None:
        self.over = True
        self._requester.forget(self)

    def settled(self, error: BaseException | None) -> None:
        """What became of one publish of its frame."""
        if error is None:
            self.may_have_left = True
        elif self.over or isinstance(error, LinkDown):
            pass  # sent by _repeat_all as soon as there is a connection
        elif isinstance(error, NotPublished):
            if not self.may_have_left:
                self.end(None, Unavailable(why(error)))
        else:
            self.may_have_left = True
            self._requester.again_soon(self)


class Task:
    """A call that needs a task of its own."""

    def __init__(self, coroutine: Coroutine[Any, Any, Any], ended: Ended) -> None:
        self._task = asyncio.get_running_loop().create_task(coroutine)
        self._task.add_done_callback(self._done)
        self._ended = ended

    def cancel(self) -> None:
        """Nobody waits any more."""
        self._task.cancel()

    def _done(self, task: asyncio.Task[Any]) -> None:
        if task.cancelled():
            return
        error = task.exception()
        self._ended(None if error else task.result(), error)


class Submitting:
    """A frame without a deadline until it is confirmed; what did not get there is sent again by a task.

    Whoever submits it waits until `until` (monotonic): then nobody knows, whatever is still on its way.
    """

    __slots__ = ("_all", "_began", "_ended", "_flow", "_insist", "_over", "_task", "until")

    def __init__(
        self,
        all_of_them: set[Submitting],
        flow: Flow,
        seconds: float,
        ended: Ended,
        insist: Callable[[BaseException], Coroutine[Any, Any, None]],
    ) -> None:
        self._all = all_of_them
        self._flow = flow
        self._began = time.monotonic()
        self.until = self._began + seconds + GRACE_SECONDS
        self._ended = ended
        self._insist = insist
        self._over = False
        self._task: Task | None = None
        all_of_them.add(self)
        flow.began()

    def settled(self, error: BaseException | None) -> None:
        """What became of its first publish."""
        if self._over:
            return
        self._over = True
        self._flow.ended(time.monotonic() - self._began)
        if error is None:
            self._tell(None, None)
        else:
            self._task = Task(self._insist(error), self._tell)

    def _tell(self, reply: Any, error: BaseException | None) -> None:
        if self in self._all:
            self._all.remove(self)
            self._ended(reply, error)

    def expire(self) -> None:
        """Its time is up: it may be in the queue, now or later."""
        if self in self._all:
            self.cancel()
            self._ended(None, OutcomeUnknown())

    def cancel(self) -> None:
        """Nobody waits any more."""
        self._all.discard(self)
        if not self._over:
            self._over = True
            self._flow.gone()
        if self._task is not None:
            self._task.cancel()


def remaining_ms(seconds: float) -> int:
    """What a service is told of the time somebody waits."""
    return int(1000 * (seconds - EARLY_SECONDS if seconds > 2 * EARLY_SECONDS else seconds / 2)) or 1


def _too_late(pending: Pending) -> Exception:
    if pending.frame.kind == "query":
        return Unavailable("no answer in time")
    return OutcomeUnknown() if pending.may_have_left else Unavailable("the broker does not answer")


def why(error: BaseException) -> str:
    """What kept a frame from its queue, for whoever asked."""
    if isinstance(error, Unroutable):
        return "no service takes this topic"
    if isinstance(error, Nacked):
        return "the queue of this service is full"
    return "the broker does not answer"
