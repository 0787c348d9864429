"""Sessions of browsers: what a cookie is worth, how it is renewed and ended, and Redis away."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Callable
from hashlib import sha256

import pytest
from redis.asyncio import Redis

from services.gateway.browser import LIFE_SECONDS, BrowserSessions
from services.gateway.http.app import make_app
from services.gateway.http.gateway import GATEWAY
from services.gateway.http.server import Door
from services.gateway.session import Callers
from services.gateway.tokens import AccessTokens
from shared.bus.requests import OutcomeUnknown, Unavailable
from shared.contracts.auth import EndSession, RefreshSession
from shared.contracts.base import ANONYMOUS, Principal
from shared.errors import TooMany
from shared.limits import Limiter
from shared.vault import Vault
from tests.line import Line
from tests.unit.gateway.browsers import TOKEN_SECONDS, Auth, Clock, attributes, cookie, incoming
from tests.unit.gateway.door import House, settings

Make = Callable[..., BrowserSessions]


@pytest.fixture
def clock() -> Clock:
    return Clock(time.time())


@pytest.fixture
def auth(vault: Vault, clock: Clock) -> Auth:
    return Auth(vault, clock)


@pytest.fixture
def make(auth: Auth, vault: Vault, clock: Clock, redis: Redis) -> Make:
    """A gateway's browsers; each call is another process."""

    def make(vault: Vault = vault, public_url: str = "") -> BrowserSessions:
        tokens = AccessTokens(auth, clock)
        return BrowserSessions(auth, vault, tokens, redis, public_url=public_url, clock=clock)

    return make


@pytest.fixture
def browser(make: Make) -> BrowserSessions:
    return make()


async def signed_in(browser: BrowserSessions, auth: Auth) -> str:
    """The cookie of somebody who has signed in."""
    return cookie(await browser.open(incoming(), auth.open()))


async def caller(browser: BrowserSessions, *cookies: str) -> Principal:
    request = incoming(*cookies)
    return await browser.identify(request.headers, request.peer)


def at_once(browser: BrowserSessions, *cookies: str) -> Principal | None:
    request = incoming(*cookies)
    return browser.at_once(request.headers, request.peer)


def key_of(given: str) -> str:
    return f"browser:{sha256(given.partition('=')[2].encode()).hexdigest()}"


async def test_a_cookie_stands_for_the_person_until_it_is_closed(
    browser: BrowserSessions, auth: Auth
) -> None:
    given = await signed_in(browser, auth)
    assert at_once(browser, given) is None
    person = await caller(browser, "theme=dark", given)
    assert (person.kind, person.id) == ("user", "u1")
    assert at_once(browser, given) == person
    closed = await browser.close(incoming(given))
    assert attributes(closed)["value"] == ""
    assert "Max-Age=0" in closed
    assert auth.ended == [person.via]
    assert await caller(browser, given) == ANONYMOUS


@pytest.mark.parametrize(
    ("is_tls", "public_url", "name", "end"),
    [
        (False, "", "posthouse", "SameSite=Lax"),
        (True, "", "__Host-posthouse", "SameSite=Lax; Secure"),
        (False, "https://home.test", "__Host-posthouse", "SameSite=Lax; Secure"),
    ],
)
async def test_no_script_no_other_site_and_behind_tls_no_plain_connection_gets_the_cookie(
    make: Make, auth: Auth, is_tls: bool, public_url: str, name: str, end: str
) -> None:
    browser = make(public_url=public_url)
    answered = await browser.open(incoming(is_tls=is_tls), auth.open())
    parts = attributes(answered)
    assert parts["name"] == name
    assert len(parts["value"]) == 43
    assert parts["attributes"] == f"Path=/; Max-Age=604800; HttpOnly; {end}"
    request = incoming(cookie(answered), is_tls=is_tls)
    assert (await browser.identify(request.headers, request.peer)).kind == "user"


async def test_behind_tls_a_cookie_of_a_plain_connection_opens_nothing(make: Make, auth: Auth) -> None:
    browser = make()
    given = await signed_in(browser, auth)
    request = incoming(given, is_tls=True)
    assert await browser.identify(request.headers, request.peer) == ANONYMOUS


async def test_redis_holds_nothing_that_opens_anything(
    browser: BrowserSessions, auth: Auth, redis: Redis
) -> None:
    opened = auth.open()
    given = cookie(await browser.open(incoming(), opened))
    (stored,) = [key async for key in redis.scan_iter(f"{key_of(given)}*")]
    kept = stored + (await redis.get(stored) or b"")
    told = [
        given.partition("=")[2],
        auth.vault.unseal(opened.access_token, "auth.token"),
        auth.vault.unseal(opened.refresh_token, "auth.refresh"),
        "u1",
    ]
    assert not [secret for secret in told if secret.encode() in kept]
    assert LIFE_SECONDS - 60 < await redis.ttl(stored) <= LIFE_SECONDS


async def test_every_sign_in_has_a_new_id_and_ends_what_the_browser_had(
    browser: BrowserSessions, auth: Auth, redis: Redis
) -> None:
    first = await signed_in(browser, auth)
    before = await caller(browser, first)
    second = cookie(await browser.open(incoming(first), auth.open()))
    assert second != first
    assert await caller(browser, first) == ANONYMOUS
    assert auth.ended == [before.via]
    assert not await redis.exists(key_of(first))
    assert (await caller(browser, second)).kind == "user"


async def test_a_sign_in_that_was_sent_twice_signs_nobody_out(
    browser: BrowserSessions, make: Make, auth: Auth, clock: Clock
) -> None:
    opened = auth.open()
    first = cookie(await browser.open(incoming(), opened))
    second = cookie(await browser.open(incoming(first), opened))
    third = cookie(await make().open(incoming(), opened))
    assert auth.ended == []
    assert await caller(browser, first) == ANONYMOUS
    for _ in range(3):
        clock.now += TOKEN_SECONDS
        assert (await caller(browser, second)).kind == "user"
        assert (await caller(make(), third)).kind == "user"


async def test_an_id_that_was_chosen_for_the_browser_is_never_used(
    browser: BrowserSessions, auth: Auth
) -> None:
    chosen = f"posthouse={'a' * 43}"
    given = cookie(await browser.open(incoming(chosen), auth.open()))
    assert given != chosen
    assert await caller(browser, chosen) == ANONYMOUS


@pytest.mark.parametrize("value", ["", "x", "a" * 42, "a" * 43, "a" * 44, "a" * 42 + "é", "a" * 9_000, '"'])
async def test_an_invented_cookie_is_nobody(browser: BrowserSessions, value: str) -> None:
    assert await caller(browser, f"posthouse={value}") == ANONYMOUS


async def test_of_two_cookies_of_the_name_none_counts(browser: BrowserSessions, auth: Auth) -> None:
    given = await signed_in(browser, auth)
    assert await caller(browser, given, f"posthouse={'a' * 43}") == ANONYMOUS
    assert (await caller(browser, given, f"my_posthouse={'a' * 43}")).kind == "user"


async def test_a_record_opens_under_its_own_name_and_key_only(
    browser: BrowserSessions, make: Make, auth: Auth, redis: Redis
) -> None:
    mine, other = await signed_in(browser, auth), await signed_in(browser, auth)
    await redis.set(key_of(mine), await redis.get(key_of(other)) or b"")
    assert await caller(browser, mine) == ANONYMOUS
    await redis.set(key_of(mine), b"rubbish")
    assert await caller(browser, mine) == ANONYMOUS
    assert await caller(make(Vault("A" * 43)), other) == ANONYMOUS


async def test_a_hundred_requests_at_the_end_of_a_token_renew_it_once(
    browser: BrowserSessions, auth: Auth, clock: Clock
) -> None:
    given = await signed_in(browser, auth)
    clock.now += TOKEN_SECONDS - 20
    people = await asyncio.gather(*(caller(browser, given) for _ in range(100)))
    assert {person.kind for person in people} == {"user"}
    assert auth.rotations == 1
    assert at_once(browser, given) == people[0]


async def test_two_gateways_that_renew_at_once_sign_nobody_out(make: Make, auth: Auth, clock: Clock) -> None:
    here, there = make(), make()
    given = await signed_in(here, auth)
    for rotation in range(1, 21):
        clock.now += TOKEN_SECONDS + 1
        people = await asyncio.gather(*(caller(here if n % 2 else there, given) for n in range(50)))
        assert {person.kind for person in people} == {"user"}
        assert auth.rotations == rotation
    assert (
        len({message.refresh_token for message, _ in auth.asked if isinstance(message, RefreshSession)}) == 20
    )


async def test_a_lost_answer_signs_nobody_out_however_late_it_is_asked_again(
    browser: BrowserSessions, auth: Auth, clock: Clock
) -> None:
    given = await signed_in(browser, auth)
    clock.now += TOKEN_SECONDS - 20
    auth.losing = [OutcomeUnknown()]
    assert (await caller(browser, given)).kind == "user"
    assert auth.rotations == 1
    clock.now += 3_600
    assert (await caller(browser, given)).kind == "user"
    assert auth.rotations == 2


async def test_a_record_that_redis_lost_signs_nobody_out(
    browser: BrowserSessions, auth: Auth, clock: Clock, redis: Redis
) -> None:
    given = await signed_in(browser, auth)
    before = await redis.get(key_of(given)) or b""
    for _ in range(3):
        clock.now += TOKEN_SECONDS
        await caller(browser, given)
    await redis.set(key_of(given), before, keepttl=True)
    clock.now += TOKEN_SECONDS
    assert (await caller(browser, given)).kind == "user"
    assert auth.rotations == 4


async def test_a_session_that_auth_has_ended_is_over_when_its_token_is(
    browser: BrowserSessions, auth: Auth, clock: Clock, redis: Redis
) -> None:
    given = await signed_in(browser, auth)
    assert (await caller(browser, given)).kind == "user"
    auth.sessions.clear()
    clock.now += TOKEN_SECONDS
    assert at_once(browser, given) is None
    assert await caller(browser, given) == ANONYMOUS
    assert not await redis.exists(key_of(given))


async def test_while_auth_is_away_a_token_is_good_until_its_end(
    browser: BrowserSessions, auth: Auth, clock: Clock
) -> None:
    given = await signed_in(browser, auth)
    clock.now += TOKEN_SECONDS - 20
    for failure in (Unavailable("away"), TooMany("slower")):
        auth.failing[RefreshSession.topic] = failure
        assert (await caller(browser, given)).kind == "user"
    clock.now += 21
    with pytest.raises(Unavailable):
        await caller(browser, given)
    auth.failing.clear()
    assert (await caller(browser, given)).kind == "user"


async def test_after_seven_days_it_is_over(browser: BrowserSessions, auth: Auth, clock: Clock) -> None:
    given = await signed_in(browser, auth)
    clock.now += LIFE_SECONDS - 1
    assert (await caller(browser, given)).kind == "user"
    clock.now += 2
    assert at_once(browser, given) is None
    assert await caller(browser, given) == ANONYMOUS


async def test_signing_out_during_a_renewal_lasts(
    browser: BrowserSessions, make: Make, auth: Auth, clock: Clock
) -> None:
    given = await signed_in(browser, auth)
    clock.now += TOKEN_SECONDS
    auth.hold = asyncio.Event()
    renewing = asyncio.create_task(caller(browser, given))
    await auth.holding.wait()
    await make().close(incoming(given))
    auth.hold.set()
    assert await renewing == ANONYMOUS
    assert await caller(browser, given) == ANONYMOUS


async def test_when_a_session_ends_everywhere_its_browsers_are_nobody_at_once(
    make: Make, auth: Auth, vault: Vault, clock: Clock, redis: Redis
) -> None:
    tokens = AccessTokens(auth, clock)
    browser = BrowserSessions(auth, vault, tokens, redis, clock=clock)
    callers = Callers(auth, vault, clock, tokens=tokens, browser=browser)
    mine, other = await signed_in(browser, auth), await signed_in(browser, auth)
    person = await caller(browser, mine)
    await caller(browser, other)
    token = {"Authorization": f"Bearer {auth.token(sid=person.via)}"}
    assert (await callers.identify(token)).kind == "user"
    callers.drop_sessions([person.via])
    assert at_once(browser, mine) is None
    assert await caller(browser, mine) == ANONYMOUS
    assert not await redis.exists(key_of(mine))
    assert callers.at_once(token) is None
    with pytest.raises(Exception, match="has ended"):
        await callers.identify(token)
    assert at_once(browser, other) is not None


async def test_redis_away_keeps_who_is_known_for_a_minute_and_nobody_else(
    browser: BrowserSessions, make: Make, auth: Auth, clock: Clock, line: Line
) -> None:
    known, other = await signed_in(browser, auth), await signed_in(browser, auth)
    person = await caller(browser, known)
    await line.close()
    assert at_once(browser, known) == person
    with pytest.raises(Unavailable):
        await caller(browser, other)
    with pytest.raises(Unavailable):
        await signed_in(browser, auth)
    assert len(auth.ended) == 1  # nobody has the tokens of that session
    clock.now += 61
    assert at_once(browser, known) is None
    with pytest.raises(Unavailable):
        await caller(browser, known)
    await line.open()
    assert (await caller(browser, known)).kind == "user"


async def test_signing_out_works_while_redis_is_away_if_auth_hears_of_it(
    browser: BrowserSessions, make: Make, auth: Auth, line: Line, clock: Clock
) -> None:
    first, second = await signed_in(browser, auth), await signed_in(browser, auth)
    await caller(browser, first)
    person = await caller(browser, second)
    await line.close()
    await browser.close(incoming(first))
    auth.failing[EndSession.topic] = Unavailable("away")
    with pytest.raises(Unavailable):
        await browser.close(incoming(second))
    auth.failing.clear()
    await line.open()
    assert await caller(browser, first) == ANONYMOUS
    assert person.via in auth.sessions
    clock.now += TOKEN_SECONDS
    assert await caller(make(), first) == ANONYMOUS


async def test_the_door_says_503_while_redis_is_away_and_serves_everybody_else(
    make: Make, auth: Auth, vault: Vault, clock: Clock, line: Line, redis: Redis
) -> None:
    tokens = AccessTokens(auth, clock)
    browser = BrowserSessions(auth, vault, tokens, redis, clock=clock)
    callers = Callers(auth, vault, clock, tokens=tokens, browser=browser)
    chosen = settings(rate_anonymous="5/1000", rate_callers="1000/1")
    limiter = Limiter(redis, f"test:{secrets.token_hex(6)}")
    app = make_app(auth, vault, chosen, callers=callers, limiter=limiter)
    door = Door(app, chosen)
    await door.open()
    try:
        house = House(door, auth, app[GATEWAY])
        mine = {"Cookie": await signed_in(browser, auth)}
        assert (await house.request("GET", "/v1/datasets", headers=mine)).status == 200
        other = {"Cookie": await signed_in(browser, auth)}
        await line.close()
        assert (await house.request("GET", "/v1/datasets", headers=mine)).status == 200
        refused = await house.request("GET", "/v1/datasets", headers=other)
        assert (refused.status, refused.json["code"]) == (503, "unavailable")
        assert "Retry-After" in refused.headers
        assert (await house.request("GET", "/v1/datasets", token=auth.token())).status == 200
        statuses = [(await house.request("GET", "/v1/datasets")).status for _ in range(7)]
        assert statuses == [401] * 5 + [429] * 2
        await line.open()
        assert (await house.request("GET", "/v1/datasets", headers=other)).status == 200
    finally:
        await door.stop()
