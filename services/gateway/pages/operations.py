"""The broker for administrators: each queue and node, how it does, and what to do."""

from __future__ import annotations

from itertools import groupby
from typing import Any
from urllib.parse import quote, urlsplit

from aiohttp import web

from services.gateway.http.elsewhere import is_elsewhere
from services.gateway.http.logs import may_follow
from services.gateway.http.proxies import is_loopback
from services.gateway.management import Broker
from services.gateway.pages.site import Site, Visit
from services.gateway.queues import NodeState, Overview, QueueState
from shared.errors import Forbidden

site = Site()
KIND_WORDS = {
    "commands": "commands",
    "queries": "queries",
    "events": "events",
    "logs": "log lines",
    "dead": "dead letters",
    "wait": "retries to come",
    "replies": "replies",
    "live": "live events",
    "other": "of its own",
}
UNKNOWN = "\N{EN DASH}"
GRAVITY = {"bad": 0, "warning": 1, "good": 2}


@site.get("/operations", who="administrator")
async def show(visit: Visit) -> web.Response:
    """As of a second ago; it is the broker of the whole server, as the log is its log."""
    if not may_follow(visit.incoming.principal):
        raise Forbidden("The queues are for administrators of this server.")
    broker = visit.gateway.broker
    if broker is None:
        return visit.page("operations.html", found=None, **_WORDS)
    found = await broker.look()
    return visit.page("operations.html", found=found, **_told(visit, broker, found), **_WORDS)


def _told(visit: Visit, broker: Broker, found: Overview) -> dict[str, Any]:
    seen: list[NodeState | QueueState] = [*found.nodes, *found.items]
    wrong = [one for one in seen if one.level != "good"]
    return {
        "houses": [(name, list(queues)) for name, queues in groupby(found.items, lambda one: one.house)],
        "processes": visit.gateway.processes(),
        "wrong": sorted(wrong, key=lambda one: GRAVITY[one.level]),
        "page": _page_for(visit, broker),
        "port": urlsplit(broker.page).port,
        "vhost": broker.vhost,
    }


def _page_for(visit: Visit, broker: Broker) -> str:
    """Where this person's browser reaches the broker's own page; empty: from the server's machine only."""
    only_here = is_loopback(urlsplit(broker.page).hostname or "")
    return "" if only_here and is_elsewhere(visit.incoming) else broker.page


def size(number: int | None) -> str:
    """`12 kB`, `3.4 GB`."""
    if number is None:
        return UNKNOWN
    amount = float(number)
    for unit in ("B", "kB", "MB", "GB"):
        if amount < 1000:
            return f"{amount:.0f} {unit}" if unit == "B" or amount >= 100 else f"{amount:.1f} {unit}"
        amount /= 1000
    return f"{amount:.1f} TB"


def lasting(seconds: float | None) -> str:
    """`4 s`, `12 min`, `3 h`, `2 d`."""
    if seconds is None:
        return UNKNOWN
    for below, unit, name in ((100, 1, "s"), (6000, 60, "min"), (360_000, 3600, "h")):
        if seconds < below:
            return f"{seconds / unit:.0f} {name}"
    return f"{seconds / 86_400:.0f} d"


def oldest(one: QueueState) -> str:
    """How long the oldest message waits, as far as that is known."""
    if one.oldest_seconds is None or not one.messages:
        return UNKNOWN
    if one.oldest_is_exact:
        return lasting(one.oldest_seconds)
    return f"≥ {lasting(one.oldest_seconds)}"


def rate(number: float | None) -> str:
    """Per second; nothing much is a dash."""
    if not number:
        return UNKNOWN
    return f"{number:,.0f}" if number >= 10 else f"{number:.1f}"


def figure(number: int | None) -> str:
    """A count with its thousands apart."""
    return UNKNOWN if number is None else f"{number:,}"


def link(page: str, vhost: str, name: str) -> str:
    """A queue in the broker's own page."""
    return f"{page}#/queues/{quote(vhost, safe='%')}/{quote(name, safe='')}"


_WORDS: dict[str, Any] = {
    "kinds": KIND_WORDS,
    "size": size,
    "lasting": lasting,
    "oldest": oldest,
    "rate": rate,
    "figure": figure,
    "link": link,
}
