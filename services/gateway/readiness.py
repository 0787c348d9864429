"""What stands between the gateway and its work."""

from __future__ import annotations

from collections.abc import Mapping

from services.gateway.http.gateway import Missing
from services.gateway.session import Callers
from shared.bus.rabbit import RabbitLink
from shared.bus.requester import BusRequester


def watcher(link: RabbitLink, requester: BusRequester, callers: Callers, queues: tuple[str, ...]) -> Missing:
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
