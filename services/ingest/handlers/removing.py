"""Deleting readings: one, a range, all."""

from __future__ import annotations

from datetime import datetime, timedelta
from uuid import UUID

from services.ingest import rules
from services.ingest.deps import Deps
from services.ingest.rules import Known
from shared.bus.routes import Done, Routes
from shared.contracts.ingest import DeletedReadings, DeleteReading, DeleteReadings
from shared.errors import NotFound

routes = Routes("ingest")
PIECE = 50_000
MICROSECOND = timedelta(microseconds=1)


@routes.command(DeleteReading)
async def delete_reading(cmd: DeleteReading, deps: Deps) -> Done[DeletedReadings]:
    known = rules.for_owner(await deps.store.dataset(cmd.dataset_id), deps.caller)
    row = await deps.store.reading(known, cmd.entry)
    if row is None or not await deps.store.delete_entry(known, row):
        raise NotFound("no such reading")
    await _count(known, 1, deps)
    return Done(DeletedReadings(deleted=1))


@routes.command(DeleteReadings)
async def delete_readings(cmd: DeleteReadings, deps: Deps) -> Done[DeletedReadings]:
    if cmd.start is None and cmd.end is None:
        known = await _locked(cmd.dataset_id, deps)
        await deps.store.clear(known)
        return Done(DeletedReadings(deleted=known.entries))
    known = rules.for_owner(await deps.store.dataset(cmd.dataset_id), deps.caller)
    span = rules.bounds(known, cmd.start, cmd.end)
    deleted = 0 if span is None else await _delete_range(known, *span, deps)
    if deleted:
        await _count(known, deleted, deps)
    return Done(DeletedReadings(deleted=deleted))


async def _locked(dataset_id: UUID, deps: Deps) -> Known:
    found = await deps.store.locked(await deps.store.lock_counters({dataset_id}))
    return rules.for_owner(found.get(dataset_id), deps.caller)


async def _delete_range(known: Known, start: datetime, end: datetime, deps: Deps) -> int:
    """In pieces: each statement is far from its time limit, and no writer waits before the last one."""
    deleted = 0
    while start < end:
        stop = await deps.store.time_after(known, start, end, PIECE)
        stop = end if stop is None else max(stop, start + MICROSECOND)
        deleted += await deps.store.delete_range(known, start, stop)
        start = stop
    return deleted


async def _count(before: Known, deleted: int, deps: Deps) -> None:
    """Unless the dataset was cleared meanwhile: then these were counted already."""
    known = await _locked(before.id, deps)
    if known.cleared == before.cleared:
        await deps.store.count_deleted(known, deleted)
