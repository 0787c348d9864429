"""What ingest asks of itself on a timer."""

from __future__ import annotations

import structlog

from services.ingest.deps import Deps
from services.ingest.rules import UNDO
from shared.bus.routes import Done, Routes
from shared.contracts.base import Nothing
from shared.contracts.ingest import MakePartitions, PurgeDatasets

routes = Routes("ingest")
log = structlog.get_logger()

MONTHS_AHEAD = 4
PIECE = 20_000


@routes.command(MakePartitions, inbox=False)
async def make_partitions(cmd: MakePartitions, deps: Deps) -> Done[Nothing]:
    made = await deps.store.make_partitions(MONTHS_AHEAD)
    if made < 0:
        log.warning("partitions_not_made", reason="the tables are busy; the next timer tries again")
    elif made:
        log.info("partitions_made", count=made)
    return Done(Nothing())


@routes.command(PurgeDatasets)  # in the inbox for its transaction: a dataset is purged by one at a time
async def purge_datasets(cmd: PurgeDatasets, deps: Deps) -> Done[Nothing]:
    purge = await deps.store.next_purge(deps.now - UNDO)
    if purge is None:
        return Done(Nothing())
    upto = min(purge.purged + PIECE, purge.upto)
    if upto > purge.purged:
        await deps.store.purge_readings(purge, upto)
        await deps.store.set_purged(purge, upto)
    if purge.whole and upto == purge.upto:
        await deps.store.forget_dataset(purge)
    return Done(Nothing())
