"""Readings, the counters that number them, and what makes a repeat change nothing."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from datetime import datetime
from uuid import UUID

import msgspec

from services.ingest.answers import Cursor, Layout
from services.ingest.numbering import Account, Import, OwnId, Plan, Row
from services.ingest.rules import Known
from services.ingest.store.base import Record, Statements, known_of
from services.ingest.store.lines import lines_of
from shared.contracts.ingest import EntryStored

COLUMNS = ("entry", "at", "whole", "dataset", "numbers", "exact", "status", "place")


class Piece(msgspec.Struct, frozen=True):
    """Some lines of an export."""

    text: str
    rows: int
    last: Cursor


class Readings(Statements):
    """Statements about readings; those up to entry `cleared` of a dataset are gone, purged yet or not.

    Every range has both ends, so that partitions outside of it are not even opened.
    """

    async def lock_counters(self, dataset_ids: Collection[UUID]) -> list[int]:
        """Lock in order of number, so that no two writers wait for each other; deleted ones are not found."""
        sql = """
            SELECT c.dataset FROM ingest.dataset_counter c JOIN ingest.dataset d ON d.number = c.dataset
            WHERE d.id = ANY($1::uuid[]) AND d.deleted_at IS NULL ORDER BY c.dataset FOR UPDATE OF c
        """
        return [row["dataset"] for row in await self._db.fetch(sql, list(dataset_ids))]

    async def locked(self, numbers: Collection[int]) -> dict[UUID, Known]:
        """What is locked, as the last commit left it: a statement of its own sees what was waited for."""
        sql = "SELECT * FROM ingest.described WHERE number = ANY($1::integer[]) AND deleted_at IS NULL"
        return {row["id"]: known_of(row) for row in await self._db.fetch(sql, numbers)}

    async def own_ids(self, asked: Collection[OwnId]) -> dict[OwnId, EntryStored]:
        sql = """
            SELECT i.dataset, i.id_hash, i.entry, i.at
            FROM unnest($1::integer[], $2::uuid[]) a (dataset, id_hash)
            JOIN ingest.reading_identity i USING (dataset, id_hash)
            JOIN ingest.dataset_counter c ON c.dataset = i.dataset AND i.entry > c.cleared
        """
        if not asked:
            return {}
        rows = await self._db.fetch(sql, [dataset for dataset, _ in asked], [own_id for _, own_id in asked])
        return {
            (row["dataset"], row["id_hash"]): EntryStored(entry=row["entry"], at=row["at"]) for row in rows
        }

    async def positions(self, asked: Collection[Import]) -> dict[Import, int]:
        sql = """
            SELECT p.dataset, p.source, p.position
            FROM unnest($1::integer[], $2::text[]) a (dataset, source)
            JOIN ingest.import_position p USING (dataset, source)
        """
        if not asked:
            return {}
        rows = await self._db.fetch(sql, [dataset for dataset, _ in asked], [source for _, source in asked])
        return {(row["dataset"], row["source"]): row["position"] for row in rows}

    async def position(self, number: int, source: str) -> int:
        sql = "SELECT position FROM ingest.import_position WHERE dataset = $1 AND source = $2"
        return await self._db.fetchval(sql, number, source) or 0

    async def carry_out(self, plan: Plan) -> None:
        """Write everything a plan says, in at most four statements."""
        if plan.rows:
            await self._add_readings(plan.rows)
        if plan.accounts:
            await self._set_counters(list(plan.accounts.values()))
        if plan.own_ids:
            await self._add_own_ids(plan)
        if plan.positions:
            await self._set_positions(plan)

    async def _add_readings(self, rows: Sequence[Row]) -> None:
        """COPY also for a single row: it costs the same as INSERT there, and arrays go in as they are."""
        await self._db.copy_records_to_table("reading", schema_name="ingest", columns=COLUMNS, records=rows)

    async def _set_counters(self, accounts: Sequence[Account]) -> None:
        sql = """
            UPDATE ingest.dataset_counter c
            SET last_entry = n.last_entry, entries = n.entries, stored = n.stored, duplicates = n.duplicates,
                rejected = n.rejected::jsonb, first_at = n.first_at, last_at = n.last_at, parts = n.parts
            FROM unnest($1::integer[], $2::bigint[], $3::bigint[], $4::bigint[], $5::bigint[], $6::text[],
                        $7::timestamptz[], $8::timestamptz[], $9::smallint[])
                AS n (dataset, last_entry, entries, stored, duplicates, rejected, first_at, last_at, parts)
            WHERE c.dataset = n.dataset
        """
        await self._db.execute(
            sql,
            [account.known.number for account in accounts],
            [account.last_entry for account in accounts],
            [account.entries for account in accounts],
            [account.stored for account in accounts],
            [account.duplicates for account in accounts],
            [msgspec.json.encode(account.rejected).decode() for account in accounts],
            [account.first_at for account in accounts],
            [account.last_at for account in accounts],
            [account.parts for account in accounts],
        )

    async def _add_own_ids(self, plan: Plan) -> None:
        """An id of a reading that was cleared and not purged yet is from now on that of the new one."""
        sql = """
            INSERT INTO ingest.reading_identity (dataset, id_hash, entry, at)
            SELECT * FROM unnest($1::integer[], $2::uuid[], $3::bigint[], $4::timestamptz[])
            ON CONFLICT (dataset, id_hash) DO UPDATE SET entry = excluded.entry, at = excluded.at
        """
        await self._db.execute(
            sql,
            [dataset for dataset, _ in plan.own_ids],
            [own_id for _, own_id in plan.own_ids],
            [stored.entry for stored in plan.own_ids.values()],
            [stored.at for stored in plan.own_ids.values()],
        )

    async def _set_positions(self, plan: Plan) -> None:
        sql = """
            INSERT INTO ingest.import_position (dataset, source, position)
            SELECT * FROM unnest($1::integer[], $2::text[], $3::bigint[])
            ON CONFLICT (dataset, source) DO UPDATE SET position = excluded.position
        """
        await self._db.execute(
            sql,
            [dataset for dataset, _ in plan.positions],
            [source for _, source in plan.positions],
            list(plan.positions.values()),
        )

    async def newest_first(
        self, known: Known, start: datetime, end: datetime, before: Cursor, limit: int
    ) -> list[Record]:
        """Readings with start <= at < end that come before a cursor, from the latest."""
        sql = """
            SELECT entry, at, whole, numbers, exact, status, place FROM ingest.reading
            WHERE dataset = $1 AND at >= $2 AND at < $3 AND at <= $4 AND (at, entry) < ($4, $5) AND entry > $6
            ORDER BY at DESC, entry DESC LIMIT $7
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
            SELECT entry, at, whole, numbers, exact, status, place FROM ingest.reading
            WHERE dataset = $1 AND at >= $2 AND at < $3 AND at >= $4 AND (at, entry) > ($4, $5)
              AND entry > $6 AND entry <= $7
            ORDER BY at, entry LIMIT $8
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
                SELECT {printed.columns} FROM ingest.reading
                WHERE dataset = $1 AND at >= $2 AND at < $3 AND at >= $4 AND (at, entry) > ($4, $5)
                  AND entry > $6 AND entry <= $7
                ORDER BY at, entry LIMIT $8) found) printed
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
