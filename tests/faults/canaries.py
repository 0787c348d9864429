"""Secrets that can be recognised, and every place of an instance where one could have been left."""

from __future__ import annotations

import base64
import json
import os
import secrets
import subprocess
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any
from urllib.parse import quote

import redis.asyncio

from deploy.local.instance import Instance
from deploy.local.postgres import split_password, tool
from deploy.local.settings import load
from tests.journeys.conftest import ROOT
from tests.journeys.instance import OwnPosthouse

MARK = "kanari"
MOST_MESSAGES = 10_000


@lru_cache(maxsize=1_000)
def forms(secret: str) -> frozenset[bytes]:
    """How a text may stand in bytes: as it is, in hexadecimal, in base64 at any of its three beginnings."""
    raw = secret.encode()
    found = {raw, raw.hex().encode(), raw.hex().upper().encode(), quote(secret, safe="").encode()}
    for before in range(3):
        # Without the characters that depend on the neighbours.
        begins, ends = -(-8 * before // 6), 8 * (before + len(raw)) // 6
        text = base64.b64encode(bytes(before) + raw)[begins:ends]
        found |= {text, text.translate(bytes.maketrans(b"+/", b"-_"))}
    return frozenset(found)


@dataclass
class Canaries:
    """Every secret of one run by the place it was given or made in."""

    known: dict[str, str] = field(default_factory=dict)

    def new(self, place: str) -> str:
        """A secret for this place; 38 characters, on no list of leaked ones."""
        return self.keep(place, f"{MARK}-{secrets.token_hex(16)}")

    def keep(self, place: str, secret: str) -> str:
        """One that the server made."""
        assert len(secret) >= 16, place
        self.known[secret] = place
        return secret

    def found_in(self, where: str, content: bytes) -> list[str]:
        """Which of them are in these bytes, as sentences without the secret itself."""
        is_marked = any(form in content for form in forms(MARK))
        return [
            f"{place}: in {where}"
            for secret, place in self.known.items()
            if is_marked or not secret.startswith(MARK)
            if any(form in content for form in forms(secret))
        ]


Places = Iterator[tuple[str, bytes]]


async def everywhere(posthouse: OwnPosthouse) -> list[tuple[str, bytes]]:
    """Every place of an instance with what is in it."""
    return [
        *files(posthouse.directory / "logs"),
        *files(posthouse.directory / "data" / "rabbitmq"),
        *files(posthouse.directory / "data" / "redis"),
        *printed(posthouse),
        *processes(),
        ("the database", dump(posthouse)),
        *await queues(posthouse),
        *[each async for each in keys(posthouse)],
    ]


def files(directory: Path) -> Places:
    """Every file below a directory."""
    for path in sorted(directory.rglob("*")):
        if path.is_file():
            yield f"{directory.name}/{path.relative_to(directory)}", path.read_bytes()


def printed(posthouse: OwnPosthouse) -> Places:
    """What the commands print that people paste into reports."""
    for command in (["status", "--json"], ["settings"], ["doctor"], ["logs", "-n", "100000"]):
        done = posthouse.run(*command, seconds=120)
        yield f"./posthouse {command[0]}", (done.stdout + done.stderr).encode()


def processes() -> Places:
    """The command lines that everybody on the machine can read."""
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            yield f"the list of processes ({path.parent.name})", path.read_bytes().replace(b"\0", b" ")
        except OSError:
            continue


def dump(posthouse: OwnPosthouse) -> bytes:
    """All of the database as SQL, roles apart: they are the server's."""
    address, password = split_password(posthouse.addresses["POSTHOUSE_DATABASE_URL"])
    done = subprocess.run(
        [tool(Instance(load(ROOT)), "pg_dump"), address],
        env=os.environ | {"PGPASSWORD": password},
        capture_output=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout


async def queues(posthouse: OwnPosthouse) -> list[tuple[str, bytes]]:
    """Every message of every queue, dead letters among them; they stay where they are."""
    host = posthouse.virtual_host
    found = []
    for queue in await posthouse.management("GET", f"queues/{host}"):
        if queue.get("exclusive") or queue.get("owner_pid_details"):
            continue  # of one connection, and only that may look
        asked = {"count": MOST_MESSAGES, "ackmode": "ack_requeue_true", "encoding": "base64"}
        name = quote(queue["name"], safe="")
        for message in await posthouse.management("POST", f"queues/{host}/{name}/get", asked):
            content = base64.b64decode(message.pop("payload"))
            found.append((f"the queue {queue['name']}", content + json.dumps(message).encode()))
    return found


async def keys(posthouse: OwnPosthouse) -> Any:
    """Every key of Redis with its value."""
    client = redis.asyncio.Redis.from_url(posthouse.addresses["POSTHOUSE_REDIS_URL"])
    readers = {
        b"string": client.get,
        b"hash": client.hgetall,
        b"set": client.smembers,
        b"zset": lambda key: client.zrange(key, 0, -1, withscores=True),
        b"list": lambda key: client.lrange(key, 0, -1),
        b"stream": client.xrange,
    }
    async with client:
        async for key in client.scan_iter():
            value = await readers[await client.type(key)](key)
            yield "Redis", key + b" " + (value if isinstance(value, bytes) else repr(value).encode())


def hits(canaries: Canaries, places: Iterable[tuple[str, bytes]]) -> list[str]:
    """Every secret that is somewhere."""
    return [hit for where, content in places for hit in canaries.found_in(where, content)]
