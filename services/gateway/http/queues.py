"""How the queues do, for administrators."""

from __future__ import annotations

from datetime import UTC, datetime

from services.gateway.http.answers import Answer, renderer, to_json
from services.gateway.http.gateway import Gateway
from services.gateway.http.incoming import Incoming
from services.gateway.http.logs import may_follow
from services.gateway.http.table import USER, Routes
from services.gateway.queues import Overview
from shared.errors import Forbidden

routes = Routes("Operations")
NOT_SET = "POSTHOUSE_MANAGEMENT_URL is not set"
_shown = renderer(Overview)


@routes.page(
    "/v1/queues",
    "Every queue and node of the broker, and what to do",
    Overview,
    who=USER,
    refuses=("forbidden",),
)
async def queues(incoming: Incoming, gateway: Gateway) -> Answer:
    """As of a second ago; `away` says why the broker's management API does not answer."""
    if not may_follow(incoming.principal):
        raise Forbidden("The queues are for administrators.")
    if gateway.broker is None:
        found = Overview(items=(), nodes=(), at=datetime.now(UTC), away=NOT_SET)
    else:
        found = await gateway.broker.look()
    return Answer(200, to_json(_shown(found) if _shown else found), headers={"Cache-Control": "no-store"})
