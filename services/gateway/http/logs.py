"""The log of every service, for administrators."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta, Struct

from services.gateway.http.gateway import Gateway
from services.gateway.http.incoming import Incoming
from services.gateway.http.problems import Turned
from services.gateway.http.table import USER, Routes
from services.gateway.live.events import EVENT_STREAM, LogStream
from services.gateway.live.tail import Pattern
from shared.bus.requests import CallFailed
from shared.contracts.base import Principal
from shared.contracts.worker import Level, ListLogLines
from shared.errors import Forbidden, Refusal, TooMany

routes = Routes("Log")


class Followed(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Which lines: of one service or all, the least grave level, a text in the event or the fields."""

    service: Annotated[str, Meta(pattern=r"^([a-z][a-z0-9_]{0,63})?\Z")] = ""
    level: Level | None = None
    q: Annotated[str, Meta(max_length=200)] = ""


routes.get("/v1/logs", ListLogLines, who=USER, refuses=("search_too_wide",))


@routes.page(
    "/v1/logs/live",
    "Log lines as they are said, as Server-Sent Events",
    bytes,
    who=USER,
    query_form=Followed,
    part_type=EVENT_STREAM,
    refuses=("forbidden", "too_many_requests"),
)
async def follow_logs(incoming: Incoming, gateway: Gateway) -> LogStream:
    """Until the session ends; `event: lost`, `skipped` and `end` say what one line cannot."""
    if not may_follow(incoming.principal):
        raise Forbidden("The log is for administrators.")
    if gateway.tail is None:
        raise Turned("unavailable", "This gateway has no broker to follow.")
    if gateway.tail.is_full:
        raise TooMany("As many follow the log here already as may.", retry_after=10)
    asked: Followed = incoming.query
    headers, peer, via = incoming.headers, incoming.peer, incoming.principal.via

    async def goes_on() -> bool:
        if gateway.stopping.is_set():
            return False
        try:
            caller = await gateway.callers.identify(headers, peer)
        except Refusal:
            return False
        except CallFailed:
            return True  # nobody can tell right now: asked again in a second
        return may_follow(caller) and caller.via == via

    return LogStream(gateway.tail, Pattern(asked.service, asked.level, asked.q), goes_on)


def may_follow(caller: Principal) -> bool:
    """The log is that of the whole server."""
    return caller.kind == "user" and "administrator" in caller.roles and caller.project == "default"
