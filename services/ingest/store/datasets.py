"""Datasets, their variables and their keys."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from datetime import datetime
from typing import NamedTuple
from uuid import UUID

from services.ingest.rules import Known
from services.ingest.store.base import Statements, at_most_one, known_of
from shared.bus.routes import Statement
from shared.contracts.base import Principal
from shared.contracts.ingest import CreateDataset, DatasetCreated, KeyHolder, KeyKind, Variable


class StoredKey(NamedTuple):
    """A key as it lies in the database, which never sees it in the clear."""

    kind: KeyKind
    digest: bytes
    locked: bytes


class Datasets(Statements):
    """Statements about datasets; a deleted one is found by `deleted` only."""

    async def dataset(self, dataset_id: UUID) -> Known | None:
        sql = "SELECT * FROM ingest.described WHERE id = $1 AND deleted_at IS NULL"
        return at_most_one(await self._db.fetchrow(sql, dataset_id))

    async def deleted(self, dataset_id: UUID) -> Known | None:
        """One that its owner deleted; what went with its owner is not found."""
        sql = """
            SELECT * FROM ingest.described WHERE id = $1 AND deleted_at IS NOT NULL
            AND NOT (SELECT gone_with_owner FROM ingest.dataset WHERE id = $1)
        """
        return at_most_one(await self._db.fetchrow(sql, dataset_id))

    async def lock(self, dataset_id: UUID) -> None:
        """Hold the description until the end of the transaction; changes of a dataset take turns."""
        sql = "SELECT 1 FROM ingest.dataset WHERE id = $1 FOR NO KEY UPDATE"
        await self._db.fetchrow(sql, dataset_id)

    async def datasets_before(self, caller: Principal, number: int, limit: int) -> list[Known]:
        sql = """
            SELECT * FROM ingest.described
            WHERE project = $1 AND owner = $2 AND deleted_at IS NULL AND number < $3
            ORDER BY number DESC LIMIT $4
        """
        return [known_of(row) for row in await self._db.fetch(sql, caller.project, caller.id, number, limit)]

    async def datasets_after(self, caller: Principal, number: int, limit: int) -> list[Known]:
        sql = """
            SELECT * FROM ingest.described
            WHERE project = $1 AND owner = $2 AND deleted_at IS NULL AND number > $3
            ORDER BY number LIMIT $4
        """
        return [known_of(row) for row in await self._db.fetch(sql, caller.project, caller.id, number, limit)]

    async def deleted_before(
        self, caller: Principal, since: datetime, number: int, limit: int
    ) -> list[Known]:
        """Those that were deleted after `since`."""
        sql = """
            SELECT * FROM ingest.described
            WHERE project = $1 AND owner = $2 AND deleted_at > $3 AND number < $4
            ORDER BY number DESC LIMIT $5
        """
        rows = await self._db.fetch(sql, caller.project, caller.id, since, number, limit)
        return [known_of(row) for row in rows]

    async def deleted_after(self, caller: Principal, since: datetime, number: int, limit: int) -> list[Known]:
        """The same, the oldest first."""
        sql = """
            SELECT * FROM ingest.described
            WHERE project = $1 AND owner = $2 AND deleted_at > $3 AND number > $4
            ORDER BY number LIMIT $5
        """
        rows = await self._db.fetch(sql, caller.project, caller.id, since, number, limit)
        return [known_of(row) for row in rows]

    def add_dataset(
        self,
        cmd: CreateDataset,
        dataset_id: UUID,
        owner: Principal,
        at: datetime,
        variables: Sequence[Variable],
        keys: Sequence[StoredKey],
        reply: Callable[[int], DatasetCreated],
    ) -> Statement[DatasetCreated]:
        """A new dataset with everything that belongs to it; `reply` is told its number."""
        sql = """
            made AS (
                INSERT INTO ingest.dataset (id, project, owner, name, description, public, created_at)
                VALUES ($1, $2, $3, $4, $5, $6, $7) RETURNING number
            ), counted AS (
                INSERT INTO ingest.dataset_counter (dataset) SELECT number FROM made
            ), described AS (
                INSERT INTO ingest.variable (dataset, field, tag, name, unit)
                SELECT made.number, v.*
                FROM made, unnest($8::smallint[], $9::text[], $10::text[], $11::text[]) v
            ), locked AS (
                INSERT INTO ingest.dataset_key (dataset, kind, digest, locked)
                SELECT made.number, k.* FROM made, unnest($12::text[], $13::bytea[], $14::bytea[]) k
            )
        """
        arguments = (
            dataset_id,
            owner.project,
            owner.id,
            cmd.name,
            cmd.description,
            cmd.public,
            at,
            [variable.field for variable in variables],
            [variable.tag for variable in variables],
            [variable.name for variable in variables],
            [variable.unit for variable in variables],
            *map(list, zip(*keys, strict=True)),
        )
        return Statement(sql, arguments, reply)

    async def change_dataset(self, number: int, name: str, description: str, public: bool) -> None:
        sql = """
            UPDATE ingest.dataset
            SET name = $2, description = $3, public = $4, version = version + 1 WHERE number = $1
        """
        await self._db.execute(sql, number, name, description, public)

    async def set_variables(self, number: int, variables: Sequence[Variable]) -> None:
        sql = """
            INSERT INTO ingest.variable (dataset, field, tag, name, unit, retired)
            SELECT $1, v.* FROM unnest($2::smallint[], $3::text[], $4::text[], $5::text[], $6::boolean[]) v
            ON CONFLICT (dataset, field)
            DO UPDATE SET name = excluded.name, unit = excluded.unit, retired = excluded.retired
        """
        await self._db.execute(
            sql,
            number,
            [variable.field for variable in variables],
            [variable.tag for variable in variables],
            [variable.name for variable in variables],
            [variable.unit for variable in variables],
            [variable.retired for variable in variables],
        )

    async def delete_dataset(self, number: int, at: datetime) -> None:
        sql = "UPDATE ingest.dataset SET deleted_at = $2 WHERE number = $1"
        await self._db.execute(sql, number, at)

    async def restore_dataset(self, number: int) -> None:
        sql = "UPDATE ingest.dataset SET deleted_at = NULL WHERE number = $1"
        await self._db.execute(sql, number)

    async def set_key(self, number: int, key: StoredKey) -> None:
        sql = """
            INSERT INTO ingest.dataset_key (dataset, kind, digest, locked) VALUES ($1, $2, $3, $4)
            ON CONFLICT (dataset, kind) DO UPDATE SET digest = excluded.digest, locked = excluded.locked
        """
        await self._db.execute(sql, number, *key)

    async def locked_keys(self, number: int) -> dict[str, bytes]:
        sql = "SELECT kind, locked FROM ingest.dataset_key WHERE dataset = $1"
        return dict(await self._db.fetch(sql, number))

    async def key_digests(self, number: int, kinds: Iterable[KeyKind]) -> tuple[bytes, ...]:
        sql = "SELECT digest FROM ingest.dataset_key WHERE dataset = $1 AND kind = ANY($2) ORDER BY kind"
        return tuple(row["digest"] for row in await self._db.fetch(sql, number, list(kinds)))

    async def key_holders(self, digests: Collection[bytes]) -> dict[bytes, KeyHolder]:
        sql = """
            SELECT k.digest, d.id AS dataset_id, k.kind, d.project
            FROM ingest.dataset_key k JOIN ingest.dataset d ON d.number = k.dataset
            WHERE k.digest = ANY($1::bytea[]) AND d.deleted_at IS NULL
        """
        return {
            digest: KeyHolder(dataset_id=dataset_id, kind=kind, project=project)
            for digest, dataset_id, kind, project in await self._db.fetch(sql, list(digests))
        }
