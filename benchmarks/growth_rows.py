"""Rows for the growth part of the bench: one series among a thousand, three years of readings."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import asyncpg

SERIES = 1_000
OWN_SHARE = 10
"""Every tenth row of the table is of the series that is looked at."""
MOST_ROWS = 10_000_000
SPAN = timedelta(days=3 * 365)
STEP = SPAN / MOST_ROWS
PIECE_ROWS = 500_000


async def grow(connection: asyncpg.Connection, dataset_number: int, total_rows: int) -> None:
    """Let the readings of all datasets together be `total_rows`: what is missing is added, later ones last.

    The rows are as old as three years and come one every ten seconds, each tenth of `dataset_number`, so its
    readings of a day are 913 however large the table is. The others are of 999 datasets beside it, made
    here. Counters are as if the rows had been sent. Statistics are gathered at the end. For a superuser.
    """
    numbers = [dataset_number, *await _others(connection, dataset_number)]
    sql = "SELECT count(*), min(at) FROM ingest.reading WHERE dataset = ANY($1::integer[])"
    found = await connection.fetch(sql, numbers, timeout=600)
    there = found[0]["count"]
    start = found[0]["min"] or datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0) - SPAN
    for first in range(there, total_rows, PIECE_ROWS):
        await _add(connection, numbers, start, first, min(first + PIECE_ROWS, total_rows))
    await _count(connection, numbers)
    await connection.execute("VACUUM (ANALYZE) ingest.reading", timeout=600)


async def _others(connection: asyncpg.Connection, beside: int) -> list[int]:
    """The numbers of 999 datasets of the same owner, made when they are not there."""
    made = await connection.fetch("SELECT number FROM ingest.dataset WHERE name = 'growth' ORDER BY number")
    if not made:
        made = await connection.fetch(
            """
            WITH made AS (
                INSERT INTO ingest.dataset (id, project, owner, name, description, public, created_at)
                SELECT gen_random_uuid(), project, owner, 'growth', '', false, created_at
                FROM ingest.dataset, generate_series(2, $2) WHERE number = $1
                RETURNING number
            ), variables AS (
                INSERT INTO ingest.variable (dataset, field, tag, name, unit)
                SELECT m.number, v.field, v.tag, v.name, v.unit
                FROM made m, ingest.variable v WHERE v.dataset = $1
            ), counters AS (
                INSERT INTO ingest.dataset_counter (dataset) SELECT number FROM made
            )
            SELECT number FROM made ORDER BY number
            """,
            beside,
            SERIES,
        )
    return [row["number"] for row in made]


async def _add(
    connection: asyncpg.Connection, numbers: list[int], start: datetime, first: int, end: int
) -> None:
    """Rows number `first` to before `end` of the table, two variables each, one of them whole."""
    sql = """
        INSERT INTO ingest.reading (entry, at, whole, dataset, numbers)
        SELECT CASE WHEN row % $4 = 0 THEN row / $4 + 1 ELSE other / ($5 - 1) + 1 END,
               $6::timestamptz + row * $7::interval, 2, ($3::integer[])[which],
               ARRAY[row * 7919 % 5000 / 100::float8, row % 100]
        FROM generate_series($1::bigint, $2::bigint - 1) row
        CROSS JOIN LATERAL (SELECT row - row / $4::bigint - 1 AS other) o
        CROSS JOIN LATERAL (
            SELECT CASE WHEN row % $4 = 0 THEN 1 ELSE other % ($5::bigint - 1) + 2 END::integer AS which) w
        ORDER BY which, row
    """
    await connection.execute(sql, first, end, numbers, OWN_SHARE, SERIES, start, STEP, timeout=600)


async def _count(connection: asyncpg.Connection, numbers: list[int]) -> None:
    """The counters say what is there."""
    sql = """
        UPDATE ingest.dataset_counter c
        SET last_entry = r.entries, entries = r.entries, stored = r.entries,
            first_at = r.first, last_at = r.last
        FROM (SELECT dataset, count(*) AS entries, min(at) AS first, max(at) AS last
              FROM ingest.reading WHERE dataset = ANY($1::integer[]) GROUP BY dataset) r
        WHERE c.dataset = r.dataset
    """
    await connection.execute(sql, numbers, timeout=600)
