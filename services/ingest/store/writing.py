"""Writing readings: the counters that number them, and what makes a repeat change nothing."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from uuid import UUID

import msgspec

from services.ingest import copying
from services.ingest.numbering import Account, Import, OwnId, Plan
from services.ingest.rules import Known
from services.ingest.store.base import Record, Statements, counts_of, known_of
from shared.contracts.ingest import EntryStored


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
        if plan.rows or plan.blocks:
            await self._add_readings(plan)
        if plan.accounts:
            await self._set_counters(list(plan.accounts.values()))
        if plan.own_ids:
            await self._add_own_ids(plan)
        if plan.positions:
            await self._set_positions(plan)

    async def _add_readings(self, plan: Plan) -> None:
        """COPY also for a single row: it costs the same as INSERT there, and arrays go in as they are."""
        await self._db.copy_to_table(
            "reading",
            schema_name="ingest",
            columns=copying.COLUMNS,
            source=copying.stream(plan.blocks, plan.rows),
            format="binary",
        )

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
