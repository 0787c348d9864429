"""Message in, Done out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import structlog

from services.worker import rules, searching
from services.worker.store import Store
from shared.bus.routes import Done, Job, Routes
from shared.contracts.base import ANONYMOUS, Nothing, Principal
from shared.contracts.worker import KeepLogs, ListLogLines, LogPage, StoreLogLines
from shared.logs import local_only

log = structlog.get_logger()
routes = Routes("worker")


@dataclass(frozen=True)
class Deps:
    """What handlers work with."""

    store: Store
    log_days: int
    caller: Principal = ANONYMOUS


@routes.command(KeepLogs, inbox=False)
async def keep_logs(_: KeepLogs, deps: Deps) -> Done[Nothing]:
    """Twice is harmless, and so is not at all: there are days ahead, and the next hour tries again."""
    if not await deps.store.keep_log(deps.log_days):
        log.info("log_table_in_use")
    return Done(Nothing())


@routes.batch(StoreLogLines)
async def store_log_lines(jobs: Sequence[Job[StoreLogLines]], deps: Deps) -> list[Done[Nothing]]:
    """Every line of every shipment in one statement, each in the name of who sent it."""
    with local_only():
        rows = [rules.row_of(job.caller.id, line) for job in jobs for line in job.message.lines]
        rows += [rules.row_of_ended(job.caller.id, ended) for job in jobs for ended in job.message.ended]
        await deps.store.add_rows(rows)
        return [Done(Nothing()) for _ in jobs]


@routes.query(ListLogLines)
async def list_log_lines(query: ListLogLines, deps: Deps) -> Done[LogPage]:
    """A page of what was stored."""
    searching.may_read_log(deps.caller)
    search = searching.search_of(query)
    rows = await deps.store.lines(search) if search else []
    return Done(searching.page_of(rows, query.limit))
