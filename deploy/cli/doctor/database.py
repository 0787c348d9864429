"""PostgreSQL: its settings, the roles of the services and their rights, partitions made ahead of time."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING
from urllib.parse import quote, urlsplit

from deploy.cli.doctor.finding import SECONDS, Environment, Finding, mendable
from deploy.identity import derive_password

if TYPE_CHECKING:
    from asyncpg import Connection, Record

HOURS_AHEAD, DAYS_AHEAD, MONTHS_AHEAD = 5, 2, 2
_LONGEST_TRANSACTION = """
SELECT extract(epoch FROM max(now() - xact_start))
  FROM pg_stat_activity
 WHERE datname = current_database() AND xact_start < now() - interval '5 minutes'
"""
# Every table of a service is its own to read and write, and no other service's.
_LACKING = """
SELECT count(*) FROM pg_class c
 WHERE c.relnamespace = to_regnamespace($2) AND c.relkind IN ('r', 'p') AND NOT (
       has_table_privilege($1, c.oid, 'SELECT') AND has_table_privilege($1, c.oid, 'INSERT')
   AND has_table_privilege($1, c.oid, 'UPDATE') AND has_table_privilege($1, c.oid, 'DELETE'))
"""
_TOO_MANY = """
SELECT DISTINCT n.nspname FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
 WHERE n.nspname = ANY($2) AND n.nspname <> $3 AND c.relkind IN ('r', 'p')
   AND has_schema_privilege($1, n.oid, 'USAGE') AND has_table_privilege($1, c.oid, 'SELECT')
"""
_PARTITIONS = """
SELECT c.relname FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid
 WHERE i.inhparent = to_regclass($1)
"""


@asynccontextmanager
async def connected(url: str) -> AsyncIterator[Connection[Record]]:
    """A connection, closed at the end."""
    import asyncpg

    connection = await asyncpg.connect(url, timeout=SECONDS)
    try:
        yield connection
    finally:
        await connection.close(timeout=5)


async def look(environment: Environment) -> list[Finding]:
    """Version, what a commit promises, and transactions left open."""
    async with connected(environment["POSTHOUSE_DATABASE_URL"]) as connection:
        version = await connection.fetchval("SHOW server_version")
        commit = await connection.fetchval("SHOW synchronous_commit")
        waits = await connection.fetchval(_LONGEST_TRANSACTION)
    findings = [Finding("postgres", f"version {version}")]
    if commit not in ("on", "remote_apply"):
        advice = "Set it to on: with less, a 2xx does not mean that it is on disk."
        findings.append(Finding("postgres", f"synchronous_commit is {commit}", advice))
    if waits:
        advice = "It stops the clean-up of old rows; find it in pg_stat_activity."
        findings.append(Finding("postgres", f"a transaction is open for {waits:.0f} s", advice))
    return findings


async def roles(environment: Environment) -> list[Finding]:
    """Each service gets in with its own role, reads and writes its own tables and no other's."""
    from deploy.database import services

    names, url = sorted(services()), environment["POSTHOUSE_DATABASE_URL"]
    found = []
    async with connected(url) as connection:
        for name in names:
            found += await _role(connection, name, names, environment)
    return found or [Finding("accounts", f"{len(names)} roles may do what they should")]


async def _role(
    connection: Connection[Record], service: str, services: list[str], environment: Environment
) -> list[Finding]:
    import asyncpg

    from shared.db.migrate import role_of

    role = role_of(service)
    if not await connection.fetchval("SELECT EXISTS (SELECT FROM pg_roles WHERE rolname = $1)", role):
        return [mendable("accounts", f"the role {role} is missing", "database")]
    found = []
    if lacking := await connection.fetchval(_LACKING, role, service):
        words = f"{role} may not read and write {lacking} of its own tables"
        found.append(mendable("accounts", words, "database"))
    for row in await connection.fetch(_TOO_MANY, role, services, service):
        advice = f"REVOKE ALL ON SCHEMA {row[0]} FROM {role}; nothing of Posthouse gives it that."
        found.append(Finding("accounts", f"{role} may read tables of {row[0]}", advice))
    try:
        async with connected(as_service(environment, service)):
            pass
    except asyncpg.PostgresError as error:
        found.append(mendable("accounts", f"{role} does not get in: {error}", "database"))
    return found


def as_service(environment: Environment, service: str) -> str:
    """The address of the database for one service."""
    from shared.db.migrate import role_of

    role = role_of(service)
    password = derive_password(environment["POSTHOUSE_SECRET_KEY"], f"postgres:{role}")
    parts = urlsplit(environment["POSTHOUSE_DATABASE_URL"])
    place = parts.netloc.rpartition("@")[2]
    return parts._replace(netloc=f"{role}:{quote(password, safe='')}@{place}").geturl()


async def partitions(environment: Environment) -> list[Finding]:
    """Those of the coming hours, days and months: without one, what comes then is refused or put aside."""
    from deploy.database import services

    async with connected(environment["POSTHOUSE_DATABASE_URL"]) as connection:
        now = (await connection.fetchval("SELECT now()")).astimezone(UTC)
        found = []
        for table, wanted in wanted_partitions(services(), now).items():
            there = {row[0] for row in await connection.fetch(_PARTITIONS, table)}
            if missing := [name for name in wanted if name not in there]:
                words = f"{table} has no partition {missing[0]}"
                words += f" and {len(missing) - 1} more" if len(missing) > 1 else ""
                found.append(mendable("partitions", words, "partitions"))
    return found or [Finding("partitions", "made ahead of time")]


def wanted_partitions(services: Iterable[str], now: datetime) -> dict[str, list[str]]:
    """The partitions that must be there at this moment, by table."""
    hours = [now + timedelta(hours=n) for n in range(HOURS_AHEAD + 1)]
    wanted = {f"{name}.inbox": [f"inbox_{hour:%Y%m%d%H}" for hour in hours] for name in services}
    days = [now + timedelta(days=n) for n in range(DAYS_AHEAD + 1)]
    wanted["worker.log_line"] = [f"log_line_{day:%Y%m%d}" for day in days]
    months = [divmod(now.year * 12 + now.month - 1 + n, 12) for n in range(MONTHS_AHEAD + 1)]
    wanted["ingest.reading"] = [f"reading_{year}_{month + 1:02}" for year, month in months]
    return wanted
