"""Wiring only."""

from __future__ import annotations

from services.worker.handlers import Deps, routes
from services.worker.settings import Settings
from services.worker.store import Store
from shared.contracts.worker import KeepLogs
from shared.runtime import run_service, running
from shared.settings import load


async def main() -> None:
    """Serve until told to stop."""
    settings = load(Settings)
    async with running(settings) as service:
        service.every(3600, KeepLogs())
        await service.serve(
            routes,
            lambda call: Deps(Store(call.db), settings.log_days, call.caller),
            further_queues=("worker.logs",),
        )


def run() -> None:
    """Entry of the process."""
    run_service(main)
