"""What stands between the gateway and its work, and who does it."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from contextlib import suppress
from typing import Protocol

from services.gateway.http.gateway import Missing, Processes
from services.gateway.session import Callers
from shared.bus.requester import BusRequester
from shared.bus.requests import CallFailed
from shared.errors import Refusal

AGAIN_SECONDS = 1.0
LEARN_SECONDS = 60.0


class Connected(Protocol):
    """What a link says about its connections."""

    @property
    def up(self) -> bool:
        """Whether they work."""

    @property
    def trouble(self) -> str:
        """Why not."""


def watcher(link: Connected, requester: BusRequester, callers: Callers, queues: tuple[str, ...]) -> Missing:
    """Names each dependency that is away, with the reason."""

    async def missing() -> Mapping[str, str]:
        if not link.up:
            return {"broker": link.trouble or "connecting"}
        away = {}
        for queue in queues:
            depth = requester.depths.get(queue)
            if depth is None or not depth.present:
                away[queue] = "its queue is not there"
            elif depth.consumers == 0:
                away[queue] = "no process takes from its queue"
        if not away and not callers.has_signing_keys:
            away["auth"] = "no signing keys yet"
        return away

    return missing


def counter(requester: BusRequester) -> Processes:
    """How many processes take from the queue of each service; its other queues count nobody twice."""

    def processes() -> Mapping[str, int]:
        own = {name: depth for name, depth in requester.depths.items() if "." not in name and depth.present}
        return {name: depth.consumers for name, depth in own.items()}

    return processes


async def learn_signing_keys(callers: Callers) -> None:
    """Ask auth now, every minute, and whenever an event may have been missed.

    So the first token need not wait, the next signing key is known before it signs, and a session that ended
    while nobody heard is soon known to have ended.
    """
    while True:
        callers.missed.clear()
        seconds = AGAIN_SECONDS
        with suppress(CallFailed, Refusal):
            await callers.learn_signing_keys()
            seconds = LEARN_SECONDS
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await callers.missed.wait()
