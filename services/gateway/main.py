"""The wiring of the gateway."""

from __future__ import annotations

import asyncio
import signal

from services.gateway.browser import BrowserSessions
from services.gateway.holders import Holders
from services.gateway.http.app import make_app
from services.gateway.http.gateway import GATEWAY
from services.gateway.http.server import Door
from services.gateway.live.tail import LogTail
from services.gateway.management import Broker
from services.gateway.pages.table import add_pages
from services.gateway.readiness import counter, learn_signing_keys, watcher
from services.gateway.revocations import TOPICS, listener
from services.gateway.session import Callers
from services.gateway.settings import Settings
from services.gateway.tokens import AccessTokens
from shared.cache import connect
from shared.limits import Limiter
from shared.runtime import asking, run_service
from shared.settings import load
from shared.vault import Vault

ASKED = ("auth", "ingest")


async def main() -> None:
    """Serve until told to stop: the door closes first, the broker last."""
    settings = load(Settings)
    vault = Vault(settings.secret_key)
    async with asking(
        settings,
        "gateway",
        drain_seconds=settings.drain_seconds,
        request_queues=settings.reply_queue == "request",
    ) as bus:
        tokens = AccessTokens(bus.requester)
        redis = connect(settings.redis_url, client_name="posthouse-gateway") if settings.redis_url else None
        browser = BrowserSessions(bus.requester, vault, tokens, redis, public_url=settings.public_url)
        holders = Holders(redis)
        callers = Callers(bus.requester, vault, tokens=tokens, browser=browser, holders=holders)
        broker = None
        if settings.management_url:
            broker = Broker(settings.management_url, settings.amqp_url, lambda: bus.requester.depths)
        missing = watcher(bus.link, bus.requester, callers, ASKED)
        app = make_app(
            bus.requester,
            vault,
            settings,
            callers=callers,
            limiter=Limiter(redis, "rate"),
            registry=bus.figures,
            missing=missing,
            processes=counter(bus.requester),
            add_pages=add_pages,
            tail=LogTail(bus.link),
            broker=broker,
        )
        door = Door(app, settings)
        asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, door.reload)
        await bus.start(TOPICS, listener(callers), callers.drop_all)
        bus.spawn(learn_signing_keys(callers))
        if broker is not None:
            bus.spawn(broker.watch())
        await door.open()
        await bus.serve_ops(app[GATEWAY].missing_now)
        await bus.stopping.wait()
        await door.stop()
        if broker is not None:
            await broker.close()
        await holders.close()
        if redis is not None:
            await redis.aclose()


def run() -> None:
    """The process."""
    run_service(main)
