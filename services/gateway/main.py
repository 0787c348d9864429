"""The wiring of the gateway."""

from __future__ import annotations

from services.gateway import handlers
from services.gateway.http.app import make_app
from services.gateway.http.server import Door
from services.gateway.session import Callers
from services.gateway.settings import Settings
from shared.runtime import asking, run_service
from shared.settings import load
from shared.vault import Vault


async def main() -> None:
    """Serve until told to stop."""
    settings = load(Settings)
    vault = Vault(settings.secret_key)
    async with asking(settings, "gateway", request_queues=settings.reply_queue == "request") as bus:
        callers = Callers(bus.requester, vault)
        await bus.start(handlers.TOPICS, handlers.hearing(callers), callers.drop_all)
        app = make_app(
            bus.requester, vault, settings, callers=callers, registry=bus.figures, missing=bus.missing
        )
        door = Door(app, settings)
        await door.open()
        await bus.stopping.wait()
        await door.stop()


def run() -> None:
    """Entry of the process."""
    run_service(main)
