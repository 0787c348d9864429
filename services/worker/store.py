"""All SQL of worker."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any
from uuid import UUID

import asyncpg
import msgspec

from shared.contracts.worker import LogLine

LEVELS = {"debug": 10, "info": 20, "warning": 30, "error": 40, "critical": 50}
AHEAD_DAYS = 7
ESCAPED_NUL = re.compile(r"(?<!\\)((?:\\\\)*)\\u0000")


class Store:
    """Log lines, on one connection or the pool."""

    def __init__(self, db: Any) -> None:
        self._db = db

    async def add_lines(self, lines: Sequence[LogLine]) -> None:
        """Append lines in one statement."""
        sql = """
            INSERT INTO log_line (at, trace_id, level, service, event, request_id, fields)
            SELECT at, trace_id, level, service, event, nullif(request_id, ''), nullif(fields, '{}')::jsonb
              FROM unnest($1::timestamptz[], $2::uuid[], $3::smallint[], $4::text[], $5::text[], $6::text[],
                          $7::text[]) AS new (at, trace_id, level, service, event, request_id, fields)
        """
        await self._db.execute(
            sql,
            [line.at for line in lines],
            [UUID(line.trace_id) if line.trace_id else None for line in lines],
            [LEVELS[line.level] for line in lines],
            [line.service for line in lines],
            [_storable(line.event) for line in lines],
            [_storable(line.request_id) for line in lines],
            [_storable(msgspec.json.encode(line.fields).decode()) for line in lines],
        )

    async def keep_log(self, keep_days: int) -> bool:
        """Make the days to come and drop the old ones; False while a backup, say, holds the table."""
        try:
            await self._db.execute("SELECT keep_log($1, $2)", keep_days, AHEAD_DAYS)
        except asyncpg.LockNotAvailableError:
            return False
        return True


def _storable(text: str) -> str:
    """PostgreSQL stores no NUL character, neither in text nor as an escape in jsonb."""
    return ESCAPED_NUL.sub(r"\1", text.replace("\0", ""))
