"""What every row of the tables works with."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import TypeVar

from aiohttp import web

from services.gateway.http.incoming import Incoming
from services.gateway.http.metrics import Meter
from services.gateway.session import Callers
from services.gateway.settings import Settings
from shared.bus.requests import CallFailed, Requester
from shared.contracts.base import Command, Query
from shared.errors import Refusal
from shared.vault import Vault

R = TypeVar("R")
Missing = Callable[[], Awaitable[Mapping[str, str]]]
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
    missing: Missing = nothing_missing
    processes: Processes = nobody_counted
    stopping: asyncio.Event = field(default_factory=asyncio.Event)
    openapi: bytes = b""

    async def missing_now(self) -> Mapping[str, str]:
        """What keeps us from serving; a gateway that is stopping says so itself."""
        if self.stopping.is_set():
            return {"gateway": "is stopping"}
        return await self.missing()

    async def ask(self, message: Command[R] | Query[R], incoming: Incoming) -> R:
        """Send a message, wait for its reply, count how it ended."""
        try:
            reply = await self.requester.ask(message, incoming.caller(message))
        except Refusal:
            self.meter.call(message.topic, "refused")
            raise
        except CallFailed as failure:
            self.meter.call(message.topic, failure.code)
            raise
        self.meter.call(message.topic, "ok")
        return reply


GATEWAY = web.AppKey("gateway", Gateway)
