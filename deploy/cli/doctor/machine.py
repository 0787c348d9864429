"""What everything stands on: Redis, clocks, the disk, and the last backup."""

from __future__ import annotations

import json
import secrets
import shutil
import stat
import time
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from pathlib import Path

import aiohttp

from deploy.cli.backup import LAST_BACKUP
from deploy.cli.doctor.database import connected
from deploy.cli.doctor.finding import SECONDS, Environment, Finding, mendable

FREE_BYTES = 1 << 30
APART_SECONDS = 2.0
BACKUP_DAYS = 7
Span = tuple[float, float]


async def redis(environment: Environment) -> list[Finding]:
    """That it answers, and keeps what is written to it."""
    from shared.cache import connect

    client = connect(environment["POSTHOUSE_REDIS_URL"], client_name="posthouse-doctor")
    name, text = f"doctor:{secrets.token_hex(8)}", secrets.token_bytes(8)
    try:
        version = (await client.info("server")).get("redis_version", "")
        await client.set(name, text, ex=10)
        is_kept = await client.get(name) == text
        await client.delete(name)
    finally:
        await client.aclose()
    if not is_kept:
        advice = "It is too small, or not the one that is written to: give it more memory (maxmemory)."
        return [Finding("redis", "forgets what was written a moment ago", advice)]
    return [Finding("redis", f"version {version}")]


async def clocks(environment: Environment) -> list[Finding]:
    """Of database, broker and Redis beside this machine's: ids and deadlines begin with a time."""
    found = [
        *apart("PostgreSQL", *await _database_clock(environment)),
        *apart("RabbitMQ", *await _broker_clock(environment)),
        *apart("Redis", *await _redis_clock(environment)),
    ]
    return found or [Finding("clocks", f"within {APART_SECONDS:.0f} s of each other")]


async def _database_clock(environment: Environment) -> tuple[Span, Span]:
    async with connected(environment["POSTHOUSE_DATABASE_URL"]) as connection:
        before = time.time()
        theirs = float(await connection.fetchval("SELECT extract(epoch FROM clock_timestamp())"))
        return (theirs, theirs), (before, time.time())


async def _broker_clock(environment: Environment) -> tuple[Span, Span]:
    timeout = aiohttp.ClientTimeout(total=SECONDS)
    async with aiohttp.ClientSession(timeout=timeout) as http:
        before = time.time()
        async with http.get(environment["POSTHOUSE_MANAGEMENT_URL"] + "/api/overview") as answer:
            theirs = parsedate_to_datetime(answer.headers["Date"]).timestamp()
        return (theirs, theirs + 1), (before, time.time())


async def _redis_clock(environment: Environment) -> tuple[Span, Span]:
    from shared.cache import connect

    client = connect(environment["POSTHOUSE_REDIS_URL"], client_name="posthouse-doctor")
    try:
        before = time.time()
        seconds, micros = await client.time()
        return (seconds + micros / 1e6,) * 2, (before, time.time())
    finally:
        await client.aclose()


def apart(name: str, theirs: Span, ours: Span) -> list[Finding]:
    """What is to be said of a clock that showed a time of `theirs` at a moment within `ours`."""
    ahead, behind = theirs[0] - ours[1], ours[0] - theirs[1]
    if max(ahead, behind) <= APART_SECONDS:
        return []
    words = f"that of {name} is {max(ahead, behind):.1f} s {'ahead of' if ahead > 0 else 'behind'} this one"
    return [Finding("clocks", words, "Set all of them by NTP (timedatectl set-ntp true).")]


async def disk(environment: Environment) -> list[Finding]:
    """Room for the data, and files of secrets that others may read."""
    data = Path(environment["POSTHOUSE_DATA"])
    free = shutil.disk_usage(data).free
    words = f"{free / (1 << 30):.1f} GiB free at {data}"
    advice = "" if free > FREE_BYTES else "Too little: free some, or move POSTHOUSE_DATA."
    told = (mendable("disk", f"others may read {file}", "files") for file in readable(environment))
    return [Finding("disk", words, advice), *told]


def readable(environment: Environment) -> list[Path]:
    """Files with secrets that are open to others."""
    local = Path(environment["POSTHOUSE_LOCAL"])
    files = [local / "addresses.env", local / "posthouse.env", local.parent / "posthouse.env"]
    return [file for file in files if file.exists() and file.stat().st_mode & (stat.S_IRWXG | stat.S_IRWXO)]


async def backup(environment: Environment) -> list[Finding]:
    """How old the last one is."""
    local, data = Path(environment["POSTHOUSE_LOCAL"]), Path(environment["POSTHOUSE_DATA"])
    births = [file.stat().st_mtime for file in (data / "postgres/PG_VERSION",) if file.exists()]
    return [judged_backup(_noted(local / LAST_BACKUP), min(births, default=time.time()), datetime.now(UTC))]


def _noted(file: Path) -> tuple[datetime, str] | None:
    try:
        noted = json.loads(file.read_text())
        return datetime.fromisoformat(noted["at"]), str(noted["file"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def judged_backup(last: tuple[datetime, str] | None, began: float, now: datetime) -> Finding:
    """What is to be said of the last backup, or of there being none since the data began."""
    advice = "./posthouse backup FILE, and keep the file on another machine."
    limit = timedelta(days=BACKUP_DAYS)
    if last is None:
        is_new = now - datetime.fromtimestamp(began, UTC) < limit
        return Finding("backup", "none was made of this instance yet", "" if is_new else advice)
    at, file = last
    words = f"{at:%Y-%m-%d %H:%M} UTC, {file}"
    return Finding("backup", words, advice if now - at > limit else "")
