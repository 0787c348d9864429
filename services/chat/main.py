"""Wiring only."""

from __future__ import annotations

from services.chat.handlers import routes
from services.chat.settings import Settings
from shared.runtime import run_service, running
from shared.settings import load


async def main() -> None:
    """Serve until told to stop."""
    async with running(load(Settings)) as service:
        await service.serve(routes, lambda call: None)


def run() -> None:
    """Entry of the process."""
    run_service(main)
