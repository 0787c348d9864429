"""`backup`: everything that is worth keeping, in one file, while Posthouse runs."""

from __future__ import annotations

import argparse
import asyncio
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

import aiohttp

from deploy.archive import BROKER, CHUNK, DATABASE, SETTINGS, Writer, written
from deploy.cli.errors import Stopped
from deploy.identity import fingerprint
from deploy.local import settings as configuration
from deploy.local.console import Console
from deploy.local.errors import Failure
from deploy.local.files import write
from deploy.local.instance import ROOT, Instance
from deploy.local.postgres import split_password, tool
from deploy.local.rabbitmq import ADMIN
from deploy.tally import NO_LIMITS, Tally, tables, tally

if TYPE_CHECKING:
    from asyncpg import Connection, Record

    from deploy.broker import Management

LAST_BACKUP = "last-backup.json"
WAIT_SECONDS = 30.0
COMPRESSION = 3
LOOK_SECONDS = 0.2
CONNECT_SECONDS = 10.0
NEEDED = ("POSTHOUSE_DATABASE_URL", "POSTHOUSE_AMQP_URL", "POSTHOUSE_MANAGEMENT_URL", "POSTHOUSE_SECRET_KEY")
ROLES = "SELECT rolname FROM pg_roles WHERE rolname LIKE 'posthouse\\_%' ORDER BY 1"
MIGRATIONS = "SELECT service, name, checksum FROM posthouse.migration ORDER BY service, name"


def add_parsers(commands: Any) -> None:
    """The command `backup`."""
    words = "everything that is worth keeping, in one file, while Posthouse runs"
    parser = commands.add_parser("backup", help=words, description=words)
    parser.add_argument("file", type=Path, metavar="FILE", help="is written, readable by you alone")
    parser.add_argument("--force", action="store_true", help="replace FILE when it is there")
    parser.add_argument(
        "--without-key", action="store_true", help="leave the secret key out: keep it elsewhere"
    )
    parser.add_argument(
        "--compression",
        type=int,
        choices=range(10),
        default=COMPRESSION,
        metavar="0..9",
        help=f"of the database: 0 none, 9 smallest and slowest ({COMPRESSION})",
    )
    parser.add_argument(
        "--wait",
        type=float,
        default=WAIT_SECONDS,
        metavar="SECONDS",
        help=f"at most, until waiting messages are stored ({WAIT_SECONDS:.0f})",
    )
    parser.set_defaults(run=_run)


def _run(options: argparse.Namespace, environment: Mapping[str, str]) -> int:
    if missing := [name for name in NEEDED if not environment.get(name)]:
        raise Stopped(f"A backup is taken while Posthouse runs: ./posthouse up ({missing[0]} is not known).")
    _writable(options.file, options.force)
    instance = Instance(configuration.load(ROOT, environment))
    backup = Backup(instance, environment, Console(), options.compression)
    try:
        manifest = asyncio.run(backup.into(options.file, options.wait, with_key=not options.without_key))
    except KeyboardInterrupt:
        print("posthouse: Interrupted; no backup was written.", file=sys.stderr)
        return 130
    except Failure as failure:
        raise Stopped(f"No backup was written: {failure.reason}") from None
    noted = {"at": manifest["taken_at"], "file": str(options.file.resolve())}
    write(instance.local / LAST_BACKUP, json.dumps(noted) + "\n")
    print("\n".join(_told(options.file, manifest)))
    return 0


def _writable(file: Path, force: bool) -> None:
    if not file.parent.is_dir():
        raise Stopped(f"There is no directory {file.parent}.")
    if file.is_dir() or (file.exists() and not force):
        raise Stopped(f"{file} is there already; --force replaces a file.")


def _told(file: Path, manifest: Mapping[str, Any]) -> list[str]:
    lines = [f"\n{file}: {file.stat().st_size:,} bytes, as of {manifest['taken_at']}."]
    lines.append("What was answered after that moment is not in it.")
    if manifest["waiting"]:
        named = [f"{count:,} in {queue}" for queue, count in manifest["waiting"].items()]
        lines.append(f"NOT CONTAINED are messages that wait in queues: {', '.join(named)}.")
    else:
        lines.append("No message waited in a queue.")
    if manifest["key"]:
        lines.append("IT HOLDS THE SECRET KEY: whoever reads this file can open all that is in it.")
    else:
        lines.append("The secret key is not in it: without the key nobody can restore it. Keep both, apart.")
    return lines


@dataclass(frozen=True)
class Backup:
    """Takes a backup of one running instance."""

    instance: Instance
    environment: Mapping[str, str]
    console: Console
    compression: int = COMPRESSION

    async def into(self, file: Path, wait_seconds: float, *, with_key: bool) -> dict[str, Any]:
        """Write the file; answers its manifest."""
        from deploy.broker import Management

        began = datetime.now(UTC)
        try:
            async with Management(self.environment) as management, _database(self.environment) as database:
                with self.console.step("queues") as step:
                    step.words = await self._drained(wait_seconds)
                with written(file) as archive, self.console.step("database") as step:
                    facts = await self._stored(archive, database, management)
                    rows = sum(one["rows"] for one in facts["tables"].values())
                    step.words = f"{rows:,} rows in {len(facts['tables'])} tables"
                    archive.add(
                        BROKER, _json(_definitions(management, await management.call("GET", "/definitions")))
                    )
                    archive.add(SETTINGS, self._settings(with_key).encode())
                    manifest = {"made_at": _utc(began), **facts, **await self._made_by(management)}
                    manifest |= {"key": with_key, "key_fingerprint": fingerprint(self._key)}
                    archive.end(manifest)
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            raise Stopped(f"No backup was written: {str(error) or type(error).__name__}") from None
        return manifest

    @property
    def _key(self) -> str:
        return self.environment["POSTHOUSE_SECRET_KEY"]

    async def _drained(self, seconds: float) -> str:
        """Wait until nothing is left in the queues of our services, or for so long."""
        from shared.bus.topology import SERVICES

        names = [name for service in SERVICES for name in (service, f"{service}.events")]
        end = time.monotonic() + seconds
        while left := sum((await self._ready(names)).values()):
            if time.monotonic() > end:
                return f"{left:,} messages still wait"
            await asyncio.sleep(LOOK_SECONDS)
        return "all is stored"

    async def _ready(self, names: list[str]) -> dict[str, int]:
        """Messages that wait in each queue, asked of the queue itself."""
        import aio_pika
        from aiormq.exceptions import ChannelNotFoundEntity

        found = {}
        url = self.environment["POSTHOUSE_AMQP_URL"]
        async with await aio_pika.connect(url, timeout=CONNECT_SECONDS) as connection:
            for name in names:
                channel = await connection.channel()
                try:
                    declared = await channel.declare_queue(name, passive=True)
                except ChannelNotFoundEntity:
                    continue
                found[name] = declared.declaration_result.message_count or 0
                await channel.close()
        return found

    async def _stored(self, archive: Writer, database: Database, management: Management) -> dict[str, Any]:
        """The dump, and what is in it: figures and dump are of one moment."""
        facts = await database.facts()
        waiting = asyncio.create_task(self._waiting(management))
        figures = asyncio.create_task(database.tally())
        try:
            await asyncio.to_thread(archive.stream, DATABASE, self._dump(database.snapshot))
            return {**facts, "tables": await figures, "waiting": await waiting}
        finally:
            for task in (waiting, figures):
                task.cancel()
            await asyncio.gather(waiting, figures, return_exceptions=True)

    def _dump(self, snapshot: str) -> Iterator[bytes]:
        """What pg_dump says; the password is in its environment, not in the list of processes."""
        url, password = split_password(self.environment["POSTHOUSE_DATABASE_URL"])
        command = [
            str(tool(self.instance, "pg_dump")),
            "--format=custom",
            f"--compress={self.compression}",
            "--no-owner",
            f"--snapshot={snapshot}",
            f"--dbname={url}",
        ]
        show = _progress()
        with tempfile.TemporaryFile() as errors:
            child = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=errors,
                env={**self.environment, "PGPASSWORD": password},
            )
            assert child.stdout is not None
            try:
                while chunk := child.stdout.read(CHUNK):
                    yield chunk
                    show(len(chunk))
            finally:
                child.stdout.close()
                if child.wait() != 0:
                    errors.seek(0)
                    words = errors.read().decode(errors="replace").strip().splitlines()
                    raise Stopped(f"No backup was written: {words[-1] if words else 'pg_dump failed'}")

    async def _waiting(self, management: Management) -> dict[str, int]:
        """Messages in queues by now, those that a service holds included (some seconds late)."""
        known = await management.call("GET", f"/queues/{management.virtual_host}")
        held = {
            one["name"]: one.get("messages_unacknowledged", 0)
            for one in known
            if one.get("durable") and not one["name"].endswith((".queries", ".logs"))
        }
        ready = await self._ready(sorted(held))
        counts = {name: ready.get(name, 0) + count for name, count in held.items()}
        return {name: count for name, count in sorted(counts.items()) if count}

    def _settings(self, with_key: bool) -> str:
        """The settings file, with the key wherever that came from, or without it."""
        file = self.instance.settings.file
        lines = file.read_text().splitlines() if file.exists() else []
        name = configuration.SECRET_KEY
        lines = [line for line in lines if line.partition("=")[0].strip() != name]
        if with_key:
            lines.append(f"{name}={self._key}")
        return "".join(f"{line}\n" for line in lines)

    async def _made_by(self, management: Management) -> dict[str, Any]:
        overview = await management.call("GET", "/overview")
        return {"commit": await self._commit(), "rabbitmq": overview.get("rabbitmq_version", "")}

    async def _commit(self) -> str:
        """That which runs, else that which is checked out."""
        try:
            timeout = aiohttp.ClientTimeout(total=2)
            url = self.environment["POSTHOUSE_URL"] + "/healthz"
            async with aiohttp.ClientSession(timeout=timeout) as http, http.get(url, ssl=False) as answer:
                return str((await answer.json())["commit"])
        except (aiohttp.ClientError, OSError, ValueError, KeyError, TimeoutError):
            return self.environment.get("POSTHOUSE_COMMIT", "")


@dataclass(frozen=True)
class Database:
    """One moment of a database, held for as long as its connection is open."""

    connection: Connection[Record]
    names: list[str]
    snapshot: str

    async def facts(self) -> dict[str, Any]:
        """Of which moment and version it is, and what it takes to read it."""
        ask = self.connection
        return {
            "taken_at": _utc(await ask.fetchval("SELECT now()")),
            "postgres": await ask.fetchval("SHOW server_version"),
            "roles": [row["rolname"] for row in await ask.fetch(ROLES)],
            "migrations": [list(row) for row in await ask.fetch(MIGRATIONS)],
        }

    async def tally(self) -> dict[str, Tally]:
        """Rows and sum of each table."""
        return await tally(self.connection, self.names)


@asynccontextmanager
async def _database(environment: Mapping[str, str]) -> AsyncIterator[Database]:
    """A moment in which no table can be dropped: those there are are locked first, as readers lock them."""
    import asyncpg

    url = environment["POSTHOUSE_DATABASE_URL"]
    try:
        guard = await asyncpg.connect(url, timeout=CONNECT_SECONDS, server_settings=NO_LIMITS)
        connection = await asyncpg.connect(url, timeout=CONNECT_SECONDS, server_settings=NO_LIMITS)
    except (OSError, TimeoutError, asyncpg.PostgresError) as error:
        raise Stopped(
            f"PostgreSQL does not answer ({error}): a backup is taken while Posthouse runs."
        ) from None
    try:
        async with guard.transaction(), connection.transaction(isolation="repeatable_read", readonly=True):
            await guard.execute(f"LOCK TABLE {', '.join(await tables(guard))} IN ACCESS SHARE MODE")
            snapshot = await connection.fetchval("SELECT pg_export_snapshot()")
            yield Database(connection, await tables(connection), snapshot)
    finally:
        await connection.close(timeout=5)
        await guard.close(timeout=5)


def _definitions(management: Management, whole: Mapping[str, Any]) -> dict[str, Any]:
    """What of a broker is ours: of our virtual host, and no administrator."""
    from deploy.broker import accounts

    place = unquote(management.virtual_host)
    kept = {
        kind: [one for one in whole.get(kind, ()) if one.get("vhost", place) == place]
        for kind in (
            "users",
            "permissions",
            "topic_permissions",
            "queues",
            "exchanges",
            "bindings",
            "policies",
        )
    }
    # Passwords of our own accounts follow from the key; those of others are kept as the broker has them.
    others = [one for one in kept["users"] if one["name"] != ADMIN and one["name"] not in accounts()]
    names = {one["name"] for one in others if "administrator" not in one.get("tags", ())}
    kept["users"] = [one for one in others if one["name"] in names]
    for kind in ("permissions", "topic_permissions"):
        kept[kind] = [one for one in kept[kind] if one["user"] in names or one["user"] in accounts()]
    return kept


def _json(thing: Any) -> bytes:
    return json.dumps(thing, indent=1).encode()


def _utc(at: datetime) -> str:
    return at.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def _progress() -> Callable[[int], None]:
    """How much of a dump there is, on a terminal, ten times a second."""
    done, drawn = 0, time.monotonic()

    def show(size: int) -> None:
        nonlocal done, drawn
        done += size
        if sys.stderr.isatty() and time.monotonic() - drawn > 0.1:
            drawn = time.monotonic()
            sys.stderr.write(f"\r  database           {done / 1e6:,.0f} MB\x1b[K\r")
            sys.stderr.flush()

    return show
