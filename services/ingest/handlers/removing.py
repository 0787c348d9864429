"""Deleting readings: one, a range, all."""

from __future__ import annotations

from uuid import UUID

from services.ingest import rules
from services.ingest.deps import Deps
from services.ingest.rules import Known
from shared.bus.routes import Done, Routes
from shared.contracts.ingest import DeletedReadings, DeleteReading, DeleteReadings
from shared.errors import NotFound

routes = Routes("ingest")


@routes.command(DeleteReading)
async def delete_reading(cmd: DeleteReading, deps: Deps) -> Done[DeletedReadings]:
    known = await _locked(cmd.dataset_id, deps)
    row = await deps.store.reading(known, cmd.entry)
    if row is None:
        raise NotFound("no such reading")
    await deps.store.delete_entry(known, row)
    await deps.store.count_deleted(known, 1)
    return Done(DeletedReadings(deleted=1))


@routes.command(DeleteReadings)
async def delete_readings(cmd: DeleteReadings, deps: Deps) -> Done[DeletedReadings]:
    known = await _locked(cmd.dataset_id, deps)
    if cmd.start is None and cmd.end is None:
        await deps.store.clear(known)
        return Done(DeletedReadings(deleted=known.entries))
    return Done(DeletedReadings(deleted=await _delete_range(known, cmd, deps)))


async def _locked(dataset_id: UUID, deps: Deps) -> Known:
    found = await deps.store.locked(await deps.store.lock_counters({dataset_id}))
    return rules.for_owner(found.get(dataset_id), deps.caller)


async def _delete_range(known: Known, cmd: DeleteReadings, deps: Deps) -> int:
    bounds = rules.bounds(known, cmd.start, cmd.end)
    deleted = 0 if bounds is None else await deps.store.delete_range(known, *bounds)
    if deleted:
        await deps.store.count_deleted(known, deleted)
    return deleted
