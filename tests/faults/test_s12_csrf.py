"""S12: whatever another site makes a signed-in browser send, nothing changes."""

from __future__ import annotations

import asyncio
import re
import secrets
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Any

import asyncpg
import pytest
from aiohttp import web

from services.gateway.browser import BrowserSessions
from services.gateway.http.app import TABLES, make_app
from services.gateway.http.endpoint import SAFE
from services.gateway.http.gateway import GATEWAY
from services.gateway.http.server import Door
from services.gateway.http.table import PUBLIC
from services.gateway.pages.table import add_pages
from services.gateway.session import Callers
from services.gateway.tokens import AccessTokens
from shared import cache
from shared.bus import topology
from shared.bus.inbox import PostgresInbox
from shared.bus.memory import MemoryBroker
from shared.bus.requester import BusRequester
from shared.bus.requests import Caller
from shared.contracts.auth import ListSigningKeys, SessionOpened
from shared.db import Database
from shared.vault import Vault
from tests.integration.ingest_service import served
from tests.servers import Place, cloned_database
from tests.unit.gateway.browsers import cookie, incoming
from tests.unit.gateway.door import House, read_answer, settings, watched_short_way
from tests.unit.gateway.services import Services

EVIL = "https://evil.test"
JSON, FORM, TEXT = "application/json", "application/x-www-form-urlencoded", "text/plain"
MULTIPART = "multipart/form-data; boundary=x"
# What a browser says when another site's page makes it send a request, by how the page does it.
SITES = {
    "a form of another site": {"Origin": EVIL, "Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate"},
    "a script of another site": {"Origin": EVIL, "Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "cors"},
    "a script that wants no answer": {
        "Origin": EVIL,
        "Sec-Fetch-Site": "cross-site",
        "Sec-Fetch-Mode": "no-cors",
    },
    "a page of a sibling": {"Origin": "http://evil.127.0.0.1", "Sec-Fetch-Site": "same-site"},
    "a page in a sandbox": {"Origin": "null", "Sec-Fetch-Site": "cross-site"},
    "an older browser": {"Origin": EVIL},
    "an older browser in a sandbox": {"Origin": "null"},
    "an older browser that hides it": {},
    "an older browser with our address as the referrer": {"Referer": "{own}/datasets"},
    "our address at another port": {"Origin": "http://127.0.0.1:1"},
    "our address over TLS": {"Origin": "https://127.0.0.1:{port}"},
    "our address as the beginning": {"Origin": "{own}.evil.test"},
    "two origins": {"Origin": "{own} " + EVIL},
    "an invented proxy": {"Origin": EVIL, "X-Forwarded-Host": "evil.test", "X-Forwarded-Proto": "https"},
    "another method in a header": {"Origin": EVIL, "X-HTTP-Method-Override": "GET"},
}
OURS: tuple[dict[str, str], ...] = (
    {"Sec-Fetch-Site": "same-origin"},
    {"Origin": "{own}"},
    {"Origin": "{own}", "Sec-Fetch-Site": "same-origin"},
)


class Asking(BusRequester):
    """The bus, with signing keys from this process instead of auth."""

    people: Services

    async def ask(self, message: Any, caller: Caller) -> Any:
        """Keys from here, the rest from the services."""
        if isinstance(message, ListSigningKeys):
            return await self.people.ask(message, caller)
        return await super().ask(message, caller)


@dataclass
class World:
    """A gateway before a real ingest, a browser that is signed in, and the tables behind them."""

    house: House
    app: web.Application
    cookie: str
    place: Place
    dataset: str = ""

    async def send(self, method: str, path: str, kind: str, body: bytes, *, short: bool, **more: str) -> int:
        """The status a browser gets; `short` asks for the way without aiohttp's tasks."""
        own = f"http://127.0.0.1:{self.house.door.port}"
        headers = {"Host": own[7:], "Cookie": self.cookie, "Content-Length": str(len(body))}
        headers |= {"Content-Type": kind} if kind else {}
        headers |= {} if short else {"Connection": "close"}
        headers |= {name: value.format(own=own, port=own[17:]) for name, value in more.items()}
        lines = [f"{method} {path} HTTP/1.1", *(f"{name}: {value}" for name, value in headers.items())]
        reader, writer = await asyncio.open_connection("127.0.0.1", self.house.door.port)
        writer.write("\r\n".join(lines).encode() + b"\r\n\r\n" + body)
        answer = await read_answer(reader)
        writer.close()
        assert "Access-Control-Allow-Credentials" not in answer.headers
        return answer.status

    async def state(self) -> list[Any]:
        """Everything in the tables a signed-in person could change here."""
        connection = await asyncpg.connect(self.place.admin_url, timeout=10)
        try:
            tables = await connection.fetch(
                "SELECT format('%I.%I', schemaname, tablename) FROM pg_tables WHERE schemaname = 'ingest' "
                "AND tablename NOT LIKE 'inbox%' ORDER BY 1"
            )
            rows = [await connection.fetch(f"SELECT t::text FROM {name} t ORDER BY 1") for (name,) in tables]  # noqa: S608
            return [tuple(row) for found in rows for row in found]
        finally:
            await connection.close()

    def filled(self, template: str) -> str:
        """A path of a template."""
        path = template.replace("{kind}", "read").replace("{entry}", "1")
        return re.sub(r"\{\w+\}", self.dataset, path)

    def writes(self) -> list[tuple[str, str, bytes]]:
        """Changes of every kind to one dataset."""
        path = f"/v1/datasets/{self.dataset}"
        reading = b'{"values": {"t": 1}}'
        return [
            ("POST", "/v1/datasets", b'{"name": "theirs"}'),
            ("POST", f"{path}/readings", reading),
            ("PATCH", path, b'{"name": "theirs"}'),
            ("POST", f"{path}/keys/write", b""),
            ("DELETE", f"{path}/readings?all=true", b""),
            ("DELETE", path, b""),
        ]


@asynccontextmanager
async def a_world(template: Place, vault: Vault, redis_url: str) -> AsyncIterator[World]:
    broker = MemoryBroker([*topology.service_queues("ingest"), *topology.shared_queues()])
    link = broker.link("gateway")
    requester = Asking(link)
    requester.people = people = Services(vault)
    await link.open_replies(requester.on_reply)
    redis = cache.connect(redis_url, client_name="test")
    tokens = AccessTokens(requester)
    browser = BrowserSessions(requester, vault, tokens, redis)
    callers = Callers(requester, vault, tokens=tokens, browser=browser)
    chosen = settings(rate_anonymous="", rate_sign_in="")
    app = make_app(requester, vault, chosen, callers=callers, add_pages=add_pages)
    door = Door(app, chosen)
    opened = SessionOpened(access_token=vault.seal(people.token(), "auth.token"), expires_in=300)
    try:
        async with cloned_database(template) as place, AsyncExitStack() as stack:
            db = Database(place.url("ingest"), size=4, application_name="test")
            await stack.enter_async_context(served(broker.link("ingest"), db, PostgresInbox(db), vault))
            await door.open()
            house = House(door, people, app[GATEWAY])
            yield World(house, app, cookie(await browser.open(incoming(), opened)), place)
            await door.stop()
    finally:
        broker.close()
        await redis.aclose()


@pytest.fixture(scope="module")
async def world(database_template: Place, vault: Vault, redis_url: str) -> AsyncIterator[World]:
    async with a_world(database_template, vault, redis_url) as world:
        new = {"name": "Roof", "variables": [{"tag": "t"}]}
        token = world.house.services.token()
        made = await world.house.request("POST", "/v1/datasets", token=token, json=new)
        world.dataset = made.json["id"]
        yield world


async def attack(world: World) -> dict[str, int]:
    """Every write, from every site, as every type, on both ways: how often each status was answered."""
    statuses: dict[str, int] = {}
    for method, path, body in world.writes():
        for headers in SITES.values():
            for kind in (JSON, FORM, TEXT, MULTIPART, "") if body else ("",):
                for short in (False, True):
                    got = await world.send(method, path, kind, body, short=short, **headers)
                    statuses[str(got)] = statuses.get(str(got), 0) + 1
    return statuses


@pytest.fixture
def short(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """For each request that was looked at, whether it went the short way."""
    return watched_short_way(monkeypatch)


async def test_another_site_changes_nothing(world: World, short: list[bool]) -> None:
    ours = {"Sec-Fetch-Site": "same-origin"}
    reading = ("POST", f"/v1/datasets/{world.dataset}/readings", JSON, b'{"values": {"t": 1}}')
    for is_short in (False, True):  # the short way has seen this path and this caller
        assert await world.send(*reading, short=is_short, **ours) == 201
        assert short[-1] is is_short
    before = await world.state()
    statuses = await attack(world)
    assert await world.state() == before
    assert statuses.keys() == {"403"}
    kinds = f"{len(SITES)} kinds of other sites, {sum(short)} on the short way"
    print(f"\nS12: {statuses['403']} requests of {kinds}, state changes 0")


async def test_the_same_requests_change_things_when_nobody_looks_where_they_come_from(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(BrowserSessions, "same_origin", lambda *_: True)
    before = await world.state()
    headers = SITES["a form of another site"]
    assert (
        await world.send("POST", "/v1/datasets", JSON, b'{"name": "theirs"}', short=False, **headers) == 201
    )
    after = await world.state()
    assert after != before
    print(f"\nS12 unprotected: 1 request, state changes {len(set(after) - set(before))}")


@pytest.mark.parametrize("headers", OURS, ids=str)
@pytest.mark.parametrize("short", [False, True], ids=["long", "short"])
async def test_our_own_pages_change_things(world: World, headers: dict[str, str], short: bool) -> None:
    body = b'{"name": "' + secrets.token_hex(4).encode() + b'"}'
    for _ in range(2):  # first the long way, whatever is asked for
        assert await world.send("POST", "/v1/datasets", JSON, body, short=short, **headers) == 201


async def test_every_route_that_changes_anything_refuses_another_site(world: World) -> None:
    rows = [row for table in TABLES for row in table.rows if row.method not in SAFE and row.who is not PUBLIC]
    assert len(rows) > 10
    for row in rows:
        path = world.filled(row.template)
        for headers in SITES.values():
            status = await world.send(row.method, path, JSON, b"{}", short=False, **headers)
            assert status == 403, (row.method, path, headers)


async def test_every_form_of_every_page_refuses_another_site_signed_in_or_not(world: World) -> None:
    rows = {(row.method, row.path) for table in TABLES for row in table.rows}
    signed_in = world.cookie
    for route in world.app.router.routes():
        path = route.resource.canonical if route.resource is not None else ""
        if route.method in (*SAFE, "*") or (route.method, path) in rows or path.startswith("/v1/"):
            continue
        path = world.filled(path)
        for world.cookie in (signed_in, "theme=dark"):
            for headers in SITES.values():
                status = await world.send(route.method, path, FORM, b"a=b", short=False, **headers)
                assert status == 403, (route.method, path, headers)
    world.cookie = signed_in


async def test_a_token_or_a_key_in_a_header_needs_no_origin(world: World) -> None:
    """No page of another site can make a browser send those."""
    token = {"Authorization": f"Bearer {world.house.services.token()}"}
    for short in (False, True):
        new = ("POST", "/v1/datasets", JSON, b'{"name": "mine"}')
        assert await world.send(*new, short=short, Origin=EVIL, **token) == 201


async def test_reading_by_cookie_needs_no_origin_and_no_other_site_may_read_the_answer(world: World) -> None:
    for short in (False, True):
        for headers in SITES.values():
            assert await world.send("GET", "/v1/datasets", "", b"", short=short, **headers) == 200
    preflight = await world.send(
        "OPTIONS",
        "/v1/datasets",
        "",
        b"",
        short=False,
        Origin=EVIL,
        **{"Access-Control-Request-Method": "POST"},
    )
    assert preflight == 204
