"""Writing readings: the counters that number them, and what makes a repeat change nothing."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from itertools import accumulate
from typing import Any
from uuid import UUID

import msgspec

from services.ingest import copying
from services.ingest.numbering import Account, Import, OwnId, Plan, Row
from services.ingest.rules import Known
from services.ingest.store.base import Record, Statements, counts_of, known_of
from shared.bus.routes import Done, Guess
from shared.contracts.ingest import EntryStored

FEW_ROWS = 100
NUMBERS_ONLY = (None, None, None)  # no exact texts, no status, no place


class Writing(Statements):
    """Statements of writers; the counters of a dataset are locked before anything is written to it."""

    async def lock_counters(self, dataset_ids: Collection[UUID]) -> list[Record]:
        """Lock in order of number, so that no two writers wait for each other; deleted ones are not found.

        What was waited for is read as its last commit left it; the version is that of the statement's start.
        """
        sql = """
            SELECT c.dataset, d.version, c.last_entry, c.entries, c.stored, c.duplicates, c.expired,
                   c.rejected::text AS rejected, c.first_at, c.last_at, c.cleared, c.parts
            FROM ingest.dataset_counter c JOIN ingest.dataset d ON d.number = c.dataset
            WHERE d.id = ANY($1::uuid[]) AND d.deleted_at IS NULL ORDER BY c.dataset FOR UPDATE OF c
        """
        rows: list[Record] = await self._db.fetch(sql, list(dataset_ids))
        return rows

    async def locked(self, counters: Sequence[Record]) -> dict[UUID, Known]:
        """The datasets of locked counters; only a description that this process has not read is asked for."""
        known = {row["dataset"]: self._descriptions.find(row["dataset"], row["version"]) for row in counters}
        unknown = [number for number, description in known.items() if description is None]
        known |= await self._described(unknown) if unknown else {}
        found = [_counted(it, row) for row in counters if (it := known[row["dataset"]]) is not None]
        return {it.id: it for it in found}

    async def _described(self, numbers: Collection[int]) -> dict[int, Known]:
        sql = "SELECT * FROM ingest.described WHERE number = ANY($1::integer[]) AND deleted_at IS NULL"
        found = [known_of(row) for row in await self._db.fetch(sql, numbers)]
        for known in found:
            self._descriptions.keep(known)
        return {known.number: known for known in found}

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

    async def carry_out(self, plan: Plan) -> None:
        """Write everything a plan says, in at most four statements."""
        if _are_few(plan):
            await self._add_few(plan)
        elif plan.rows or plan.blocks:
            await self._add_readings(plan)
            await self._set_counters(plan.accounts.values())
        elif plan.accounts:
            await self._set_counters(plan.accounts.values())
        if plan.own_ids:
            await self._add_own_ids(plan)
        if plan.positions:
            await self._set_positions(plan)

    async def _add_few(self, plan: Plan) -> None:
        """Rows and counters in one statement: for some tens of plain rows that is half of what two cost."""
        await self._db.execute(_ADD_AND_COUNT, *_counters(plan.accounts.values()), *_rows(plan.rows))

    def guess(self, plan: Plan) -> Guess | None:
        """One statement for a plan made from memory; None when it is not one of a few plain rows."""
        if not _are_few(plan) or plan.own_ids or plan.positions:
            return None
        accounts = list(plan.accounts.values())
        if any(account.rejected or account.duplicates for account in accounts):
            return None
        remembered = self._descriptions
        for account in accounts:
            remembered.numbered(account.known.number, account.last_entry)

        def ended(right: bool) -> None:
            for account in accounts if not right else ():
                remembered.doubt(account.known.number)

        counts = [(it.known.last_entry, it.entries, it.first_at, it.last_at, it.parts) for it in accounts]
        arguments = [
            [it.known.number for it in accounts],
            [it.known.version for it in accounts],
            *map(list, zip(*counts, strict=True)),
            *_rows(plan.rows),
        ]
        done = [outcome for outcome in plan.outcomes if isinstance(outcome, Done)]
        return Guess(done, _GUESS, _PROOF, arguments, ended)

    async def _add_readings(self, plan: Plan) -> None:
        """COPY: arrays and texts go in as they are, and for many rows it is the quickest."""
        await self._db.copy_to_table(
            "reading",
            schema_name="ingest",
            columns=copying.COLUMNS,
            source=copying.stream(plan.blocks, plan.rows),
            format="binary",
        )

    async def _set_counters(self, accounts: Iterable[Account]) -> None:
        await self._db.execute(_COUNT, *_counters(accounts))

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


# The counters of each account; parameters are those of `_counters`.
_COUNT = """
    UPDATE ingest.dataset_counter c
    SET last_entry = n.last_entry, entries = n.entries, stored = n.stored, duplicates = n.duplicates,
        rejected = n.rejected::jsonb, first_at = n.first_at, last_at = n.last_at, parts = n.parts
    FROM unnest($1::integer[], $2::bigint[], $3::bigint[], $4::bigint[], $5::bigint[], $6::text[],
                $7::timestamptz[], $8::timestamptz[], $9::smallint[])
        AS n (dataset, last_entry, entries, stored, duplicates, rejected, first_at, last_at, parts)
    WHERE c.dataset = n.dataset
"""
# Before it, rows; the numbers of each are a slice of those of all.
_ADD = """
    WITH added AS (
        INSERT INTO ingest.reading (entry, at, whole, dataset, numbers)
        SELECT entry, at, whole, dataset, nullif(($16::float8[])[start + 1 : stop], '{}')
        FROM unnest($10::bigint[], $11::timestamptz[], $12::bigint[], $13::integer[],
                    $14::integer[], $15::integer[]) AS r (entry, at, whole, dataset, start, stop)
    )
"""
_ADD_AND_COUNT = _ADD + _COUNT


# The same from memory: right when every dataset is as it was, and its last entry the one that was believed.
_GUESS = """
    locked AS MATERIALIZED (
        SELECT c.dataset, c.last_entry
        FROM unnest($1::integer[], $2::integer[]) AS w (dataset, version)
        JOIN ingest.dataset d ON d.number = w.dataset AND d.version = w.version AND d.deleted_at IS NULL
        JOIN ingest.dataset_counter c ON c.dataset = w.dataset
        ORDER BY c.dataset FOR UPDATE OF c
    ), counted AS (
        UPDATE ingest.dataset_counter c
        SET last_entry = c.last_entry + n.added, entries = c.entries + n.added, stored = c.stored + n.added,
            first_at = least(c.first_at, n.first_at), last_at = greatest(c.last_at, n.last_at),
            parts = c.parts | n.parts
        FROM unnest($1::integer[], $3::bigint[], $4::bigint[], $5::timestamptz[], $6::timestamptz[],
                    $7::smallint[]) AS n (dataset, before, added, first_at, last_at, parts)
        JOIN locked l ON l.dataset = n.dataset AND l.last_entry = n.before
        WHERE c.dataset = n.dataset
        RETURNING 1
    ), added AS (
        INSERT INTO ingest.reading (entry, at, whole, dataset, numbers)
        SELECT entry, at, whole, dataset, nullif(($14::float8[])[start + 1 : stop], '{}')
        FROM unnest($8::bigint[], $9::timestamptz[], $10::bigint[], $11::integer[],
                    $12::integer[], $13::integer[]) AS r (entry, at, whole, dataset, start, stop)
    )
"""
_PROOF = "(SELECT count(*) FROM counted) = cardinality($1::integer[])"


def _rows(rows: Sequence[Row]) -> list[list[Any]]:
    numbers = [number for row in rows for number in row[4] or ()]
    ends = list(accumulate((len(row[4] or ()) for row in rows), initial=0))
    first_four = [[row[column] for row in rows] for column in range(4)]
    return [*first_four, ends[:-1], ends[1:], numbers]


def _counters(accounts: Iterable[Account]) -> list[list[Any]]:
    columns = [
        (
            account.known.number,
            account.last_entry,
            account.entries,
            account.stored,
            account.duplicates,
            msgspec.json.encode(account.rejected).decode(),
            account.first_at,
            account.last_at,
            account.parts,
        )
        for account in accounts
    ]
    return list(map(list, zip(*columns, strict=True)))


def _are_few(plan: Plan) -> bool:
    plain = not plan.blocks and 0 < len(plan.rows) <= FEW_ROWS
    return plain and all(row[5:] == NUMBERS_ONLY for row in plan.rows)


def _counted(known: Known, row: Record) -> Known:
    """The dataset with the counters of a row."""
    return msgspec.structs.replace(
        known,
        last_entry=row["last_entry"],
        entries=row["entries"],
        stored=row["stored"],
        duplicates=row["duplicates"],
        expired=row["expired"],
        rejected=counts_of(row["rejected"]),
        first_at=row["first_at"],
        last_at=row["last_at"],
        cleared=row["cleared"],
        parts=row["parts"],
    )
