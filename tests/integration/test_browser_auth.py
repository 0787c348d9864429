"""Browsers before two gateways and one auth, as they run: renewals at once, and what ends a session."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass

import pytest
from prometheus_client import CollectorRegistry
from redis.asyncio import Redis

from services.auth.deps import deps_of
from services.auth.handlers import routes
from services.auth.hashing import Hasher
from services.gateway import browser
from services.gateway.browser import BrowserSessions
from services.gateway.revocations import TOPICS, listener
from services.gateway.session import Callers
from services.gateway.tokens import AccessTokens
from shared import cache
from shared.bus import topology
from shared.bus.ids import uuid7
from shared.bus.inbox import PostgresInbox
from shared.bus.memory import MemoryBroker
from shared.bus.requester import BusRequester
from shared.bus.requests import Caller
from shared.bus.service import Service
from shared.contracts.auth import ChangeMe, EndOtherSessions, ListSessions, OpenSession, SetUp
from shared.contracts.base import ANONYMOUS, Principal
from shared.db import Database
from shared.vault import Vault
from tests.integration.auth_service import ANOTHER, PASSWORD, QUICK, quick_tools
from tests.servers import Place
from tests.unit.gateway.browsers import Clock, cookie, incoming

TOKEN_SECONDS = 600
PATIENCE = 10.0


@dataclass
class Gateway:
    """One of the processes at the door."""

    requester: BusRequester
    callers: Callers
    vault: Vault

    async def sign_in(self, *cookies: str) -> str:
        """With name and password; answers the cookie."""
        message = OpenSession(name="ann", password=self.vault.seal(PASSWORD, "auth.password"))
        opened = await self.requester.ask(message, Caller(id=uuid7(), request_id="r"))
        return cookie(await self.callers.browser.open(incoming(*cookies), opened))

    async def who(self, given: str) -> Principal:
        """Whom a request with this cookie comes from."""
        request = incoming(given)
        return await self.callers.identify(request.headers, request.peer)

    async def sign_out(self, given: str) -> None:
        await self.callers.browser.close(incoming(given))

    def as_person(self, principal: Principal) -> Caller:
        return Caller(id=uuid7(), request_id="r", principal=principal)


@dataclass
class World:
    """Two gateways before one auth."""

    here: Gateway
    there: Gateway
    clock: Clock
    database: Database

    async def refreshed(self) -> int:
        """How many refresh tokens were used."""
        return int(
            await self.database.pool.fetchval("SELECT count(*) FROM refresh_token WHERE used_at IS NOT NULL")
        )


@asynccontextmanager
async def _gateway(broker: MemoryBroker, vault: Vault, redis: Redis, clock: Clock) -> AsyncIterator[Gateway]:
    link = broker.link("gateway")
    requester = BusRequester(link)
    await link.open_replies(requester.on_reply)
    tokens = AccessTokens(requester, clock)
    browsers = BrowserSessions(requester, vault, tokens, redis, clock=clock)
    callers = Callers(requester, vault, clock, tokens=tokens, browser=browsers)
    await link.hear(TOPICS, listener(callers), callers.drop_all)
    yield Gateway(requester, callers, vault)


@pytest.fixture
async def world(database: Place, vault: Vault, redis_url: str) -> AsyncIterator[World]:
    db = Database(database.url("auth"), size=12, application_name="test")
    await db.open()
    inbox = PostgresInbox(db)
    await inbox.keep_partitions(24)
    broker = MemoryBroker([*topology.service_queues("auth"), *topology.shared_queues()])
    redis = cache.connect(redis_url, client_name="test")
    clock = Clock(time.time())
    with Hasher(QUICK, workers=2, queue=64) as hasher:
        tools = quick_tools(vault, hasher)
        link = broker.link("auth")
        service = Service(
            routes, link, inbox, lambda call: deps_of(call, tools), registry=CollectorRegistry()
        )
        await service.start()
        async with (
            _gateway(broker, vault, redis, clock) as here,
            _gateway(broker, vault, redis, clock) as there,
        ):
            password = vault.seal(PASSWORD, "auth.password")
            await here.requester.ask(
                SetUp(name="ann", email="ann@example.org", password=password),
                Caller(id=uuid7(), request_id="r"),
            )
            yield World(here, there, clock, db)
        await service.stop(5)
    broker.close()
    await redis.aclose()
    await db.close()


async def until(what: Callable[[], Awaitable[bool]]) -> None:
    end = time.monotonic() + PATIENCE
    while not await what():
        assert time.monotonic() < end
        await asyncio.sleep(0.01)


async def forgotten(gateway: Gateway, given: str) -> None:
    """Return when the gateway has heard that the session of a cookie is over."""

    async def unknown() -> bool:
        request = incoming(given)
        return gateway.callers.at_once(request.headers, request.peer) is None

    await until(unknown)


async def test_two_gateways_that_renew_at_once_agree_and_sign_nobody_out(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(browser, "EARLY_SECONDS", TOKEN_SECONDS)  # as soon as half of a token's life is over
    given = await world.here.sign_in()
    world.clock.now += TOKEN_SECONDS / 2
    for renewals in range(1, 6):
        world.clock.now += 2
        both = [world.here, world.there]
        people = await asyncio.gather(*(both[n % 2].who(given) for n in range(40)))
        assert {person.kind for person in people} == {"user"}
        assert await world.refreshed() == renewals


async def test_signing_out_here_signs_out_there_at_once(world: World) -> None:
    given = await world.here.sign_in()
    person = await world.there.who(given)
    assert person.kind == "user"
    await world.here.sign_out(given)
    assert await world.here.who(given) == ANONYMOUS
    await forgotten(world.there, given)
    assert await world.there.who(given) == ANONYMOUS


@pytest.mark.parametrize("by", ["a new password", "signing out everywhere"])
async def test_other_browsers_of_a_person_are_signed_out_at_once(world: World, by: str) -> None:
    mine, other = await world.here.sign_in(), await world.there.sign_in()
    me, _ = await world.here.who(mine), await world.there.who(other)
    seal = world.here.vault.seal
    password, before = seal(ANOTHER, "auth.password"), seal(PASSWORD, "auth.password")
    changed = ChangeMe(password=password, current_password=before)
    message = changed if by == "a new password" else EndOtherSessions()
    await world.here.requester.ask(message, world.here.as_person(me))
    await forgotten(world.there, other)
    assert await world.there.who(other) == ANONYMOUS
    assert (await world.here.who(mine)).kind == "user"


async def test_an_event_that_was_lost_is_made_up_for_by_asking(world: World) -> None:
    mine, other = await world.here.sign_in(), await world.there.sign_in()
    me, _ = await world.here.who(mine), await world.there.who(other)
    world.there.callers.drop_sessions = lambda ids: None  # type: ignore[method-assign]
    await world.here.requester.ask(EndOtherSessions(), world.here.as_person(me))
    assert (await world.there.who(other)).kind == "user"
    del world.there.callers.drop_sessions  # type: ignore[method-assign]
    await world.there.callers.learn_signing_keys()
    assert await world.there.who(other) == ANONYMOUS


async def test_a_new_sign_in_of_a_browser_ends_its_session_before(world: World) -> None:
    first = await world.here.sign_in()
    await world.here.who(first)
    second = await world.here.sign_in(first)
    person = await world.here.who(second)

    async def is_one() -> bool:
        found = await world.here.requester.ask(ListSessions(), world.here.as_person(person))
        return len(found.items) == 1

    await until(is_one)
    assert await world.there.who(first) == ANONYMOUS
