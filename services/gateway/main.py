"""The wiring of the gateway."""

from __future__ import annotations

import asyncio
from contextlib import suppress

from services.gateway.http.app import make_app
from services.gateway.http.gateway import GATEWAY
from services.gateway.http.server import Door
from services.gateway.readiness import watcher
from services.gateway.revocations import TOPICS, listener
from services.gateway.session import Callers
from services.gateway.settings import Settings
from shared import http, logs
from shared.bus.rabbit import RabbitLink
from shared.bus.requester import BusRequester
from shared.bus.requests import CallFailed
from shared.bus.shipping import Shipper
from shared.errors import Refusal
from shared.runtime import run_service, stop_event
from shared.settings import load
from shared.vault import Vault

ASKED = ("auth", "ingest")
AGAIN_SECONDS = 1.0


async def main() -> None:
    """Serve until told to stop: the door closes first, the broker last."""
    settings = load(Settings)
    logs.configure("gateway", settings.log_level)
    stopping = stop_event()
    vault = Vault(settings.secret_key)
    link = RabbitLink(settings.amqp_url, "gateway")
    requester = BusRequester(link)
    callers = Callers(requester, vault)
    shipper = Shipper(link, "gateway")
    logs.on_ship(shipper.add)
    await link.open_replies(requester.on_reply)
    await link.hear(TOPICS, listener(callers), callers.drop_all)
    link.start()
    figures = http.registry()
    missing = watcher(link, requester, callers, ASKED)
    app = make_app(requester, vault, settings, callers=callers, registry=figures, missing=missing)
    door = Door(app, settings)
    background = [
        asyncio.create_task(each)
        for each in (shipper.run(), requester.watch(ASKED), learn_signing_keys(callers))
    ]
    ops = None
    try:
        if settings.ops_address:
            own = http.ops_app("gateway", settings.commit, app[GATEWAY].missing_now, figures)
            ops = await http.serve_ops(own, settings.ops_address)
        await door.open()
        await stopping.wait()
        await door.stop()
        shipper.flush()
    finally:
        if ops is not None:
            await ops.cleanup()
        for task in background:
            task.cancel()
        await asyncio.gather(*background, return_exceptions=True)
        logs.on_ship(None)
        await link.close()


async def learn_signing_keys(callers: Callers) -> None:
    """Ask until auth answers, so that the first token need not wait."""
    while not callers.has_signing_keys:
        with suppress(CallFailed, Refusal):
            await callers.learn_signing_keys()
            return
        await asyncio.sleep(AGAIN_SECONDS)


def run() -> None:
    """The process."""
    run_service(main)
