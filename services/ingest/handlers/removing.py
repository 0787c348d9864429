"""Deleting readings: one, a range, all."""

from __future__ import annotations

from datetime import UTC, datetime

from services.ingest import rules
from services.ingest.deps import Deps
from services.ingest.rules import Known
from shared.bus.routes import Done, Routes
from shared.contracts.ingest import DeletedReadings, DeleteReading, DeleteReadings
from shared.errors import NotFound

routes = Routes("ingest")
FIRST = datetime(1970, 1, 1, tzinfo=UTC)
LAST = datetime(9999, 1, 1, tzinfo=UTC)


@routes.command(DeleteReading)
async def delete_reading(cmd: DeleteReading, deps: Deps) -> Done[DeletedReadings]:
    counted = await deps.store.lock_counters({cmd.dataset_id})
    known = rules.for_owner(counted.get(cmd.dataset_id), deps.caller)
    row = await deps.store.reading(known, cmd.entry)
    if row is None:
        raise NotFound("no such reading")
    await deps.store.delete_entry(known, row)
    await deps.store.count_deleted(known, 1)
    return Done(DeletedReadings(deleted=1))


@routes.command(DeleteReadings)
async def delete_readings(cmd: DeleteReadings, deps: Deps) -> Done[DeletedReadings]:
    counted = await deps.store.lock_counters({cmd.dataset_id})
    known = rules.for_owner(counted.get(cmd.dataset_id), deps.caller)
    if cmd.start is None and cmd.end is None:
        await deps.store.clear(known)
        return Done(DeletedReadings(deleted=known.entries))
    return Done(DeletedReadings(deleted=await _delete_range(known, cmd, deps)))


async def _delete_range(known: Known, cmd: DeleteReadings, deps: Deps) -> int:
    deleted = await deps.store.delete_range(known, cmd.start or FIRST, cmd.end or LAST)
    if deleted:
        await deps.store.count_deleted(known, deleted)
    return deleted
