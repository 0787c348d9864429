"""Readings out: pages, the latest, one, exports; and how far an import came."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any

from services.ingest import rules
from services.ingest.answers import Cursor, printer, reading_of
from services.ingest.deps import Deps
from services.ingest.rules import Known
from shared.bus.routes import Done, Routes
from shared.contracts.ingest import (
    ExportReadings,
    GetImport,
    GetLatestReading,
    GetReading,
    ImportPosition,
    ListReadings,
    Reading,
    ReadingPage,
)
from shared.errors import NotFound

routes = Routes("ingest")
PART_CHARACTERS = 65_536
EXPORT_ROWS = 2_000
BEFORE_ALL = Cursor(datetime(1970, 1, 1, tzinfo=UTC), 0)
AFTER_ALL = Cursor(datetime(9999, 1, 1, tzinfo=UTC), 2**63 - 1)


@routes.query(ListReadings)
async def list_readings(query: ListReadings, deps: Deps) -> Done[ReadingPage]:
    known = rules.for_reader(await deps.store.dataset(query.dataset_id), deps.caller)
    variables = rules.selected(known, query.variables)
    cursor = Cursor.read(query.after) if query.after else None
    bounds = rules.bounds(known, query.start, query.end)
    if bounds is None:
        return Done(ReadingPage(items=(), next=None))
    if query.order == "asc":
        found = await deps.store.oldest_first(known, *bounds, cursor or BEFORE_ALL, query.limit + 1)
    else:
        found = await deps.store.newest_first(known, *bounds, cursor or AFTER_ALL, query.limit + 1)
    page = found[: query.limit]
    more = Cursor(page[-1]["at"], page[-1]["entry"]).text() if len(found) > len(page) else None
    return Done(ReadingPage(items=tuple(reading_of(row, variables) for row in page), next=more))


@routes.query(GetLatestReading)
async def get_latest_reading(query: GetLatestReading, deps: Deps) -> Done[Reading]:
    known = rules.for_reader(await deps.store.dataset(query.dataset_id), deps.caller)
    variables = rules.selected(known, query.variables)
    return Done(_found(await deps.store.latest(known), variables))


@routes.query(GetReading)
async def get_reading(query: GetReading, deps: Deps) -> Done[Reading]:
    known = rules.for_reader(await deps.store.dataset(query.dataset_id), deps.caller)
    return Done(_found(await deps.store.reading(known, query.entry), rules.selected(known, ())))


def _found(row: Any, variables: Any) -> Reading:
    if row is None:
        raise NotFound("no such reading")
    return reading_of(row, variables)


@routes.query(GetImport)
async def get_import(query: GetImport, deps: Deps) -> Done[ImportPosition]:
    known = rules.for_writer(await deps.store.dataset(query.dataset_id), deps.caller)
    position = await deps.store.position(known.number, query.source)
    return Done(ImportPosition(source=query.source, position=position))


@routes.stream(ExportReadings)
async def export_readings(query: ExportReadings, deps: Deps) -> AsyncIterator[bytes]:
    known = rules.for_reader(await deps.store.dataset(query.dataset_id), deps.caller)
    printed = printer(known, query)
    held, size = [printed.head], len(printed.head)
    async for rows in _pieces(known, query, deps):
        for row in rows:
            held.append(printed.row(row))
            size += len(held[-1])
            if size >= PART_CHARACTERS:
                yield "".join(held).encode()
                held, size = [], 0
    if size:
        yield "".join(held).encode()


async def _pieces(known: Known, query: ExportReadings, deps: Deps) -> AsyncIterator[list[Any]]:
    """The rows of a range, some at a time and each time by the position of the last: no long transaction."""
    bounds = rules.bounds(known, query.start, query.end)
    cursor = BEFORE_ALL
    while bounds is not None:
        rows = await deps.store.oldest_first(known, *bounds, cursor, EXPORT_ROWS)
        if rows:
            yield rows
        if len(rows) < EXPORT_ROWS:
            return
        cursor = Cursor(rows[-1]["at"], rows[-1]["entry"])
