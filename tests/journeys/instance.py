"""A Posthouse for one journey alone, to be hurt: its own scale, its own environment, processes by name."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote, urlsplit

import aio_pika
import aiohttp
import asyncpg

from deploy.local.ports import is_free
from tests.journeys.conftest import START_SECONDS, Posthouse

LOOK_SECONDS = 0.02


@dataclass(frozen=True)
class OwnPosthouse(Posthouse):
    """An instance nobody else uses."""

    def pid(self, name: str) -> int:
        """The process of that name now, 0 while there is none."""
        try:
            return int((self.directory / "run" / f"{name}.pid").read_text())
        except (FileNotFoundError, ValueError):
            return 0

    def kill(self, name: str, number: signal.Signals = signal.SIGKILL) -> int:
        """Signal a process of this instance; answers its number."""
        pid = self.pid(name)
        assert pid, f"{name} does not run"
        os.kill(pid, number)
        return pid

    async def another(self, name: str, than: int, seconds: float = 60) -> None:
        """Return when the launcher has started a program again."""
        await until(lambda: self.pid(name) not in (0, than), f"{name} is started again", seconds)

    async def ready(self, seconds: float = 90) -> None:
        """Return when every process is."""
        done = await asyncio.to_thread(self.run, "status", "--wait", f"{seconds:.0f}", seconds=seconds + 30)
        assert done.returncode == 0, done.stdout + done.stderr

    async def sql(self, statement: str, *values: Any) -> list[asyncpg.Record]:
        """Straight from the tables, past everything of ours."""
        connection = await asyncpg.connect(self.addresses["POSTHOUSE_DATABASE_URL"], timeout=10)
        try:
            return await connection.fetch(statement, *values)
        finally:
            await connection.close()

    async def depth(self, queue: str) -> int:
        """How many messages wait in a queue."""
        return (await self.counted(queue))[0]

    async def counted(self, queue: str) -> tuple[int, int]:
        """How many messages wait in a queue and how many consumers take from it."""
        async with await aio_pika.connect(self.addresses["POSTHOUSE_AMQP_URL"], timeout=10) as connection:
            channel = await connection.channel()
            declared = await channel.declare_queue(queue, passive=True)
            result = declared.declaration_result
            return result.message_count or 0, result.consumer_count or 0

    @property
    def virtual_host(self) -> str:
        """As the management API has it in its paths."""
        path = urlsplit(self.addresses["POSTHOUSE_AMQP_URL"]).path
        return quote(unquote(path[1:]) or "/", safe="")

    async def management(self, method: str, path: str, body: Any = None) -> Any:
        """One request to RabbitMQ's management API."""
        address = self.addresses["POSTHOUSE_MANAGEMENT_URL"] + "/api/" + path
        async with aiohttp.ClientSession() as client, client.request(method, address, json=body) as answer:
            answer.raise_for_status()
            return await answer.json() if answer.content_type == "application/json" else None


@asynccontextmanager
async def own_posthouse(directory: Path, scale: str = "", **environment: str) -> AsyncIterator[OwnPosthouse]:
    """Start an instance with these variables in its environment, and stop it."""
    posthouse = OwnPosthouse(directory)
    # Of two instances that start at the same time, both may find 8080 free.
    environment.setdefault("POSTHOUSE_PORT", str(free_port()))
    arguments = ("up", "--detach", *(("--scale", scale) if scale else ()))
    try:
        up = await asyncio.to_thread(posthouse.run, *arguments, seconds=START_SECONDS, **environment)
        assert up.returncode == 0, up.stdout + up.stderr
        yield posthouse
    finally:
        down = await asyncio.to_thread(posthouse.run, "down", seconds=START_SECONDS)
        assert down.returncode == 0, down.stdout + down.stderr


# Below the ports of outgoing connections, which may take one before it is used, and above the launcher's.
PORTS = range(30_000, 32_768)


def free_port() -> int:
    """A port nobody listens on now."""
    return next(port for port in random.sample(PORTS, len(PORTS)) if is_free(port))


async def until(what: Callable[[], Any], words: str, seconds: float = 60) -> None:
    """Return when `what()` is true; fails with `words` when that takes too long."""
    end = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < end, f"not within {seconds:.0f} s: {words}"
        await asyncio.sleep(LOOK_SECONDS)


async def until_it_is(what: Callable[[], Awaitable[Any]], words: str, seconds: float = 60) -> None:
    """The same for a question that is asked over a wire; an error is no answer yet."""
    end = time.monotonic() + seconds
    while True:
        try:
            if await what():
                return
            last: Any = "no"
        except (OSError, aiohttp.ClientError, TimeoutError) as error:
            last = error
        assert time.monotonic() < end, f"not within {seconds:.0f} s: {words} ({last!r})"
        await asyncio.sleep(LOOK_SECONDS * 10)


NAMED = {"name": "ann", "password": "correct horse battery"}


def sign_up(posthouse: Posthouse) -> str:
    """Make the first account of an instance; answers an access token."""
    posthouse.ask("/v1/setup", NAMED | {"email": "ann@example.org"})
    return str(posthouse.ask("/v1/sessions", NAMED)["access_token"])


def make_dataset(posthouse: Posthouse, token: str, name: str, *tags: str) -> dict[str, Any]:
    """A dataset with these variables, and its keys."""
    variables = [{"tag": tag} for tag in tags]
    made: dict[str, Any] = posthouse.ask("/v1/datasets", {"name": name, "variables": variables}, token)
    return made
