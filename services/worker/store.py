"""All SQL of worker."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable
from struct import Struct
from typing import Any

import asyncpg

from services.worker.rules import Row

AHEAD_DAYS = 7
POSTGRES_EPOCH_US = 946_684_800_000_000  # 2000-01-01
NULL = b"\xff\xff\xff\xff"
JSONB_VERSION = b"\x01"
_LENGTH = Struct(">i").pack
_COUNT_AND_AT = Struct(">hiq").pack
_LEVEL_AND_LENGTH = Struct(">ihi").pack


class Store:
    """Log lines, on one connection or the pool."""

    def __init__(self, db: Any) -> None:
        self._db = db

    async def add_rows(self, rows: Iterable[Row]) -> None:
        """Append lines in one statement."""
        await self._db.copy_to_table("log_line", source=_copy_of(rows), columns=Row._fields, format="binary")

    async def keep_log(self, keep_days: int) -> bool:
        """Make the days to come and drop the old ones; False while a backup, say, holds the table."""
        try:
            await self._db.execute("SELECT keep_log($1, $2)", keep_days, AHEAD_DAYS)
        except asyncpg.LockNotAvailableError:
            return False
        return True


async def _copy_of(rows: Iterable[Row]) -> AsyncIterator[bytes]:
    """The binary form of COPY (https://www.postgresql.org/docs/current/sql-copy.html#id-1.9.55.9.4).

    Written here because asyncpg looks up how to encode each value of each row, at twice the price.
    """
    yield b"".join((b"PGCOPY\n\xff\r\n\0", bytes(8), *map(_encoded, rows), b"\xff\xff"))


def _encoded(row: Row) -> bytes:
    at, trace_id, level, service, event, request_id, fields = row
    return b"".join(
        (
            _COUNT_AND_AT(len(row), 8, at - POSTGRES_EPOCH_US),
            b"\0\0\0\x10" + trace_id if trace_id else NULL,
            _LEVEL_AND_LENGTH(2, level, len(service)),
            service,
            _LENGTH(len(event)),
            event,
            _LENGTH(len(request_id)) + request_id if request_id else NULL,
            _LENGTH(len(fields) + 1) + JSONB_VERSION + fields if fields else NULL,
        )
    )
