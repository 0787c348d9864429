"""What a database holds, in figures that can be compared: rows of each table, and a sum over them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import asyncpg

    Connection = asyncpg.Connection[asyncpg.Record]

Tally = dict[str, Any]
# Figures are compared as texts: the settings that shape them are fixed.
_FIXED = "SET LOCAL TimeZone = 'UTC'; SET LOCAL DateStyle = 'ISO'; SET LOCAL extra_float_digits = 1"
NO_LIMITS = {"statement_timeout": "0", "lock_timeout": "0", "idle_in_transaction_session_timeout": "0"}
"""For a connection that reads everything, or waits beside one that does."""
_TABLES = """
SELECT format('%I.%I', n.nspname, c.relname) AS name
  FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
 WHERE c.relkind = 'r' AND n.nspname NOT LIKE 'pg\\_%' AND n.nspname <> 'information_schema'
 ORDER BY 1
"""


async def tables(connection: Connection) -> list[str]:
    """Every table that has rows of its own (a partition has, what it is a part of has not), quoted."""
    return [row["name"] for row in await connection.fetch(_TABLES)]


async def tally(connection: Connection, names: list[str]) -> dict[str, Tally]:
    """Rows and sum of each; the sum does not depend on the order of rows."""
    await connection.execute(_FIXED)
    return {name: await _one(connection, name) for name in names}


async def _one(connection: Connection, name: str) -> Tally:
    row = await connection.fetchrow(
        f"SELECT count(*) AS rows, coalesce(sum(hashtextextended(t::text, 0)), 0)::text AS sum FROM {name} t"  # noqa: S608
    )
    assert row is not None
    return {"rows": row["rows"], "sum": row["sum"]}
