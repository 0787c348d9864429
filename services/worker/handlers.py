"""Message in, Done out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from services.worker.store import Store
from shared.bus.routes import Done, Job, Routes
from shared.contracts.base import Nothing
from shared.contracts.worker import KeepLogs, StoreLogLines

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


@routes.batch(StoreLogLines)
async def store_log_lines(jobs: Sequence[Job[StoreLogLines]], deps: Deps) -> list[Done[Nothing]]:
    """Every line of every shipment in one statement."""
    await deps.store.add_lines([line for job in jobs for line in job.message.lines])
    return [Done(Nothing()) for _ in jobs]
