"""Readings out: pages, the latest, one, exports; and how far an import came."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from datetime import UTC, datetime
from typing import Any

from services.ingest import rules
from services.ingest.answers import Cursor, Printer, printer, reading_of
from services.ingest.deps import Deps
from services.ingest.rules import Bounds, Known
from services.ingest.store.readings import Piece
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
PART_BYTES = 256 << 10
FIRST_ROWS = 200
ROWS_AT_ONCE = 500
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
    async for text in _texts(known, query, deps, printed):
        body = text.encode()
        for start in range(0, len(body), PART_BYTES):
            yield body[start : start + PART_BYTES]


async def _texts(known: Known, query: ExportReadings, deps: Deps, printed: Printer) -> AsyncIterator[str]:
    """The head, then some rows at a time, each time by the position of the last: no long transaction."""
    held = printed.head
    bounds = rules.bounds(known, query.start, query.end)
    cursor, rows = BEFORE_ALL, FIRST_ROWS
    while bounds is not None:
        piece = await _piece(known, bounds, cursor, rows, deps, printed)
        if piece.rows < rows:
            held += piece.text
            break
        yield held + piece.text
        held, cursor, rows = "", piece.last, rules.rows_like(rows, len(piece.text), PART_BYTES)
    if held:
        yield held


async def _piece(
    known: Known, bounds: Bounds, after: Cursor, rows: int, deps: Deps, printed: Printer
) -> Piece:
    """Printed by the database where it can, else here."""
    if printed.layout is not None:
        piece = await deps.store.lines(known, *bounds, after, rows, printed.layout)
        if piece is not None:
            return piece
    found = await deps.store.oldest_first(known, *bounds, after, rows)
    last = Cursor(found[-1]["at"], found[-1]["entry"]) if found else after
    return Piece(await _printed_here(found, printed), len(found), last)


async def _printed_here(found: Sequence[Any], printed: Printer) -> str:
    texts = []
    for first in range(0, len(found), ROWS_AT_ONCE):
        texts.append("".join([printed.row(row) for row in found[first : first + ROWS_AT_ONCE]]))
        await asyncio.sleep(0)  # others have their turn
    return "".join(texts)
