"""What a requester says and hears: the header of a call, and how a call can fail."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from typing import Any, Protocol, TypeVar
from uuid import UUID

import msgspec

from shared.contracts.base import ANONYMOUS, Command, Principal, Query

R = TypeVar("R")
Ended = Callable[[Any, BaseException | None], None]


class Caller(msgspec.Struct, frozen=True):
    """The header of a call, taken from the HTTP request.

    `id` is the frame id (uuid7, or `keyed_id` with an Idempotency-Key); `seconds` how long somebody
    waits; `traceparent` W3C trace context; `client` the client's address; `locale` its language.
    """

    id: UUID
    request_id: str
    principal: Principal = ANONYMOUS
    seconds: float = 10.0
    traceparent: str = ""
    client: str = ""
    locale: str = ""


class CallFailed(Exception):
    """A call that ended without a reply; `status` is what HTTP answers."""

    status = 500
    code = "internal"

    def __init__(self, detail: str = "") -> None:
        super().__init__(detail)
        self.detail = detail


class Unavailable(CallFailed):
    """It did not happen and will not: safe to repeat after `retry_after` seconds."""

    status = 503
    code = "unavailable"

    def __init__(self, detail: str = "", retry_after: int = 1) -> None:
        super().__init__(detail)
        self.retry_after = retry_after


class Overloaded(Unavailable):
    """More is asked than can be answered: refused before anything was sent."""


class OutcomeUnknown(CallFailed):
    """It may have happened: repeat with the same key to learn."""

    status = 504
    code = "outcome_unknown"


class ServiceFailed(CallFailed):
    """The service hit a bug; the frame is kept with the dead letters."""


class NoSuchTopic(CallFailed):
    """The service does not know the topic: an older version runs there."""

    status = 502
    code = "unknown_topic"


class Begun(Protocol):
    """A call on its way."""

    def cancel(self) -> None:
        """Nobody waits any more: its end is not told. What has left may still happen."""


class Requester(Protocol):
    """How the gateway talks to services; raises the service's Refusal, or a CallFailed.

    `begin` and `begin_submit` are `ask` and `submit` without a task: they may raise CallFailed at once,
    else `ended` is called exactly once and later, with the reply and None, or with None and the error.
    """

    async def ask(self, message: Command[R] | Query[R], caller: Caller) -> R:
        """Send and wait for the reply, at most `caller.seconds`."""

    async def submit(self, message: Command[Any], caller: Caller) -> None:
        """Send without a deadline and return when the broker has it on disk."""

    def begin(self, message: Command[Any] | Query[Any], caller: Caller, ended: Ended) -> Begun:
        """As `ask`."""

    def begin_submit(self, message: Command[Any], caller: Caller, ended: Ended) -> Begun:
        """As `submit`."""

    def stream(self, message: Query[R], caller: Caller) -> AsyncIterator[R]:
        """Send and yield the parts of the reply as they come; closing the iterator cancels."""
