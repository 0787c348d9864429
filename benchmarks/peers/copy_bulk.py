"""aiohttp and asyncpg's COPY without a queue: the shortest way for a thousand readings into a table.

`POST /readings` `[{"at": ..., "values": {"temperature": ..., "humidity": ...}}, ...]` is decoded and
checked by msgspec, copied into a table with an index on (series_id, ts), and answered 201 when committed.
Nothing protects against a request that is sent twice, there are no positions, and all rows are of one
series.

Tuned: uvloop, msgspec into tuples' own types, binary COPY, a pool without the RESET query at each release.
Source of truth: magicstack.github.io/asyncpg (`copy_records_to_table`); jcristharif.com/msgspec
("Performance").
"""

from __future__ import annotations

import argparse
import os
from collections.abc import AsyncIterator
from datetime import datetime

import asyncpg
import msgspec
import uvloop
from aiohttp import web

TABLES = """
    CREATE SCHEMA IF NOT EXISTS copy_bulk;
    CREATE TABLE IF NOT EXISTS copy_bulk.reading (
        series_id integer NOT NULL,
        ts timestamptz NOT NULL,
        temperature float8,
        humidity float8
    );
    CREATE INDEX IF NOT EXISTS reading_of_series ON copy_bulk.reading (series_id, ts);
"""
COLUMNS = ("series_id", "ts", "temperature", "humidity")
POOL = 4
MEGABYTES = 16
SERIES = 1


class Values(msgspec.Struct, gc=False):
    """What is measured."""

    temperature: float | None = None
    humidity: float | None = None


class Reading(msgspec.Struct, gc=False):
    """One reading."""

    at: datetime
    values: Values


decode = msgspec.json.Decoder(list[Reading]).decode
pool_of = web.AppKey("pool", asyncpg.Pool)


async def nothing(_: object) -> None:
    """No statement here leaves a setting behind that would have to be reset."""


async def database(app: web.Application) -> AsyncIterator[None]:
    """The table and a pool as long as the program runs."""
    url = os.environ["BENCH_DATABASE_URL"]
    async with asyncpg.create_pool(url, min_size=POOL, max_size=POOL, reset=nothing) as pool:
        await pool.execute(TABLES)
        app[pool_of] = pool
        yield


async def post(request: web.Request) -> web.Response:
    """Decode all, copy all."""
    readings = decode(await request.read())
    rows = [(SERIES, one.at, one.values.temperature, one.values.humidity) for one in readings]
    await request.app[pool_of].copy_records_to_table(
        "reading", schema_name="copy_bulk", records=rows, columns=COLUMNS
    )
    return web.Response(status=201)


def main() -> None:
    """Serve until SIGTERM."""
    arguments = argparse.ArgumentParser()
    arguments.add_argument("role", choices=["web"])
    arguments.add_argument("--port", type=int, required=True)
    app = web.Application(client_max_size=MEGABYTES * 1024 * 1024)
    app.add_routes([web.post("/readings", post)])
    app.cleanup_ctx.append(database)
    web.run_app(
        app,
        host="127.0.0.1",
        port=arguments.parse_args().port,
        access_log=None,
        shutdown_timeout=1,
        print=lambda *_: print("ready", flush=True),
        loop=uvloop.new_event_loop(),
    )


if __name__ == "__main__":
    main()
