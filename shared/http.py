"""What every process answers about itself: alive, ready, and its figures."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping

import msgspec
from aiohttp import web
from prometheus_client import CollectorRegistry, Gauge, GCCollector, PlatformCollector, ProcessCollector
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest

VERSION = "0.1.0"
Missing = Callable[[], Awaitable[Mapping[str, str]]]


def registry() -> CollectorRegistry:
    """A registry with what every process measures of itself."""
    made = CollectorRegistry()
    ProcessCollector(registry=made)
    PlatformCollector(registry=made)
    GCCollector(registry=made)
    return made


SHUTDOWN_SECONDS = 0.5


def health(service: str, commit: str) -> dict[str, str]:
    """What /healthz answers while the process is alive."""
    return {"status": "ok", "service": service, "version": VERSION, "commit": commit or "unknown"}


def readiness(missing: Mapping[str, str]) -> tuple[int, bytes]:
    """Status and body of /readyz: 200, or 503 with each missing dependency and why."""
    body = {"ready": not missing, "missing": dict(missing)}
    return (503 if missing else 200), msgspec.json.encode(body)


async def exposition(figures: CollectorRegistry, missing: Missing) -> bytes:
    """What /metrics answers: the figures, and what /readyz would say now."""
    away = await missing()
    own = CollectorRegistry()
    Gauge("posthouse_ready", "1 when /readyz says so", registry=own).set(not away)
    reasons = Gauge("posthouse_missing", "1 for each dependency that is away", ["dependency"], registry=own)
    for dependency in away:
        reasons.labels(dependency).set(1)
    return generate_latest(figures) + generate_latest(own)


def ops_app(service: str, commit: str, missing: Missing, figures: CollectorRegistry) -> web.Application:
    """/healthz, /readyz and /metrics of one process."""

    async def healthz(_: web.Request) -> web.Response:
        return _json(200, msgspec.json.encode(health(service, commit)))

    async def readyz(_: web.Request) -> web.Response:
        return _json(*readiness(await missing()))

    async def metrics(_: web.Request) -> web.Response:
        body = await exposition(figures, missing)
        return web.Response(body=body, headers={"Content-Type": CONTENT_TYPE_LATEST})

    app = web.Application()
    app.router.add_get("/healthz", healthz)
    app.router.add_get("/readyz", readyz)
    app.router.add_get("/metrics", metrics)
    return app


def _json(status: int, body: bytes) -> web.Response:
    return web.Response(status=status, body=body, content_type="application/json")


async def serve_ops(app: web.Application, address: str) -> web.AppRunner:
    """Listen on `host:port`; whoever does not read its answer holds up no end (aiohttp waits 60 s, twice)."""
    host, _, port = address.rpartition(":")
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=SHUTDOWN_SECONDS)
    await runner.setup()
    await web.TCPSite(runner, host or "127.0.0.1", int(port)).start()
    return runner
