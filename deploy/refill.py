"""`python -m deploy.refill FILE`: the database of a backup into an empty one."""

from __future__ import annotations

import asyncio
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import asyncpg

from deploy.archive import CHUNK, DATABASE, Reader, opened
from deploy.database import Unprepared, create_database, prepare_database
from deploy.local import settings as configuration
from deploy.local.errors import Failure
from deploy.local.instance import ROOT, Instance
from deploy.local.postgres import split_password, tool
from deploy.tally import NO_LIMITS, tables, tally

if TYPE_CHECKING:
    Connection = asyncpg.Connection[asyncpg.Record]

ROLE = re.compile(r"posthouse_[a-z_]+\Z")


class NotRefilled(Exception):
    """Why, in one sentence."""


async def refill(backup: Reader, environment: Mapping[str, str]) -> None:
    """Restore, compare with the manifest, bring to the shape of this version; raises NotRefilled."""
    url = environment["POSTHOUSE_DATABASE_URL"]
    await create_database(url)
    connection = await asyncpg.connect(url, timeout=10, server_settings=NO_LIMITS)
    try:
        await _must_be_empty(connection)
        await _make_roles(connection, backup.manifest["roles"])
        await asyncio.to_thread(_restore, backup, environment)
        await _compare(connection, backup.manifest)
    finally:
        await connection.close(timeout=5)
    await prepare_database(environment)


async def _must_be_empty(connection: Connection) -> None:
    if there := await tables(connection):
        raise NotRefilled(f"the database is not empty: it has the table {there[0]}; give it an empty one")


async def _make_roles(connection: Connection, roles: list[str]) -> None:
    """The dump gives them rights; their passwords and settings come with the preparation."""
    for role in roles:
        if not ROLE.match(role):
            raise NotRefilled(f"{role!r} is no role of Posthouse")
        with suppress(asyncpg.DuplicateObjectError):
            await connection.execute(f"CREATE ROLE {role} LOGIN")


def _restore(backup: Reader, environment: Mapping[str, str]) -> None:
    """In one transaction: all of it or nothing."""
    url, password = split_password(environment["POSTHOUSE_DATABASE_URL"])
    program = tool(Instance(configuration.load(ROOT, environment)), "pg_restore")
    command = [str(program), "--single-transaction", "--no-owner", f"--dbname={url}"]
    with tempfile.TemporaryFile() as errors:
        child = subprocess.Popen(
            command, stdin=subprocess.PIPE, stderr=errors, env={**environment, "PGPASSWORD": password}
        )
        assert child.stdin is not None
        with suppress(BrokenPipeError), child.stdin as into, backup.open(DATABASE) as dump:
            while chunk := dump.read(CHUNK):
                into.write(chunk)
        if child.wait() != 0:
            errors.seek(0)
            words = errors.read().decode(errors="replace").strip().splitlines()
            raise NotRefilled(words[0] if words else f"pg_restore ended with {child.returncode}")


async def _compare(connection: Connection, manifest: Mapping[str, Any]) -> None:
    """Every row that was read is there again. Sums are comparable within one version of PostgreSQL."""
    async with connection.transaction():
        found = await tally(connection, await tables(connection))
        here = await connection.fetchval("SHOW server_version")
    expected = manifest["tables"]
    same = major(here) == major(manifest["postgres"])
    for name in sorted(set(found) | set(expected)):
        one, other = found.get(name), expected.get(name)
        if one is None or other is None or one["rows"] != other["rows"] or (same and one != other):
            raise NotRefilled(f"{name} is not what was kept: {one} instead of {other}")


def major(version: str) -> int:
    """18 of `18.6 (Debian ...)`."""
    return int(re.split(r"\D", version, maxsplit=1)[0])


def main(arguments: list[str]) -> int:
    """0, or 1 and one sentence on standard error."""
    try:
        with opened(Path(arguments[0])) as backup:
            asyncio.run(refill(backup, os.environ))
    except (NotRefilled, Unprepared, Failure) as error:
        return _failed(str(error))
    except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
        return _failed(f"{type(error).__name__}: {error}")
    return 0


def _failed(sentence: str) -> int:
    print(" ".join(sentence.split()), file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
