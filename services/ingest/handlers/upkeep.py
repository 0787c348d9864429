"""What ingest asks of itself on a timer."""

from __future__ import annotations

import structlog

from services.ingest import rules
from services.ingest.deps import Deps
from services.ingest.handlers.owners import announced
from shared.bus.routes import Done, Routes
from shared.contracts.base import Nothing
from shared.contracts.ingest import MakePartitions, PurgeDatasets

routes = Routes("ingest")
log = structlog.get_logger()

MONTHS_AHEAD = 4
PIECE = 20_000
MOST_PIECES = 10


@routes.command(MakePartitions, inbox=False)
async def make_partitions(cmd: MakePartitions, deps: Deps) -> Done[Nothing]:
    made = await deps.store.make_partitions(MONTHS_AHEAD)
    if made < 0:
        log.warning("partitions_not_made", reason="the tables are busy; the next timer tries again")
    elif made:
        log.info("partitions_made", count=made)
    return Done(Nothing())


@routes.command(PurgeDatasets, inbox=False)
async def purge_datasets(cmd: PurgeDatasets, deps: Deps) -> Done[Nothing]:
    """In pieces, each a transaction of its own: no writer waits for long, and a killed one never was."""
    gone = await deps.store.take_along(deps.now - rules.UNDO)
    await deps.store.forget_owners(deps.now - rules.OWNERS_KEPT)
    deleted_before = deps.now - rules.UNDO
    for _ in range(MOST_PIECES):
        if not await deps.store.purge_piece(deleted_before, deleted_before - rules.WORD_ON_ITS_WAY, PIECE):
            break
    return Done(Nothing(), events=announced(gone))
