"""Two gateways before one auth, on real servers: for whoever tries to get in where they do not belong."""

from __future__ import annotations

import asyncio
import os
import secrets
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import aiohttp
from argon2 import PasswordHasher
from prometheus_client import CollectorRegistry

from services.auth.deps import Policy, Tools, deps_of
from services.auth.handlers import routes
from services.auth.hashing import Hasher
from services.auth.throttle import Throttle
from services.auth.tokens import Issuer
from services.gateway.http.app import make_app
from services.gateway.http.server import Door
from services.gateway.revocations import TOPICS, listener
from services.gateway.session import Callers
from shared import cache
from shared.bus import topology
from shared.bus.inbox import PostgresInbox
from shared.bus.rabbit import RabbitLink
from shared.bus.requester import BusRequester
from shared.bus.service import Service
from shared.db import Database
from shared.limits import Limiter
from shared.vault import Vault
from tests.broker import VirtualHost
from tests.servers import Place
from tests.unit.gateway.door import settings

PASSWORD = "eleven purple kettles"
ACCOUNTS = {"gateway": topology.gateway_rights(), "auth": topology.service_rights("auth")}
QUEUES = [*topology.service_queues("auth"), *topology.shared_queues()]


def samples(default: int) -> int:
    """How many of each; SAMPLES in the environment says otherwise."""
    return int(os.environ.get("SAMPLES", default))


@dataclass(frozen=True)
class Said:
    """An answer, without what differs in every answer."""

    status: int
    body: Any
    seconds: float

    @property
    def code(self) -> str:
        """The code of a problem."""
        return str(self.body.get("code", "")) if isinstance(self.body, dict) else ""


@dataclass
class Town:
    """The doors, and what is behind them."""

    urls: tuple[str, ...]
    database: Database
    vault: Vault
    client: aiohttp.ClientSession
    tools: list[Tools] = field(default_factory=list)

    async def ask(
        self, method: str, path: str, json: Any = None, *, door: int = 0, token: str = "", address: str = ""
    ) -> Said:
        """One request through a proxy that says which address it came from."""
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        if address:
            headers["X-Forwarded-For"] = address
        began = time.perf_counter()
        async with self.client.request(method, self.urls[door] + path, json=json, headers=headers) as answer:
            body = await answer.json(content_type=None) if answer.status != 204 else None
        seconds = time.perf_counter() - began
        if isinstance(body, dict):
            body.pop("request_id", None)
        return Said(answer.status, body, seconds)

    async def sign_in(self, name: str = "ann", **more: Any) -> dict[str, Any]:
        """Tokens of a new session."""
        said = await self.ask("POST", "/v1/sessions", {"name": name, "password": PASSWORD}, **more)
        assert said.status == 201, said
        tokens: dict[str, Any] = said.body
        return tokens

    async def set_up(self) -> None:
        """Make the first account."""
        new = {"name": "ann", "email": "ann@example.org", "password": PASSWORD}
        said = await self.ask("POST", "/v1/setup", new)
        assert said.status == 201, said

    async def add_people(self, names: list[str]) -> None:
        """Accounts with the password of the first one."""
        await self.database.pool.execute(
            """
            INSERT INTO account (id, name, name_key, email, email_key, password_hash, created_at)
            SELECT gen_random_uuid(), name, name, name || '@example.org', name || '@example.org',
                   (SELECT password_hash FROM account WHERE name = 'ann'), now()
              FROM unnest($1::text[]) AS name
            """,
            names,
        )


@asynccontextmanager
async def town(
    place: Place, vault: Vault, amqp_url: str, management_url: str, redis_url: str, argon2: PasswordHasher
) -> AsyncIterator[Town]:
    """Open until the end of the block; Argon2 as given, limits in Redis, a worker for each CPU."""
    async with AsyncExitStack() as stack:
        host = await stack.enter_async_context(VirtualHost(amqp_url, management_url, QUEUES, ACCOUNTS))
        database = Database(place.url("auth"), size=12, application_name="test")
        await database.open()
        stack.push_async_callback(database.close)
        redis = cache.connect(redis_url, client_name="test")
        stack.push_async_callback(redis.aclose)
        workers = len(os.sched_getaffinity(0))
        hasher = stack.enter_context(Hasher(argon2, workers=workers, queue=128))
        limiter = Limiter(redis, f"test:{secrets.token_hex(4)}")
        tools = [Tools(vault, hasher, Issuer(vault, 600), Throttle(limiter), Policy())]
        await _serve_auth(stack, host, database, tools)
        urls = [await _open_gateway(stack, host, vault) for _ in range(2)]
        client = await stack.enter_async_context(
            aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=64))
        )
        yield Town(tuple(urls), database, vault, client, tools)


async def _serve_auth(
    stack: AsyncExitStack, host: VirtualHost, database: Database, tools: list[Tools]
) -> None:
    inbox = PostgresInbox(database)
    await inbox.keep_partitions(24)
    link = await _link(stack, host, "auth")
    service = Service(routes, link, inbox, lambda call: deps_of(call, tools[0]), registry=CollectorRegistry())
    await service.start()
    stack.push_async_callback(service.stop, 5)


async def _open_gateway(stack: AsyncExitStack, host: VirtualHost, vault: Vault) -> str:
    link = RabbitLink(host.url("gateway"), "gateway")
    stack.push_async_callback(link.close)
    requester = BusRequester(link)
    await link.open_replies(requester.on_reply)
    chosen = settings(trusted_proxies="127.0.0.1", rate_sign_in="0", rate_anonymous="0")
    callers = Callers(requester, vault)
    await link.hear(TOPICS, listener(callers), callers.drop_all)
    link.start()
    await until(lambda: link.up, "a gateway is connected")
    door = Door(make_app(requester, vault, chosen, callers=callers), chosen)
    await door.open()
    stack.push_async_callback(door.stop)
    return f"http://127.0.0.1:{door.port}"


async def _link(stack: AsyncExitStack, host: VirtualHost, account: str) -> RabbitLink:
    link = RabbitLink(host.url(account), account)
    stack.push_async_callback(link.close)
    link.start()
    await until(lambda: link.up, f"{account} is connected")
    return link


async def until(what: Callable[[], Any], words: str, seconds: float = 20) -> None:
    """Return when `what()` is true; fails with `words` when that takes too long."""
    end = time.monotonic() + seconds
    while True:
        found = what()
        if isinstance(found, Awaitable):
            found = await found
        if found:
            return
        assert time.monotonic() < end, f"not within {seconds:.0f} s: {words}"
        await asyncio.sleep(0.005)
