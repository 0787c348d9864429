"""Readings as they are read, corrected and deleted."""

from __future__ import annotations

from datetime import datetime

import msgspec

from services.ingest.answers import Cursor, Layout
from services.ingest.rules import Known
from services.ingest.store.base import Record, Statements
from services.ingest.store.lines import lines_of


class Piece(msgspec.Struct, frozen=True):
    """Some lines of an export."""

    text: str
    rows: int
    last: Cursor


class Readings(Statements):
    """Statements about readings; those up to entry `cleared` of a dataset are gone, purged yet or not.

    Every range has both ends, so that partitions outside of it are not even opened.
    """

    async def position(self, number: int, source: str) -> int:
        sql = "SELECT position FROM ingest.import_position WHERE dataset = $1 AND source = $2"
        return await self._db.fetchval(sql, number, source) or 0

    async def newest_first(
        self, known: Known, start: datetime, end: datetime, before: Cursor, limit: int
    ) -> list[Record]:
        """Readings with start <= at < end that come before a cursor, from the latest."""
        sql = """
            SELECT entry, at, whole, numbers, exact, status, place
            FROM ingest.readings_before($1, $2, $3, $4, $5, $6, $7)
        """
        rows: list[Record] = await self._db.fetch(
            sql, known.number, start, end, before.at, before.entry, known.cleared, limit
        )
        return rows

    async def oldest_first(
        self, known: Known, start: datetime, end: datetime, after: Cursor, limit: int
    ) -> list[Record]:
        """Readings with start <= at < end that come after a cursor, from the earliest.

        Those that came since `known` was read are left out: an export is of what there was when it began.
        """
        sql = """
            SELECT entry, at, whole, numbers, exact, status, place
            FROM ingest.readings_after($1, $2, $3, $4, $5, $6, $7, $8)
        """
        rows: list[Record] = await self._db.fetch(
            sql, known.number, start, end, after.at, after.entry, known.cleared, known.last_entry, limit
        )
        return rows

    async def lines(
        self, known: Known, start: datetime, end: datetime, after: Cursor, limit: int, layout: Layout
    ) -> Piece | None:
        """As `oldest_first`, printed; None when there is one among them that SQL does not print."""
        printed = lines_of(layout, first_parameter=9)
        sql = f"""
            SELECT string_agg(line, '') AS text, count(*) AS rows, count(line) AS printed,
                   max(at) AS at, (array_agg(entry))[count(*)] AS entry
            FROM (SELECT at, entry, {printed.line} AS line FROM (
                SELECT {printed.columns}
                FROM ingest.readings_after($1, $2, $3, $4, $5, $6, $7, $8)) found) printed
        """  # noqa: S608 (expressions of field numbers; what users wrote goes as parameters)
        row = await self._db.fetchrow(
            sql,
            *(known.number, start, end, after.at, after.entry, known.cleared, known.last_entry, limit),
            *printed.parameters,
        )
        if row["printed"] < row["rows"]:
            return None
        last = Cursor(row["at"], row["entry"]) if row["rows"] else after
        return Piece(row["text"] or "", row["rows"], last)

    async def latest(self, known: Known) -> Record | None:
        sql = """
            SELECT entry, at, whole, numbers, exact, status, place FROM ingest.reading
            WHERE dataset = $1 AND at = $2 AND entry > $3 ORDER BY entry DESC LIMIT 1
        """
        return await self._db.fetchrow(sql, known.number, known.last_at, known.cleared)

    async def reading(self, known: Known, entry: int) -> Record | None:
        sql = """
            SELECT entry, at, whole, numbers, exact, status, place FROM ingest.reading
            WHERE dataset = $1 AND entry = $2 AND entry > $3 AND at BETWEEN $4 AND $5
        """
        return await self._db.fetchrow(sql, known.number, entry, known.cleared, known.first_at, known.last_at)

    async def correct(
        self,
        known: Known,
        row: Record,
        numbers: list[float | None] | None,
        exact: list[str | None] | None,
        whole: int,
    ) -> None:
        sql = """
            UPDATE ingest.reading SET numbers = $4, exact = $5, whole = $6
            WHERE dataset = $1 AND at = $2 AND entry = $3
        """
        await self._db.execute(sql, known.number, row["at"], row["entry"], numbers, exact, whole)

    async def delete_range(self, known: Known, start: datetime, end: datetime) -> int:
        """Delete readings with start <= at < end and the ids clients gave them."""
        sql = """
            WITH gone AS (
                DELETE FROM ingest.reading
                WHERE dataset = $1 AND at >= $2 AND at < $3 AND entry > $4 RETURNING dataset, entry
            ), forgotten AS (
                DELETE FROM ingest.reading_identity i USING gone g
                WHERE i.dataset = g.dataset AND i.entry = g.entry
            )
            SELECT count(*) FROM gone
        """
        deleted: int = await self._db.fetchval(sql, known.number, start, end, known.cleared)
        return deleted

    async def time_after(self, known: Known, start: datetime, end: datetime, count: int) -> datetime | None:
        """The time of the reading that comes `count` readings after the first one of a range."""
        sql = """
            SELECT at FROM ingest.reading WHERE dataset = $1 AND at >= $2 AND at < $3
            ORDER BY at, entry OFFSET $4 LIMIT 1
        """
        at: datetime | None = await self._db.fetchval(sql, known.number, start, end, count)
        return at

    async def delete_entry(self, known: Known, row: Record) -> bool:
        """Whether it was there."""
        sql = """
            WITH forgotten AS (DELETE FROM ingest.reading_identity WHERE dataset = $1 AND entry = $3)
            DELETE FROM ingest.reading WHERE dataset = $1 AND at = $2 AND entry = $3 RETURNING true
        """
        return bool(await self._db.fetchval(sql, known.number, row["at"], row["entry"]))

    async def count_deleted(self, known: Known, deleted: int) -> None:
        """Take them off the entries there are, and find the latest time again."""
        sql = """
            UPDATE ingest.dataset_counter
            SET entries = entries - $2, last_at = (
                SELECT at FROM ingest.reading
                WHERE dataset = $1 AND entry > $3 AND at BETWEEN $4 AND $5
                ORDER BY at DESC, entry DESC LIMIT 1)
            WHERE dataset = $1
        """
        await self._db.execute(sql, known.number, deleted, known.cleared, known.first_at, known.last_at)

    async def clear(self, known: Known) -> None:
        """All readings are gone at once, and every import may start again; `Upkeep` frees the disk."""
        sql = """
            WITH forgotten AS (DELETE FROM ingest.import_position WHERE dataset = $1)
            UPDATE ingest.dataset_counter
            SET cleared = last_entry, entries = 0, first_at = NULL, last_at = NULL WHERE dataset = $1
        """
        await self._db.execute(sql, known.number)
