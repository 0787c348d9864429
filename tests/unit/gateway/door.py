"""A gateway on a real socket over services in this process, and a client that sends raw bytes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import aiohttp
import msgspec
import pytest
from aiohttp import web
from multidict import CIMultiDict

from services.gateway.http.app import make_app
from services.gateway.http.gateway import GATEWAY, Gateway
from services.gateway.http.server import Door
from services.gateway.http.short_way import Exchange, ShortWay
from services.gateway.settings import Settings
from shared.vault import Vault
from tests.unit.gateway.services import Services


@dataclass
class Answer:
    """One answer as it came over the wire."""

    status: int
    headers: CIMultiDict[str]
    body: bytes

    @property
    def json(self) -> Any:
        """The body as JSON."""
        return msgspec.json.decode(self.body)


@dataclass
class House:
    """An open gateway and what is behind it."""

    door: Door
    services: Services
    gateway: Gateway

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"http://127.0.0.1:{self.door.port}"

    async def request(self, method: str, path: str, *, token: str | None = None, **more: Any) -> Answer:
        """One request of an honest client."""
        headers = dict(more.pop("headers", {}))
        if token is not None:
            headers["Authorization"] = f"Bearer {token}"
        async with (
            aiohttp.ClientSession(self.url) as session,
            session.request(method, path, headers=headers, **more) as response,
        ):
            return Answer(response.status, CIMultiDict(response.headers), await response.read())

    async def raw(self, data: bytes, *, finish: bool = False) -> Answer:
        """Send bytes, read one answer; `finish` says that no more will come."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.door.port)
        try:
            writer.write(data)
            if finish:
                writer.write_eof()
            return await read_answer(reader)
        finally:
            writer.close()

    async def dataset(self, token: str) -> dict[str, Any]:
        """A new dataset with its keys."""
        answer = await self.request("POST", "/v1/datasets", token=token, json={"name": "Roof"})
        assert answer.status == 201, answer
        made: dict[str, Any] = answer.json
        return made


async def read_answer(reader: asyncio.StreamReader) -> Answer:
    """Read one answer with a Content-Length."""
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
    headers: CIMultiDict[str] = CIMultiDict()
    for line in head[1:]:
        name, _, value = line.partition(": ")
        if name:
            headers[name] = value
    body = await reader.readexactly(int(headers.get("Content-Length", 0)))
    return Answer(int(head[0].split()[1]), headers, body)


def settings(**more: Any) -> Settings:
    """Settings of a test: any port, short waits."""
    return Settings(amqp_url="amqp://nowhere", **({"port": 0, "quiet_seconds": 0.05} | more))


@asynccontextmanager
async def open_house(
    vault: Vault, add_pages: Callable[[web.Application, Gateway], None] | None = None, **more: Any
) -> AsyncIterator[House]:
    """A gateway on a free port until the end of the block."""
    services = Services(vault)
    chosen = settings(**more)
    app = make_app(services, vault, chosen, add_pages=add_pages)
    door = Door(app, chosen)
    await door.open()
    try:
        yield House(door, services, app[GATEWAY])
    finally:
        await door.stop()


def watched_short_way(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """Grows by whether it went the short way with each request that is looked at."""
    found: list[bool] = []
    look = ShortWay.exchange

    def spy(self: ShortWay, *arguments: Any) -> Exchange | None:
        exchange = look(self, *arguments)
        found.append(exchange is not None)
        return exchange

    monkeypatch.setattr(ShortWay, "exchange", spy)
    return found
