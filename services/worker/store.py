"""All SQL of worker."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable
from struct import Struct
from typing import Any

import asyncpg

from services.worker.rules import Row
from services.worker.searching import Search
from shared.errors import Refusal

AHEAD_DAYS = 7
SEARCH_SECONDS = 5.0
POSTGRES_EPOCH_US = 946_684_800_000_000  # 2000-01-01
NULL = b"\xff\xff\xff\xff"
JSONB_VERSION = b"\x01"
_WANTED = """
    SELECT at, ctid AS place, level, service, event, request_id, trace_id, fields
    FROM log_line
    WHERE ($1::text IS NULL OR service = $1)
      AND level >= $2
      AND ($3::text IS NULL OR (request_id = $3 AND request_id > '')
           OR (request_id = '' AND trace_id = $4::uuid))
      AND ($5::uuid IS NULL OR trace_id = $5)
      AND ($6::text IS NULL OR event ILIKE $6 OR fields::text ILIKE $6)
      AND ($7::timestamptz IS NULL OR at >= $7)
      AND ($8::timestamptz IS NULL OR at < $8)
"""
_NEWEST_FIRST = (
    _WANTED
    + """
      AND ($9::timestamptz IS NULL OR (at <= $9 AND (at < $9 OR ctid < $10::tid)))
    ORDER BY at DESC, ctid DESC LIMIT $11
"""
)
_OLDEST_FIRST = (
    _WANTED
    + """
      AND ($9::timestamptz IS NULL OR (at >= $9 AND (at > $9 OR ctid > $10::tid)))
    ORDER BY at, ctid LIMIT $11
"""
)
_LIMITS = """
    SELECT set_config('statement_timeout', $1, true), set_config('plan_cache_mode', 'force_custom_plan', true)
"""
_LENGTH = Struct(">i").pack
_COUNT_AND_AT = Struct(">hiq").pack
_LEVEL_AND_LENGTH = Struct(">ihi").pack


class Store:
    """Log lines, on one connection or the pool."""

    def __init__(self, db: Any, search_seconds: float = SEARCH_SECONDS) -> None:
        self._db = db
        self._search_seconds = search_seconds

    async def add_rows(self, rows: Iterable[Row]) -> None:
        """Append lines in one statement."""
        await self._db.copy_to_table("log_line", source=_copy_of(rows), columns=Row._fields, format="binary")

    async def lines(self, search: Search) -> list[asyncpg.Record]:
        """Lines that match, in order; raises a Refusal when they are not found in time.

        Planned anew each time: which index serves depends on what is given.
        """
        try:
            async with self._db.acquire() as connection, connection.transaction(readonly=True):
                await connection.execute(_LIMITS, f"{self._search_seconds}s")
                sql = _NEWEST_FIRST if search.is_descending else _OLDEST_FIRST
                found: list[asyncpg.Record] = await connection.fetch(sql, *_values(search))
        except (asyncpg.QueryCanceledError, asyncpg.LockNotAvailableError):
            detail = f"It took longer than {self._search_seconds:.0f} s. Say since and until, or a level."
            raise Refusal(detail, code="search_too_wide", status=422) from None
        return found

    async def keep_log(self, keep_days: int) -> bool:
        """Make the days to come and drop the old ones; False while a backup, say, holds the table."""
        try:
            await self._db.execute("SELECT keep_log($1, $2)", keep_days, AHEAD_DAYS)
        except asyncpg.LockNotAvailableError:
            return False
        return True


def _values(search: Search) -> tuple[Any, ...]:
    after = search.after
    return (*search[:8], after and after.at, after and after[1:], search.limit)


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
            NULL if request_id is None else _LENGTH(len(request_id)) + request_id,
            _LENGTH(len(fields) + 1) + JSONB_VERSION + fields if fields else NULL,
        )
    )
