"""Brings a database to the shape this version needs: roles, schemas, migrations, grants."""

from __future__ import annotations

import base64
import hashlib
import hmac
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import asyncpg

if TYPE_CHECKING:
    Connection = asyncpg.Connection[asyncpg.Record]

SHARED = Path(__file__).parent / "migrations"
LOCK_ID = 0x706F7374686F7573  # "posthous"
WAIT_SECONDS = 300.0
LOCK_ATTEMPTS = 5
ROLE_SETTINGS = {
    "statement_timeout": "30s",
    "lock_timeout": "5s",
    "idle_in_transaction_session_timeout": "30s",
}


class BadMigration(Exception):
    """A file cannot be applied, or was edited after it had been; the message names it."""


@dataclass(frozen=True)
class File:
    """One migration: `shared/0001_inbox.sql` for the shared ones, `0001_accounts.sql` for a service's own."""

    name: str
    sql: str

    @property
    def checksum(self) -> str:
        """SHA-256 of its text."""
        return hashlib.sha256(self.sql.encode()).hexdigest()


def role_of(service: str) -> str:
    """The PostgreSQL role a service works as; its schema has the service's name."""
    if not re.fullmatch("[a-z][a-z_]*", service):
        raise ValueError(f"{service!r} is no name for a service: lower case letters and _")
    return f"posthouse_{service}"


def files_of(folder: Path) -> list[File]:
    """The shared migrations, then those of the service in `folder`, each set in order of its names."""
    return [*_read(SHARED, "shared/"), *_read(folder / "migrations", "")]


async def migrate(admin_url: str, services: Mapping[str, Path], passwords: Callable[[str], str]) -> None:
    """Create what is missing for each service (name -> its folder); changes nothing when all is there.

    `passwords` gives the password of a role. One at a time per database: others wait. Each file is one
    transaction; an error leaves the files before it applied and raises.
    """
    connection = await asyncpg.connect(admin_url, timeout=10, command_timeout=WAIT_SECONDS)
    try:
        await connection.execute("SELECT pg_advisory_lock($1)", LOCK_ID)
        applied = await _begin(connection)
        for service, folder in services.items():
            await _prepare_role(connection, service, passwords(role_of(service)))
            for file in files_of(folder):
                await _ensure(connection, service, file, applied)
    finally:
        await connection.close(timeout=5)


async def grant_again(admin_url: str, services: Iterable[str]) -> None:
    """Give each service the rights on its own schema again: all that its migrations gave it."""
    connection = await asyncpg.connect(admin_url, timeout=10, command_timeout=WAIT_SECONDS)
    try:
        async with connection.transaction():
            for service in services:
                await connection.execute(_grants(service))
    finally:
        await connection.close(timeout=5)


Applied = dict[tuple[str, str], str]


async def _begin(connection: Connection) -> Applied:
    if await connection.fetchval(_OPEN_TO_PUBLIC):
        await connection.execute(_CLOSE_TO_PUBLIC)
    if await connection.fetchval("SELECT to_regclass('posthouse.migration') IS NULL"):
        await connection.execute(_LEDGER)
    rows = await connection.fetch("SELECT service, name, checksum FROM posthouse.migration")
    return {(row["service"], row["name"]): row["checksum"] for row in rows}


_OPEN_TO_PUBLIC = """
SELECT has_database_privilege('public', current_database(), 'CONNECT, TEMP')
    OR has_function_privilege('public', 'pg_catalog.lo_create(oid)', 'EXECUTE')
"""

# Large objects lie beside all schemas and anybody may make some. An administrator who is no superuser cannot
# take that away.
_CLOSE_TO_PUBLIC = """
REVOKE ALL ON SCHEMA public FROM PUBLIC;
DO $$ BEGIN EXECUTE format('REVOKE ALL ON DATABASE %I FROM PUBLIC', current_database()); END $$;
DO $$ BEGIN
    REVOKE EXECUTE ON FUNCTION pg_catalog.lo_creat(integer), pg_catalog.lo_create(oid),
        pg_catalog.lo_from_bytea(oid, bytea) FROM PUBLIC;
EXCEPTION WHEN insufficient_privilege THEN NULL;
END $$;
"""

_LEDGER = """
CREATE SCHEMA IF NOT EXISTS posthouse;
CREATE TABLE posthouse.migration (
    service text NOT NULL,
    name text NOT NULL,
    checksum text NOT NULL,
    applied_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (service, name)
);
"""


async def _ensure(connection: Connection, service: str, file: File, applied: Applied) -> None:
    known = applied.get((service, file.name))
    if known is None:
        await _apply(connection, service, file)
    elif known != file.checksum:
        raise BadMigration(
            f"Migration {file.name} of {service} was changed after it had been applied: "
            "restore it and put the change into a new file."
        )


async def _apply(connection: Connection, service: str, file: File) -> None:
    """A table in use is waited for briefly and often: a waiting ALTER stops every statement behind it."""
    for attempt in range(1, LOCK_ATTEMPTS + 1):
        try:
            async with connection.transaction():
                await _run(connection, service, file)
        except asyncpg.PostgresError as error:
            if attempt == LOCK_ATTEMPTS or not isinstance(error, asyncpg.LockNotAvailableError):
                raise BadMigration(f"Migration {file.name} of {service} failed: {error}") from error
        else:
            return


async def _run(connection: Connection, service: str, file: File) -> None:
    await connection.execute(f"SET LOCAL lock_timeout = '5s'; SET LOCAL search_path = {service}")
    await connection.execute(file.sql)
    await connection.execute(_grants(service))
    await connection.execute(
        "INSERT INTO posthouse.migration (service, name, checksum) VALUES ($1, $2, $3)",
        service,
        file.name,
        file.checksum,
    )


def _grants(service: str) -> str:
    role = role_of(service)
    return f"""
        GRANT USAGE ON SCHEMA {service} TO {role};
        GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA {service} TO {role};
        GRANT USAGE ON ALL SEQUENCES IN SCHEMA {service} TO {role};
        REVOKE ALL ON ALL ROUTINES IN SCHEMA {service} FROM PUBLIC;
        GRANT EXECUTE ON ALL ROUTINES IN SCHEMA {service} TO {role};
        -- for what the owner's functions make at run time, such as partitions
        ALTER DEFAULT PRIVILEGES IN SCHEMA {service} GRANT SELECT, INSERT, UPDATE, DELETE ON TABLES TO {role};
    """


async def _prepare_role(connection: Connection, service: str, password: str) -> None:
    """Role, its settings, its schema, the right to connect; written only where something differs."""
    role = role_of(service)
    if not await connection.fetchval("SELECT EXISTS (SELECT FROM pg_roles WHERE rolname = $1)", role):
        await _create_role(connection, role)
    if not await _role_is_right(connection, service, password):
        await connection.execute(_role(service, password))
    if not await connection.fetchval(_SCHEMA_IS_RIGHT, role, service):
        await connection.execute(_schema(service))


async def _create_role(connection: Connection, role: str) -> None:
    """Roles belong to the whole server: another database may be prepared at the same moment."""
    with suppress(asyncpg.DuplicateObjectError, asyncpg.UniqueViolationError):
        await connection.execute(f"CREATE ROLE {role} LOGIN")


async def _role_is_right(connection: Connection, service: str, password: str) -> bool:
    """Compares all that `_role` sets; an administrator who may not read passwords always writes."""
    role = role_of(service)
    settings = sorted(f"{name}={value}" for name, value in _settings(service).items())
    if not await connection.fetchval(_ROLE_IS_RIGHT, role, settings):
        return False
    if not await connection.fetchval("SELECT has_table_privilege('pg_authid', 'SELECT')"):
        return False
    stored = await connection.fetchval("SELECT rolpassword FROM pg_authid WHERE rolname = $1", role)
    return bool(stored == scram_verifier(role, password))


_ROLE_IS_RIGHT = """
SELECT rolcanlogin AND NOT (rolsuper OR rolcreatedb OR rolcreaterole OR rolreplication OR rolbypassrls)
   AND $2::text[] = (SELECT array_agg(setting ORDER BY setting COLLATE "C")
                       FROM pg_db_role_setting, unnest(setconfig) AS setting
                      WHERE setrole = pg_roles.oid AND setdatabase = 0)
  FROM pg_roles WHERE rolname = $1
"""


def _role(service: str, password: str) -> str:
    role = role_of(service)
    settings = [f"ALTER ROLE {role} SET {name} = '{value}';" for name, value in _settings(service).items()]
    return f"""
        ALTER ROLE {role} LOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE NOREPLICATION NOBYPASSRLS
            PASSWORD '{scram_verifier(role, password)}';
        ALTER ROLE {role} RESET ALL;
        {" ".join(settings)}
    """


def _settings(service: str) -> dict[str, str]:
    return {**ROLE_SETTINGS, "search_path": service}


_SCHEMA_IS_RIGHT = """
SELECT CASE WHEN to_regnamespace($2) IS NULL THEN false
            ELSE has_schema_privilege($1, $2, 'USAGE')
                 AND has_database_privilege($1, current_database(), 'CONNECT')
       END
"""


def _schema(service: str) -> str:
    return f"""
        CREATE SCHEMA IF NOT EXISTS {service};
        {_grants(service)}
        DO $$ BEGIN
            EXECUTE format('GRANT CONNECT ON DATABASE %I TO {role_of(service)}', current_database());
        END $$;
    """


def scram_verifier(role: str, password: str) -> str:
    """What PostgreSQL stores (RFC 5803), so that no password appears in a statement or in the server's log.

    The salt follows from role and password, which makes a repeat comparable; these passwords are
    derived keys of 192 bits, so a salt protects nothing.
    """
    salt = hashlib.sha256(f"{role}\0{password}".encode()).digest()[:16]
    rounds = 4096
    salted = hashlib.pbkdf2_hmac("sha256", password.encode(), salt, rounds)
    stored_key = hashlib.sha256(hmac.digest(salted, b"Client Key", "sha256")).digest()
    server_key = hmac.digest(salted, b"Server Key", "sha256")
    return f"SCRAM-SHA-256${rounds}:{_base64(salt)}${_base64(stored_key)}:{_base64(server_key)}"


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode()


def _read(folder: Path, prefix: str) -> Iterator[File]:
    for path in sorted(folder.glob("*.sql")):
        yield File(prefix + path.name, path.read_text(encoding="utf-8"))
