"""What a database role can try: every statement that needs a right, on everything the catalogue knows."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import asyncpg

SCHEMAS = "SELECT nspname FROM pg_namespace WHERE nspname !~ '^pg_(toast|temp)' ORDER BY 1"
# With a column that may be written.
RELATIONS = r"""
SELECT n.nspname AS schema, c.relname AS name, c.relkind::text AS kind,
       (SELECT quote_ident(a.attname) FROM pg_attribute a
         WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped AND a.attidentity = ''
         ORDER BY a.attnum LIMIT 1) AS field
  FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
 WHERE n.nspname !~ '^(pg_|information_schema)' AND c.relkind IN ('r', 'p', 'v', 'm', 'f', 'S')
 ORDER BY 1, 2
"""
# Called with nothing, out of the sight of the planner: it does not ask for rights where it knows the answer.
FUNCTIONS = r"""
SELECT n.nspname AS schema, p.proname AS name, pg_get_function_identity_arguments(p.oid) AS arguments,
       (SELECT coalesce(string_agg(format('(SELECT NULL::%s OFFSET 0)', format_type(t, NULL)), ', '
                                   ORDER BY place), '')
          FROM unnest(p.proargtypes) WITH ORDINALITY AS given (t, place)) AS nothing
  FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace
 WHERE n.nspname !~ '^(pg_|information_schema)'
 ORDER BY 1, 2
"""
# The second: the roles that PostgreSQL has of itself cannot be changed by anybody.
REFUSALS = (asyncpg.InsufficientPrivilegeError, asyncpg.ReservedNameError)
ROLES = "SELECT rolname FROM pg_roles WHERE rolname !~ '^pg_database_owner' ORDER BY 1"


@dataclass(frozen=True)
class Attempt:
    """One statement: what it does, in whose schema, to what."""

    does: str
    schema: str
    to: str
    sql: str


@dataclass(frozen=True)
class Catalogue:
    """Everything there is to try something on."""

    schemas: tuple[str, ...]
    relations: tuple[Any, ...]
    functions: tuple[Any, ...]
    roles: tuple[str, ...]


async def catalogue(admin: asyncpg.Connection[asyncpg.Record]) -> Catalogue:
    """Asked of the running database."""
    return Catalogue(
        tuple(row[0] for row in await admin.fetch(SCHEMAS)),
        tuple(await admin.fetch(RELATIONS)),
        tuple(await admin.fetch(FUNCTIONS)),
        tuple(row[0] for row in await admin.fetch(ROLES)),
    )


async def lets(connection: asyncpg.Connection[asyncpg.Record], sql: str) -> bool:
    """Whether the role may: all but a refusal of rights counts as yes; nothing of it stays."""
    try:
        await connection.execute(f"BEGIN; {sql}; ROLLBACK")
    except REFUSALS:
        return False
    except asyncpg.PostgresError:
        return True
    finally:
        if connection.is_in_transaction():
            await connection.execute("ROLLBACK")
    return True


async def lets_outside(connection: asyncpg.Connection[asyncpg.Record], sql: str) -> bool:
    """The same for what no transaction may hold."""
    try:
        await connection.execute(sql)
    except REFUSALS:
        return False
    except asyncpg.PostgresError:
        return True
    return True


def attempts(there: Catalogue, role: str) -> Iterator[Attempt]:
    """Everything a role can try in a transaction."""
    for row in there.relations:
        yield from _on_sequence(row) if row["kind"] == "S" else _on_relation(row)
    for row in there.functions:
        yield from _on_function(row)
    for schema in there.schemas:
        yield from _in_schema(schema)
    for other in there.roles:
        if other != role:
            yield from _as_role(other, role)
    yield from (Attempt(does, "", "", sql) for does, sql in OF_ITSELF.items())


def _named(row: Any) -> str:
    return f'{row["schema"]}."{row["name"]}"'


def _on_relation(row: Any) -> Iterator[Attempt]:
    name, field = _named(row), row["field"]
    statements = {
        "SELECT": f"TABLE {name} LIMIT 1",
        "LOCK": f"LOCK TABLE {name} IN ACCESS EXCLUSIVE MODE",
        "GRANT": _granted(name),
        "COMMENT": f"COMMENT ON {'VIEW' if row['kind'] == 'v' else 'TABLE'} {name} IS 'mine'",
        "DROP": f"DROP {'VIEW' if row['kind'] == 'v' else 'TABLE'} {name}",
        "OWN": f"ALTER TABLE {name} OWNER TO CURRENT_USER",
        "MOVE": f"ALTER TABLE {name} SET SCHEMA public",
        "RULE": f"CREATE RULE mine AS ON DELETE TO {name} DO ALSO NOTHING",
    }
    if row["kind"] in "rp":
        statements |= {
            "INSERT": f"INSERT INTO {name} DEFAULT VALUES",
            "UPDATE": f"UPDATE {name} SET {field} = {field}",  # noqa: S608
            "DELETE": f"DELETE FROM {name} WHERE {field} IS NULL",  # noqa: S608
            "TRUNCATE": f"TRUNCATE {name}",
            "TRIGGER": f"CREATE TRIGGER mine BEFORE UPDATE ON {name} FOR EACH ROW "
            "EXECUTE FUNCTION suppress_redundant_updates_trigger()",
            "ALTER": f"ALTER TABLE {name} ADD COLUMN mine integer",
            "INDEX": f"CREATE INDEX ON {name} ({field})",
            "POLICY": f"CREATE POLICY mine ON {name}",
            "REINDEX": f"REINDEX TABLE {name}",
            "COPY TO PROGRAM": f"COPY {name} TO PROGRAM 'true'",
            "COPY FROM PROGRAM": f"COPY {name} FROM PROGRAM 'true'",
        }
    return (Attempt(does, row["schema"], row["name"], sql) for does, sql in statements.items())


def _granted(name: str) -> str:
    """Who may not grant gets a warning only; what counts is whether anybody was given anything."""
    return (
        f"DO $$ BEGIN GRANT SELECT ON {name} TO PUBLIC; "
        f"IF NOT has_table_privilege('public', '{name}', 'SELECT') THEN "
        "RAISE insufficient_privilege; END IF; END $$"
    )


def _on_sequence(row: Any) -> Iterator[Attempt]:
    name = _named(row)
    statements = {
        "NEXT": f"SELECT nextval('{name}')",
        "READ": f"TABLE {name}",
        "SET": f"SELECT setval('{name}', 1)",
        "ALTER": f"ALTER SEQUENCE {name} RESTART",
        "DROP": f"DROP SEQUENCE {name} CASCADE",
    }
    return (Attempt(f"{does} SEQUENCE", row["schema"], row["name"], sql) for does, sql in statements.items())


def _on_function(row: Any) -> Iterator[Attempt]:
    name, called = _named(row), f"{_named(row)}({row['arguments']})"
    statements = {
        "CALL": f"SELECT {name}({row['nothing']})",
        "ALTER": f"ALTER FUNCTION {called} SECURITY DEFINER",
        "OWN": f"ALTER FUNCTION {called} OWNER TO CURRENT_USER",
        "DROP": f"DROP FUNCTION {called}",
    }
    return (Attempt(f"{does} FUNCTION", row["schema"], row["name"], sql) for does, sql in statements.items())


def _in_schema(schema: str) -> Iterator[Attempt]:
    statements = {
        "TABLE": f"CREATE TABLE {schema}.mine (id integer)",
        "VIEW": f"CREATE VIEW {schema}.mine AS SELECT 1 AS one",
        "SEQUENCE": f"CREATE SEQUENCE {schema}.mine",
        "TYPE": f"CREATE TYPE {schema}.mine AS (one integer)",
        "FUNCTION": f"CREATE FUNCTION {schema}.mine() RETURNS integer LANGUAGE sql AS 'SELECT 1'",
    }
    yield from (Attempt(f"CREATE {what}", schema, "", sql) for what, sql in statements.items())
    yield Attempt("ALTER SCHEMA", schema, "", f"ALTER SCHEMA {schema} RENAME TO mine")
    yield Attempt("DROP SCHEMA", schema, "", f"DROP SCHEMA {schema} CASCADE")


def _as_role(other: str, role: str) -> Iterator[Attempt]:
    statements = {
        "SET ROLE": f'SET ROLE "{other}"',
        "SET SESSION AUTHORIZATION": f'SET SESSION AUTHORIZATION "{other}"',
        "GRANT ROLE": f'GRANT "{other}" TO "{role}"',
        "ALTER ROLE": f"ALTER ROLE \"{other}\" PASSWORD 'mine'",
        "SET FOR ROLE": f"ALTER ROLE \"{other}\" SET statement_timeout = '1s'",
        "DROP ROLE": f'DROP ROLE "{other}"',
        "REASSIGN": f'REASSIGN OWNED BY "{other}" TO "{role}"',
    }
    return (Attempt(does, "", other, sql) for does, sql in statements.items())


OF_ITSELF = {
    "become a superuser": "ALTER ROLE CURRENT_USER SUPERUSER",
    "pass by row security": "ALTER ROLE CURRENT_USER BYPASSRLS",
    "make roles": "ALTER ROLE CURRENT_USER CREATEROLE",
    "make databases": "ALTER ROLE CURRENT_USER CREATEDB",
    "replicate": "ALTER ROLE CURRENT_USER REPLICATION",
    "create a role": "CREATE ROLE posthouse_mine",
    "create a schema": "CREATE SCHEMA mine",
    "create a temporary table": "CREATE TEMP TABLE mine (id integer)",
    "create a temporary view": "CREATE TEMP VIEW mine AS SELECT 1",
    "create an event trigger": "CREATE EVENT TRIGGER mine ON ddl_command_start EXECUTE FUNCTION f()",
    "create a publication": "CREATE PUBLICATION mine",
    "create a subscription": "CREATE SUBSCRIPTION mine CONNECTION '' PUBLICATION p WITH (connect = false)",
    "create a wrapper": "CREATE FOREIGN DATA WRAPPER mine",
    "create a language": "CREATE LANGUAGE mine HANDLER plpgsql_call_handler",
    "drop a language": "DROP EXTENSION plpgsql CASCADE",
    "run a program": "COPY (SELECT 1) TO PROGRAM 'true'",
    "write a file": "COPY (SELECT 1) TO '/tmp/posthouse_mine'",
    "read a file": "SELECT pg_read_file('/etc/passwd')",
    "read bytes of a file": "SELECT pg_read_binary_file('/etc/passwd')",
    "read its own settings file": "SELECT pg_read_file('postgresql.conf')",
    "list a directory": "SELECT pg_ls_dir('/')",
    "list the logs": "SELECT pg_ls_logdir()",
    "list the write-ahead log": "SELECT pg_ls_waldir()",
    "look at a file": "SELECT pg_stat_file('/etc/passwd')",
    "import a large object": "SELECT lo_import('/etc/passwd')",
    "export a large object": "SELECT lo_export(1, '/tmp/posthouse_mine')",
    "create a large object": "SELECT lo_create(0)",
    "create a large object, the old way": "SELECT lo_creat(-1)",
    "create a large object with something in it": "SELECT lo_from_bytea(0, 'mine')",
    "read large objects": "SELECT * FROM pg_largeobject",
    "read passwords": "SELECT rolpassword FROM pg_authid",
    "read passwords of users": "SELECT * FROM pg_shadow",
    "read who may connect": "SELECT * FROM pg_hba_file_rules",
    "read the settings file": "SELECT * FROM pg_file_settings",
    "read statistics of others": "SELECT * FROM pg_statistic",
    "write into the catalogue": "UPDATE pg_database SET datacl = NULL",
    "reload": "SELECT pg_reload_conf()",
    "rotate the log": "SELECT pg_rotate_logfile()",
    "switch the log": "SELECT pg_switch_wal()",
    "mark the log": "SELECT pg_create_restore_point('mine')",
    "keep the log": "SELECT pg_create_physical_replication_slot('mine')",
    "promote": "SELECT pg_promote()",
    "end a session": "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
    "WHERE usename <> current_user AND datname = current_database()",
    "log less": "SET log_statement = 'none'",
    "skip triggers": "SET session_replication_role = replica",
    "read broken pages": "SET zero_damaged_pages = on",
    "load a library": "LOAD '/tmp/mine'",
    "settings of the database": "DO $$ BEGIN EXECUTE format('ALTER DATABASE %I SET work_mem = 64', "
    "current_database()); END $$",
    "rights on the database": "DO $$ BEGIN EXECUTE format('GRANT CREATE ON DATABASE %I TO PUBLIC', "
    "current_database()); IF NOT has_database_privilege('public', current_database(), 'CREATE') THEN "
    "RAISE insufficient_privilege; END IF; END $$",
    "default rights of another": "ALTER DEFAULT PRIVILEGES FOR ROLE postgres GRANT ALL ON TABLES TO PUBLIC",
}
