"""What every row of the tables works with."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from types import TracebackType
from typing import TypeVar

from aiohttp import web

from services.gateway.browser import BrowserSessions
from services.gateway.http.incoming import Incoming
from services.gateway.http.metrics import Meter
from services.gateway.http.rates import Rates
from services.gateway.live.tail import LogTail
from services.gateway.management import Broker
from services.gateway.session import Callers
from services.gateway.settings import Settings
from shared.bus.requests import CallFailed, Requester
from shared.contracts.base import Command, Query
from shared.errors import Refusal
from shared.vault import Vault

R = TypeVar("R")
Missing = Callable[[], Awaitable[Mapping[str, str]]]
NoRoute = Callable[[web.Request, Incoming, "Gateway", str], Awaitable[web.Response]]
Processes = Callable[[], Mapping[str, int]]


async def nothing_missing() -> Mapping[str, str]:
    """The dependencies of a gateway nobody watches."""
    return {}


def nobody_counted() -> Mapping[str, int]:
    """The processes behind a gateway nobody watches."""
    return {}


@dataclass
class Gateway:
    """The services behind, the secrets, who is calling, what is counted, and whether we are stopping."""

    requester: Requester
    vault: Vault
    settings: Settings
    callers: Callers
    meter: Meter
    rates: Rates
    missing: Missing = nothing_missing
    processes: Processes = nobody_counted
    stopping: asyncio.Event = field(default_factory=asyncio.Event)
    openapi: bytes = b""
    no_route: NoRoute | None = None
    """What answers a browser at an address that is none; None: a problem, as for programs."""
    tail: LogTail | None = None
    broker: Broker | None = None

    @property
    def browser(self) -> BrowserSessions:
        """Who is signed in by cookie."""
        return self.callers.browser

    async def missing_now(self) -> Mapping[str, str]:
        """What keeps us from serving; a gateway that is stopping says so itself."""
        if self.stopping.is_set():
            return {"gateway": "is stopping"}
        return await self.missing()

    async def ask(self, message: Command[R] | Query[R], incoming: Incoming) -> R:
        """Send a message and wait for its reply."""
        with self.counted(message.topic):
            return await self.requester.ask(message, incoming.caller(message))

    def counted(self, topic: str, outcome: str = "ok") -> Counted:
        """Counts how a call ends: with this outcome, or as its failure says."""
        return Counted(self.meter, topic, outcome)


class Counted:
    """A `with` block that counts one call."""

    __slots__ = ("_meter", "_outcome", "_topic")

    def __init__(self, meter: Meter, topic: str, outcome: str) -> None:
        self._meter, self._topic, self._outcome = meter, topic, outcome

    def __enter__(self) -> None:
        return None

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._meter.call(self._topic, self._outcome if error is None else ending_of(error))


class StreamBroke(ConnectionAbortedError):
    """An answer that is broken off in the middle, and how its call is counted."""

    def __init__(self, ending: str) -> None:
        super().__init__("the stream broke")
        self.ending = ending


def ending_of(error: BaseException) -> str:
    """How a call that failed so is counted."""
    if isinstance(error, StreamBroke):
        return error.ending
    if isinstance(error, Refusal):
        return "refused"
    if isinstance(error, CallFailed):
        return error.code
    return "gone" if isinstance(error, ConnectionError | asyncio.CancelledError) else "failed"


GATEWAY = web.AppKey("gateway", Gateway)
