"""Message in, Done out."""

from __future__ import annotations

from dataclasses import dataclass

from services.worker.store import Store
from shared.bus.routes import Done, Routes
from shared.contracts.base import Nothing
from shared.contracts.worker import KeepLogs

routes = Routes("worker")


@dataclass(frozen=True)
class Deps:
    """What handlers work with."""

    store: Store
    log_days: int


@routes.command(KeepLogs, inbox=False)
async def keep_logs(_: KeepLogs, deps: Deps) -> Done[Nothing]:
    """Twice is harmless: what is made is made, what is dropped is dropped."""
    await deps.store.keep_log(deps.log_days)
    return Done(Nothing())
