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

    async def purge_piece(self, deleted_before: datetime, gone_before: datetime, most: int) -> bool:
        """Take a piece of what was deleted or cleared off the disk; whether there was any.

        In a transaction, which is what keeps two processes from the same dataset; the counters are not
        locked before its last moment, for the writers of a cleared one.
        """
        async with self._db.acquire() as connection, connection.transaction():
            own = Upkeep(connection)
            purge = await own.next_purge(deleted_before, gone_before)
            if purge is None:
                return False
            upto = min(purge.purged + most, purge.upto)
            if upto > purge.purged:
                await own.purge_readings(purge, upto)
                await own.set_purged(purge, upto)
            if purge.whole and upto == purge.upto:
                await own.forget_dataset(purge)
        return True

    async def next_purge(self, deleted_before: datetime, gone_before: datetime) -> Purge | None:
        """A dataset nobody else purges now: cleared, deleted, or (`gone_before`) gone with its owner."""
        sql = """
            SELECT d.number, c.purged, ended.it AS whole,
                   CASE WHEN ended.it THEN c.last_entry ELSE c.cleared END AS upto
            FROM ingest.dataset d
            JOIN ingest.dataset_counter c ON c.dataset = d.number
            CROSS JOIN LATERAL (SELECT coalesce(
                d.deleted_at < $1 AND (NOT d.gone_with_owner OR d.deleted_at < $2), false) AS it) ended
            WHERE d.number IN (
                SELECT dataset FROM ingest.dataset_counter WHERE purged < cleared
                UNION ALL SELECT number FROM ingest.dataset
                    WHERE deleted_at < $1 AND (NOT gone_with_owner OR deleted_at < $2))
            LIMIT 1 FOR NO KEY UPDATE OF d SKIP LOCKED
        """
        row = await self._db.fetchrow(sql, deleted_before, gone_before)
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
