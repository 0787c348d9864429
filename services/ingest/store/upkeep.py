"""What keeps the tables in shape: partitions ahead of time, and off the disk what is gone."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from services.ingest.store.base import Statements


@dataclass(frozen=True)
class Purge:
    """Readings to take off the disk: those after `purged` up to `upto`; `whole`: their dataset too."""

    number: int
    purged: int
    upto: int
    whole: bool


class Upkeep(Statements):
    """Statements of the timers."""

    async def make_partitions(self, months_ahead: int) -> int:
        """How many were made; -1: could not be done now."""
        made: int = await self._db.fetchval("SELECT ingest.make_partitions($1)", months_ahead)
        return made

    async def next_purge(self, deleted_before: datetime) -> Purge | None:
        """A dataset nobody else purges now; its counters stay free for writers of a cleared one."""
        sql = """
            SELECT d.number, c.purged, deleted_before.it AS whole,
                   CASE WHEN deleted_before.it THEN c.last_entry ELSE c.cleared END AS upto
            FROM ingest.dataset d
            JOIN ingest.dataset_counter c ON c.dataset = d.number
            CROSS JOIN LATERAL (SELECT coalesce(d.deleted_at < $1, false) AS it) deleted_before
            WHERE d.number IN (
                SELECT dataset FROM ingest.dataset_counter WHERE purged < cleared
                UNION ALL SELECT number FROM ingest.dataset WHERE deleted_at < $1)
            LIMIT 1 FOR NO KEY UPDATE OF d SKIP LOCKED
        """
        row = await self._db.fetchrow(sql, deleted_before)
        return None if row is None else Purge(**row)

    async def purge_readings(self, purge: Purge, upto: int) -> None:
        sql = """
            WITH forgotten AS (
                DELETE FROM ingest.reading_identity WHERE dataset = $1 AND entry > $2 AND entry <= $3
            )
            DELETE FROM ingest.reading WHERE dataset = $1 AND entry > $2 AND entry <= $3
        """
        await self._db.execute(sql, purge.number, purge.purged, upto)

    async def set_purged(self, purge: Purge, upto: int) -> None:
        sql = "UPDATE ingest.dataset_counter SET purged = $2 WHERE dataset = $1"
        await self._db.execute(sql, purge.number, upto)

    async def forget_dataset(self, purge: Purge) -> None:
        """The dataset itself; its variables, keys, counters and import positions go with it."""
        await self._db.execute("DELETE FROM ingest.dataset WHERE number = $1", purge.number)
