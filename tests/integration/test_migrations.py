"""A database is brought to the shape this version needs, once, and again at no cost."""

from __future__ import annotations

import asyncio
import os
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path

import asyncpg
import pytest

from deploy.database import prepare_database, services
from deploy.identity import derive_password
from shared.bus.ids import uuid7
from shared.db.migrate import BadMigration, migrate, role_of
from tests.servers import Place, empty_database


@pytest.fixture
async def empty(database_server: Place) -> AsyncIterator[Place]:
    async with empty_database(database_server) as place:
        yield place


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A service with one migration."""
    (tmp_path / "migrations").mkdir()
    (tmp_path / "migrations" / "0001_first.sql").write_text(
        "CREATE TABLE thing (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, name text);"
        "CREATE FUNCTION two() RETURNS int LANGUAGE sql AS 'SELECT 2';"
    )
    return tmp_path


@pytest.fixture
def environment(empty: Place, secret_key: str) -> dict[str, str]:
    return {"POSTHOUSE_DATABASE_URL": empty.admin_url, "POSTHOUSE_SECRET_KEY": secret_key}


async def applied(place: Place) -> list[tuple[str, str, object]]:
    rows = await fetch(
        place.admin_url, "SELECT service, name, applied_at FROM posthouse.migration ORDER BY 1, 2"
    )
    return [tuple(row) for row in rows]


async def fetch(url: str, sql: str) -> list[asyncpg.Record]:
    connection = await asyncpg.connect(url)
    try:
        return list(await connection.fetch(sql))
    finally:
        await connection.close()


async def test_every_service_gets_its_schema_and_its_role_can_connect(
    empty: Place, environment: dict[str, str]
) -> None:
    await prepare_database(environment)
    for service in services():
        [row] = await fetch(empty.url(service), "SELECT current_user AS name, current_schema() AS schema")
        assert (row["name"], row["schema"]) == (role_of(service), service)


async def test_a_second_run_changes_nothing_and_is_quick(empty: Place, environment: dict[str, str]) -> None:
    await prepare_database(environment)
    before = await applied(empty)
    began = time.perf_counter()
    await prepare_database(environment)
    assert time.perf_counter() - began < 2.0  # 0.03 s on an idle machine
    assert await applied(empty) == before


async def migrate_thing(place: Place, folder: Path, secret_key: str) -> None:
    await migrate(
        place.admin_url, {"ingest": folder}, lambda role: derive_password(secret_key, f"postgres:{role}")
    )


async def test_a_changed_file_is_refused_by_name(empty: Place, folder: Path, secret_key: str) -> None:
    await migrate_thing(empty, folder, secret_key)
    (folder / "migrations" / "0001_first.sql").write_text("CREATE TABLE other (id int)")
    with pytest.raises(BadMigration, match=r"0001_first\.sql of ingest"):
        await migrate_thing(empty, folder, secret_key)


async def test_what_a_later_file_makes_can_be_used_too(empty: Place, folder: Path, secret_key: str) -> None:
    await migrate_thing(empty, folder, secret_key)
    (folder / "migrations" / "0002_second.sql").write_text("CREATE TABLE later (id bigserial, t text)")
    await migrate_thing(empty, folder, secret_key)
    await fetch(empty.url("ingest"), "INSERT INTO later (t) VALUES ('x') RETURNING id")
    assert [row["two"] for row in await fetch(empty.url("ingest"), "SELECT two()")] == [2]


async def test_a_file_that_fails_leaves_nothing_of_itself(
    empty: Place, folder: Path, secret_key: str
) -> None:
    (folder / "migrations" / "0002_half.sql").write_text("CREATE TABLE half (id int); SELECT 1 / 0;")
    with pytest.raises(BadMigration, match=r"0002_half\.sql of ingest failed: division by zero"):
        await migrate_thing(empty, folder, secret_key)
    assert [name for _, name, _ in await applied(empty) if not name.startswith("shared/")] == [
        "0001_first.sql"
    ]
    assert not await fetch(empty.admin_url, "SELECT FROM pg_tables WHERE tablename = 'half'")


async def test_partitions_made_by_a_function_of_the_owner_can_be_used(
    empty: Place, folder: Path, secret_key: str
) -> None:
    (folder / "migrations" / "0002_partition.sql").write_text(
        "CREATE FUNCTION grow() RETURNS void LANGUAGE sql SECURITY DEFINER SET search_path = ingest"
        " AS 'CREATE TABLE part (id int)'"
    )
    await migrate_thing(empty, folder, secret_key)
    await fetch(empty.url("ingest"), "SELECT grow()")
    assert await fetch(empty.url("ingest"), "INSERT INTO part VALUES (1) RETURNING id")


async def test_processes_that_start_at_once_all_find_their_inbox(database: Place) -> None:
    async def start() -> None:
        connection = await asyncpg.connect(database.url("auth"))
        try:
            await connection.fetchval("SELECT keep_inbox(24, 6)")
            sql = "INSERT INTO inbox (id, refused, body_hash, reply) VALUES ($1, false, '', '')"
            await connection.execute(sql, uuid7())
        finally:
            await connection.close()

    await asyncio.gather(*(start() for _ in range(4)))


async def test_a_missing_database_is_created(
    database_server: Place, environment: dict[str, str], empty: Place
) -> None:
    connection = await asyncpg.connect(database_server.sibling("postgres").admin_url)
    await connection.execute(f"DROP DATABASE {empty.name}")
    await connection.close()
    await prepare_database(environment)
    assert await applied(empty) is not None


@pytest.mark.parametrize(
    ("url", "sentence"),
    [
        ("", "POSTHOUSE_DATABASE_URL is missing."),
        ("postgresql://admin:hunter2@127.0.0.1:1/posthouse", "PostgreSQL at 127.0.0.1:1/posthouse cannot"),
    ],
)
async def test_what_stops_the_preparation_is_said_in_one_sentence(url: str, sentence: str) -> None:
    environment = {**os.environ, "POSTHOUSE_DATABASE_URL": url, "POSTHOUSE_SECRET_KEY": "x" * 43}
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "deploy.prepare", env=environment, stderr=asyncio.subprocess.PIPE
    )
    _, told = await process.communicate()
    assert (process.returncode, told.decode().count("\n")) == (1, 1)
    assert told.decode().startswith(sentence)
    assert b"hunter2" not in told


async def test_a_changed_password_is_the_one_that_opens(empty: Place, folder: Path) -> None:
    """With a role nothing else uses, so that tests beside this one keep theirs."""
    connection = await asyncpg.connect(empty.admin_url)
    try:
        await migrate(empty.admin_url, {"spare": folder}, lambda _: "first")
        assert await connects(empty.admin_url, "first")
        await migrate(empty.admin_url, {"spare": folder}, lambda _: "second")
        assert await connects(empty.admin_url, "second")
        assert not await connects(empty.admin_url, "first")
    finally:
        await connection.execute(f"DROP OWNED BY {role_of('spare')}; DROP ROLE {role_of('spare')}")
        await connection.close()


async def connects(url: str, password: str) -> bool:
    try:
        connection = await asyncpg.connect(url, user=role_of("spare"), password=password)
    except asyncpg.InvalidPasswordError:
        return False
    await connection.close()
    return True
