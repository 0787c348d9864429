"""S6: every role of PostgreSQL tries every statement on all there is, and may do what its list says alone.

The list is written here by hand, after design.md ("One Postgres role and schema per service"); what is tried
comes from the catalogue. Rows of one person and another are told apart by the WHERE clause of each statement
and not by row security, see docs/decisions.md: a statement of a batch serves many callers. That no WHERE
clause is missing is what S3 tries through the front door.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from urllib.parse import urlsplit

import asyncpg
import pytest

from deploy.database import services
from shared.db.migrate import role_of
from tests.faults.trespass import Attempt, Catalogue, attempts, catalogue, lets, lets_outside
from tests.servers import Place, migrated_database

pytestmark = pytest.mark.timeout(300)

# What a service may do in the schema of its name; everywhere else nothing, and nothing to anything else.
OWN_TABLES = {"SELECT", "INSERT", "UPDATE", "DELETE", "LOCK"}
OWN_SEQUENCES = {"NEXT SEQUENCE"}
OWN_FUNCTIONS = {"CALL FUNCTION"}
SERVICES = ("auth", "chat", "ingest", "worker")
OTHER_SCHEMAS = {"information_schema", "pg_catalog", "posthouse", "public"}
OUTSIDE = ("CREATE DATABASE posthouse_mine", "ALTER SYSTEM SET work_mem = 64", "CHECKPOINT")
NOT_OF_A_SERVICE = ("rolsuper", "rolbypassrls", "rolcreaterole", "rolcreatedb", "rolreplication")
TIMEOUTS = {"statement_timeout", "lock_timeout", "idle_in_transaction_session_timeout"}


def is_listed(service: str, one: Attempt) -> bool:
    """Whether a service may do this."""
    return one.schema == service and one.does in OWN_TABLES | OWN_SEQUENCES | OWN_FUNCTIONS


@dataclass
class House:
    """A database as a start leaves it, with a few partitions as services make them, and a second one."""

    place: Place
    admin: asyncpg.Connection[asyncpg.Record]
    there: Catalogue


@pytest.fixture(scope="module")
async def house(database_server: Place) -> AsyncIterator[House]:
    async with (
        migrated_database(database_server) as place,
        connected(place.admin_url) as admin,
    ):
        for service in SERVICES:
            async with connected(place.url(service)) as connection:
                await connection.execute("SELECT keep_inbox(0, 1)")
        yield House(place, admin, await catalogue(admin))


@asynccontextmanager
async def connected(url: str) -> AsyncIterator[asyncpg.Connection[asyncpg.Record]]:
    connection = await asyncpg.connect(url, timeout=10)
    try:
        yield connection
    finally:
        await connection.close()


@dataclass(frozen=True)
class Tried:
    """Of one role: how much it tried, what it may do beyond its list, and what of its list it may not."""

    count: int
    outside: tuple[Attempt, ...]
    lacking: tuple[Attempt, ...]


async def tried(house: House, url: str, role: str, listed: Callable[[Attempt], bool]) -> Tried:
    """Try everything."""
    async with connected(url) as connection:
        found = [(one, await lets(connection, one.sql)) for one in attempts(house.there, role)]
    return Tried(
        len(found),
        tuple(one for one, may in found if may and not listed(one)),
        tuple(one for one, may in found if not may and listed(one)),
    )


async def of_service(house: House, service: str) -> Tried:
    return await tried(house, house.place.url(service), role_of(service), lambda one: is_listed(service, one))


def test_the_list_names_every_service_and_schema_there_is(house: House) -> None:
    assert set(services()) == set(SERVICES)
    assert set(house.there.schemas) == {*SERVICES, *OTHER_SCHEMAS}


async def test_a_role_may_do_what_its_list_says_and_nothing_else(house: House) -> None:
    each = await asyncio.gather(*(of_service(house, name) for name in SERVICES))
    assert {name: one.lacking for name, one in zip(SERVICES, each, strict=True) if one.lacking} == {}
    assert {name: one.outside for name, one in zip(SERVICES, each, strict=True) if one.outside} == {}
    things = len(house.there.relations) + len(house.there.functions) + len(house.there.schemas)
    print(
        f"\nS6: {len(SERVICES)} roles, {things} tables, sequences, functions and schemas, "
        f"{sum(one.count for one in each):,} tries, allowed outside their list 0"
    )


async def test_what_no_transaction_may_hold_no_role_may_do(house: House) -> None:
    for service in SERVICES:
        async with connected(house.place.url(service)) as connection:
            assert [sql for sql in OUTSIDE if await lets_outside(connection, sql)] == []


async def test_a_role_is_nothing_but_itself_and_owns_nothing(house: House) -> None:
    for service in SERVICES:
        role = role_of(service)
        row = await house.admin.fetchrow("SELECT * FROM pg_roles WHERE rolname = $1", role)
        assert row is not None
        assert [right for right in NOT_OF_A_SERVICE if row[right]] == []
        assert {setting.partition("=")[0] for setting in row["rolconfig"]} >= TIMEOUTS
        assert await house.admin.fetch("SELECT FROM pg_auth_members WHERE member = $1", row["oid"]) == []
        owned = "SELECT classid::regclass FROM pg_shdepend WHERE refobjid = $1 AND deptype = 'o'"
        assert await house.admin.fetch(owned, row["oid"]) == []


async def test_the_catalogue_says_the_same_of_the_rights_that_cannot_be_tried(house: House) -> None:
    """REFERENCES needs a table of one's own, of which there is none; MAINTAIN came with PostgreSQL 17."""
    sql = """
        SELECT r.rolname AS role, n.nspname AS schema, array_agg(DISTINCT a.privilege_type) AS rights
          FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
          CROSS JOIN LATERAL aclexplode(c.relacl) a JOIN pg_roles r ON r.oid = a.grantee
         WHERE c.relkind IN ('r', 'p', 'v') AND r.rolname LIKE 'posthouse%' GROUP BY 1, 2 ORDER BY 1
    """
    given = {(row["role"], row["schema"]): set(row["rights"]) for row in await house.admin.fetch(sql)}
    assert given == {(role_of(name), name): {"SELECT", "INSERT", "UPDATE", "DELETE"} for name in SERVICES}
    by_column = "SELECT count(*) FROM pg_attribute WHERE attacl IS NOT NULL AND attrelid >= 16384"
    assert await house.admin.fetchval(by_column) == 0


async def test_nothing_is_made_in_other_databases_of_the_server(house: House) -> None:
    for name in ("postgres", "template1"):
        async with connected(house.place.sibling(name).admin_url) as admin:
            there = await catalogue(admin)
        for service in SERVICES:
            made = [schema for schema in there.schemas if await makes(house, name, service, schema)]
            assert made == []


async def makes(house: House, database: str, service: str, schema: str) -> bool:
    """Whether a service can make a table there; one that does not get in makes none."""
    try:
        async with connected(house.place.sibling(database).url(service)) as connection:
            return await lets(connection, f"CREATE TABLE {schema}.mine (id integer)")
    except asyncpg.InsufficientPrivilegeError:
        return False


# -- one right too many, and it is found -------------------------------------------------------------------

TOO_MUCH = {
    "a table of another": (
        "GRANT USAGE ON SCHEMA auth TO posthouse_chat; GRANT SELECT ON auth.account TO posthouse_chat",
        "REVOKE ALL ON SCHEMA auth FROM posthouse_chat; REVOKE ALL ON auth.account FROM posthouse_chat",
        {("SELECT", "account")},
    ),
    "to make things": (
        "GRANT CREATE ON SCHEMA chat TO posthouse_chat",
        "REVOKE CREATE ON SCHEMA chat FROM posthouse_chat",
        {(f"CREATE {what}", "") for what in ("TABLE", "VIEW", "SEQUENCE", "TYPE", "FUNCTION")},
    ),
    "to empty a table": (
        "GRANT TRUNCATE ON chat.delivery_attempt TO posthouse_chat",
        "REVOKE TRUNCATE ON chat.delivery_attempt FROM posthouse_chat",
        {("TRUNCATE", "delivery_attempt")},
    ),
    "a function for everybody": (
        "GRANT USAGE ON SCHEMA ingest TO posthouse_chat; "
        "GRANT EXECUTE ON FUNCTION ingest.prune_inbox TO PUBLIC",
        "REVOKE ALL ON SCHEMA ingest FROM posthouse_chat; "
        "REVOKE ALL ON FUNCTION ingest.prune_inbox FROM PUBLIC",
        {("CALL FUNCTION", "prune_inbox")},
    ),
    "large objects": (
        "GRANT EXECUTE ON FUNCTION lo_create(oid) TO PUBLIC",
        "REVOKE EXECUTE ON FUNCTION lo_create(oid) FROM PUBLIC",
        {("create a large object", "")},
    ),
}


@pytest.mark.parametrize("what", TOO_MUCH)
async def test_one_right_too_many_is_found(house: House, what: str) -> None:
    give, take, shows = TOO_MUCH[what]
    await house.admin.execute(give)
    found = await of_service(house, "chat")
    await house.admin.execute(take)
    assert {(one.does, one.to) for one in found.outside} == shows


async def test_one_right_too_few_is_found(house: House) -> None:
    await house.admin.execute("REVOKE DELETE ON chat.inbox FROM posthouse_chat")
    found = await of_service(house, "chat")
    await house.admin.execute("GRANT DELETE ON chat.inbox TO posthouse_chat")
    assert [(one.does, one.to) for one in found.lacking] == [("DELETE", "inbox")]


async def test_a_role_that_is_a_member_of_another_is_found(house: House) -> None:
    """With a role of its own: memberships belong to the whole server."""
    role = f"posthouse_bare_{secrets.token_hex(3)}"
    password = secrets.token_hex(8)
    await house.admin.execute(f"CREATE ROLE {role} LOGIN PASSWORD '{password}' IN ROLE pg_read_server_files")
    await house.admin.execute(f"GRANT CONNECT ON DATABASE {house.place.name} TO {role}")
    parts = urlsplit(house.place.admin_url)
    url = parts._replace(netloc=f"{role}:{password}@{parts.netloc.rpartition('@')[2]}").geturl()
    found = await tried(house, url, role, lambda one: False)
    await house.admin.execute(f"DROP OWNED BY {role}; DROP ROLE {role}")
    assert ("SET ROLE", "pg_read_server_files") in {(one.does, one.to) for one in found.outside}
