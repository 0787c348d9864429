"""FastAPI and asyncpg without a queue: what most teams would build to write a row for each request.

`POST /readings` `{"values": {"temperature": 22.5}}` inserts one row; `POST /datasets` `{"name": ...,
"variables": [{"tag": ..., "name": ..., "unit": ...}]}` inserts a dataset, its counter, variables and two
keys with one statement, into tables that are those of Posthouse. A single statement is its own transaction,
so no BEGIN and COMMIT are paid for, and 201 is sent after the commit. There is no protection against a
request that is sent twice.

Tuned: uvloop and httptools, no access log, one typed model for each body, answers made without a response
model, a pool of connections without the RESET query that asyncpg sends at each release. One process.
Source of truth: fastapi.tiangolo.com ("Return a Response Directly"), www.uvicorn.org ("Settings"),
magicstack.github.io/asyncpg (`create_pool`).
"""

from __future__ import annotations

import argparse
import hashlib
import os
import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from uuid import uuid4

import asyncpg
import uvicorn
from fastapi import FastAPI
from fastapi.responses import JSONResponse, Response
from pydantic import BaseModel

TABLES = """
    CREATE SCHEMA IF NOT EXISTS fastapi_insert;
    SET search_path = fastapi_insert;
    CREATE TABLE IF NOT EXISTS reading (
        series_id integer NOT NULL,
        ts timestamptz NOT NULL,
        temperature float8,
        humidity float8
    );
    CREATE INDEX IF NOT EXISTS reading_of_series ON reading (series_id, ts);
    CREATE TABLE IF NOT EXISTS dataset (
        number integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
        id uuid NOT NULL UNIQUE,
        project text NOT NULL,
        owner text NOT NULL,
        name text NOT NULL,
        description text NOT NULL,
        public boolean NOT NULL,
        version integer NOT NULL DEFAULT 1,
        created_at timestamptz NOT NULL,
        deleted_at timestamptz
    );
    CREATE INDEX IF NOT EXISTS dataset_of_owner ON dataset (project, owner, number);
    CREATE INDEX IF NOT EXISTS dataset_deleted ON dataset (deleted_at) WHERE deleted_at IS NOT NULL;
    CREATE TABLE IF NOT EXISTS dataset_counter (
        dataset integer PRIMARY KEY REFERENCES dataset ON DELETE CASCADE,
        last_entry bigint NOT NULL DEFAULT 0,
        entries bigint NOT NULL DEFAULT 0,
        stored bigint NOT NULL DEFAULT 0,
        duplicates bigint NOT NULL DEFAULT 0,
        expired bigint NOT NULL DEFAULT 0,
        rejected jsonb NOT NULL DEFAULT '{}',
        first_at timestamptz,
        last_at timestamptz,
        cleared bigint NOT NULL DEFAULT 0,
        purged bigint NOT NULL DEFAULT 0,
        parts smallint NOT NULL DEFAULT 0
    ) WITH (fillfactor = 50);
    CREATE INDEX IF NOT EXISTS dataset_counter_to_purge ON dataset_counter (dataset) WHERE purged < cleared;
    CREATE TABLE IF NOT EXISTS variable (
        dataset integer NOT NULL REFERENCES dataset ON DELETE CASCADE,
        field smallint NOT NULL CHECK (field BETWEEN 1 AND 64),
        tag text NOT NULL,
        name text NOT NULL,
        unit text NOT NULL,
        retired boolean NOT NULL DEFAULT false,
        PRIMARY KEY (dataset, field),
        UNIQUE (dataset, tag)
    );
    CREATE TABLE IF NOT EXISTS dataset_key (
        dataset integer NOT NULL REFERENCES dataset ON DELETE CASCADE,
        kind text NOT NULL CHECK (kind IN ('read', 'write')),
        digest bytea NOT NULL UNIQUE,
        locked bytea NOT NULL,
        PRIMARY KEY (dataset, kind)
    );
"""
ADD_READING = (
    "INSERT INTO fastapi_insert.reading (series_id, ts, temperature, humidity) VALUES ($1, $2, $3, $4)"
)
ADD_DATASET = """
    WITH made AS (
        INSERT INTO fastapi_insert.dataset (id, project, owner, name, description, public, created_at)
        VALUES ($1, 'default', $2, $3, $4, $5, $6) RETURNING number
    ), counted AS (
        INSERT INTO fastapi_insert.dataset_counter (dataset) SELECT number FROM made
    ), described AS (
        INSERT INTO fastapi_insert.variable (dataset, field, tag, name, unit)
        SELECT number, field, tag, name, unit
        FROM made, unnest($7::text[], $8::text[], $9::text[]) WITH ORDINALITY v (tag, name, unit, field)
    ), keyed AS (
        INSERT INTO fastapi_insert.dataset_key (dataset, kind, digest, locked)
        SELECT number, kind, digest, locked
        FROM made, unnest($10::text[], $11::bytea[], $12::bytea[]) k (kind, digest, locked)
    )
    SELECT number FROM made
"""
POOL = 10


class Reading(BaseModel):
    """One reading of one series."""

    values: dict[str, float]
    at: datetime | None = None


class Variable(BaseModel):
    """What a dataset measures."""

    tag: str
    name: str = ""
    unit: str = ""


class Dataset(BaseModel):
    """A dataset to be made."""

    name: str
    description: str = ""
    public: bool = False
    variables: list[Variable] = []


@asynccontextmanager
async def database(app: FastAPI) -> AsyncIterator[None]:
    """Tables and a pool as long as the program runs."""
    url = os.environ["BENCH_DATABASE_URL"]
    connection = await asyncpg.connect(url)
    await connection.execute(TABLES)
    await connection.close()
    async with asyncpg.create_pool(url, min_size=POOL, max_size=POOL, reset=nothing) as pool:
        app.state.pool = pool
        yield


async def nothing(_: object) -> None:
    """No statement here leaves a setting behind that would have to be reset."""


app = FastAPI(lifespan=database)


@app.post("/readings")
async def add_reading(reading: Reading) -> Response:
    """Insert one row."""
    values = reading.values
    at = reading.at or datetime.now(UTC)
    await app.state.pool.execute(ADD_READING, 1, at, values.get("temperature"), values.get("humidity"))
    return Response(status_code=201)


@app.post("/datasets")
async def add_dataset(dataset: Dataset) -> Response:
    """Insert a dataset with all that belongs to it."""
    dataset_id = uuid4()
    keys = [secrets.token_urlsafe(24), secrets.token_urlsafe(24)]
    number = await app.state.pool.fetchval(
        ADD_DATASET,
        dataset_id,
        "bench",
        dataset.name,
        dataset.description,
        dataset.public,
        datetime.now(UTC),
        [variable.tag for variable in dataset.variables],
        [variable.name for variable in dataset.variables],
        [variable.unit for variable in dataset.variables],
        ["read", "write"],
        [hashlib.sha256(key.encode()).digest() for key in keys],
        [key.encode() for key in keys],
    )
    shown = {"id": str(dataset_id), "number": number, "name": dataset.name}
    return JSONResponse({"dataset": shown, "read_key": keys[0], "write_key": keys[1]}, status_code=201)


class Server(uvicorn.Server):
    """Uvicorn that says when it listens."""

    async def startup(self, sockets: list | None = None) -> None:
        """Listen, then say so."""
        await super().startup(sockets)
        print("ready", flush=True)


def main() -> None:
    """Serve until SIGTERM."""
    arguments = argparse.ArgumentParser()
    arguments.add_argument("role", choices=["web"])
    arguments.add_argument("--port", type=int, required=True)
    # fmt: off
    config = uvicorn.Config(
        app, host="127.0.0.1", port=arguments.parse_args().port, loop="uvloop", http="httptools",
        access_log=False, log_level="warning", timeout_graceful_shutdown=1,
    )
    # fmt: on
    Server(config).run()


if __name__ == "__main__":
    main()
