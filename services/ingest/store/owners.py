"""Owners whose accounts were deleted, and what went and came back with them."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from services.ingest.store.base import Statements


@dataclass(frozen=True)
class Gone:
    """A dataset that went with its owner, and the digests of its keys."""

    id: UUID
    digests: tuple[bytes, ...]


class Owners(Statements):
    """Each statement may be repeated, and changes nothing then."""

    async def hear(
        self, project: str, owner: str, told_at: datetime, deleted: bool, purge_at: datetime | None
    ) -> bool:
        """Keep the last word about an owner; whether this is it."""
        sql = """
            INSERT INTO ingest.owner AS known (project, id, told_at, deleted, purge_at)
            VALUES ($1, $2, $3, $4, $5)
            ON CONFLICT (project, id) DO UPDATE
            SET told_at = excluded.told_at, deleted = excluded.deleted, purge_at = excluded.purge_at
            WHERE known.told_at <= excluded.told_at
            RETURNING true
        """
        return bool(await self._db.fetchval(sql, project, owner, told_at, deleted, purge_at))

    async def take_along(self, not_before: datetime) -> list[Gone]:
        """Delete what is there of owners that are not, as of their own deletion or of `not_before`.

        Looks at every owner: a dataset may have been on its way while its owner was deleted.
        """
        sql = """
            WITH gone AS (
                UPDATE ingest.dataset d
                SET deleted_at = greatest(o.purge_at - interval '24 hours', $1), gone_with_owner = true
                FROM ingest.owner o
                WHERE o.deleted AND d.project = o.project AND d.owner = o.id AND d.deleted_at IS NULL
                RETURNING d.number, d.id
            )
            SELECT id, array_agg(k.digest ORDER BY k.kind) AS digests
            FROM gone JOIN ingest.dataset_key k ON k.dataset = gone.number GROUP BY id
        """
        return [Gone(row["id"], tuple(row["digests"])) for row in await self._db.fetch(sql, not_before)]

    async def gone_of(self, project: str, owner: str) -> list[Gone]:
        """All that went with an owner."""
        sql = """
            SELECT d.id, array_agg(k.digest ORDER BY k.kind) AS digests
            FROM ingest.dataset d JOIN ingest.dataset_key k ON k.dataset = d.number
            WHERE d.project = $1 AND d.owner = $2 AND d.gone_with_owner GROUP BY d.id
        """
        return [Gone(row["id"], tuple(row["digests"])) for row in await self._db.fetch(sql, project, owner)]

    async def bring_back(self, project: str, owner: str, deleted_after: datetime) -> int:
        """Undelete what went with an owner, unless its purge may have begun; how many datasets."""
        sql = """
            UPDATE ingest.dataset SET deleted_at = NULL, gone_with_owner = false
            WHERE project = $1 AND owner = $2 AND gone_with_owner AND deleted_at > $3
        """
        said: str = await self._db.execute(sql, project, owner, deleted_after)
        return int(said.split()[1])

    async def forget_owners(self, told_before: datetime) -> None:
        await self._db.execute("DELETE FROM ingest.owner WHERE told_at < $1", told_before)
