"""The application: every row of the tables as a handler."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from aiohttp import web
from prometheus_client import CollectorRegistry

from services.gateway.http import accounts, datasets, logs, operations, queues, readings
from services.gateway.http.answers import to_json
from services.gateway.http.endpoint import Endpoint
from services.gateway.http.front import FRONT, Front
from services.gateway.http.gateway import (
    GATEWAY,
    Gateway,
    Missing,
    Processes,
    nobody_counted,
    nothing_missing,
)
from services.gateway.http.metrics import Meter
from services.gateway.http.openapi import document
from services.gateway.http.rates import Rates
from services.gateway.http.short_way import SHORT_WAY, KnownPaths, ShortWay
from services.gateway.http.table import Route, Routes
from services.gateway.live.tail import LogTail
from services.gateway.management import Broker
from services.gateway.session import Callers
from services.gateway.settings import Settings
from shared.bus.requests import Requester
from shared.contracts.base import Command
from shared.http import VERSION
from shared.limits import Limiter
from shared.vault import Vault

# What is called most comes first: the router tries paths that begin alike in this order.
TABLES = (readings.routes, datasets.routes, accounts.routes, logs.routes, queues.routes, operations.routes)


def make_app(
    requester: Requester,
    vault: Vault,
    settings: Settings,
    *,
    callers: Callers | None = None,
    limiter: Limiter | None = None,
    registry: CollectorRegistry | None = None,
    missing: Missing = nothing_missing,
    processes: Processes = nobody_counted,
    tables: Sequence[Routes] = TABLES,
    add_pages: Callable[[web.Application, Gateway], None] | None = None,
    tail: LogTail | None = None,
    broker: Broker | None = None,
) -> web.Application:
    """The whole gateway as an aiohttp application, to be opened by `Door`.

    `missing` names each dependency that is away with its reason, for `/readyz`; `processes` counts those
    that serve each service, for `/v1/services`; `registry` is what `/metrics` shows; `tables` are the
    routes there are; `add_pages` adds the pages for people, `/` among them; `tail` is the log to follow,
    `broker` what its management API says.
    """
    limiter = limiter or Limiter(None, "rate")
    gateway = Gateway(
        requester=requester,
        vault=vault,
        settings=settings,
        callers=callers or Callers(requester, vault),
        meter=Meter(registry or CollectorRegistry()),
        rates=Rates(limiter, settings),
        missing=missing,
        processes=processes,
        openapi=to_json(document(tables, settings, VERSION)),
        tail=tail,
        broker=broker,
    )
    gateway.meter.limits_alone = lambda: limiter.is_alone
    front = Front(gateway)
    app = web.Application()
    known = KnownPaths()
    app[GATEWAY], app[FRONT], app[SHORT_WAY] = gateway, front, ShortWay(gateway, front, known)
    if add_pages is not None:
        add_pages(app, gateway)
    _add_rows(app, gateway, front, known, tables)
    return app


def _add_rows(
    app: web.Application, gateway: Gateway, front: Front, known: KnownPaths, tables: Sequence[Routes]
) -> None:
    by_path: dict[str, list[Route]] = {}
    for row in (row for table in tables for row in table.rows):
        by_path.setdefault(row.path, []).append(row)
    for path, rows in by_path.items():
        resource = app.router.add_resource(path)
        for row in rows:
            endpoint = Endpoint(row, gateway, front, known)
            resource.add_route(row.method, endpoint.serve)
            if _has_head(row):
                resource.add_route("HEAD", endpoint.serve)


def _has_head(row: Route) -> bool:
    """HEAD does what GET does: neither a whole export for nothing, nor a reveal in the audit log."""
    is_command = row.message is not None and issubclass(row.message, Command)
    return row.method == "GET" and not row.part_type and not is_command
