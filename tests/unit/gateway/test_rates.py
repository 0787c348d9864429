"""Who calls too often is told so, and how long to wait; everybody hears what is left."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from services.gateway.http import rates
from services.gateway.http.incoming import Incoming
from services.gateway.http.problems import Turned
from services.gateway.http.proxies import Peer
from services.gateway.http.rates import SIGN_IN, Rates
from services.gateway.http.short_way import ShortWay
from shared.contracts.base import Principal
from shared.limits import Limit, Limiter, Verdict
from shared.settings import BadSettings
from shared.vault import Vault
from tests.unit.gateway.browsers import Clock, incoming
from tests.unit.gateway.door import House, open_house, settings

PERSON = Principal(kind="user", id="u1", via="s1")
WRONG = {"name": "ann", "password": "a wrong one"}


class Counted(Limiter):
    """A limiter that counts how often it is asked."""

    def __init__(self, clock: Clock) -> None:
        super().__init__(None, "test", clock=clock)
        self.asked = 0

    async def take_some(self, limit: Limit, key: str, most: int) -> Verdict:
        """As ever, after the others had their turn."""
        self.asked += 1
        await asyncio.sleep(0)
        return await super().take_some(limit, key, most)


@pytest.fixture
def clock() -> Clock:
    return Clock(1_000.0)


@pytest.fixture
def limiter(clock: Clock) -> Counted:
    return Counted(clock)


def made(limiter: Limiter, clock: Clock, **more: str) -> Rates:
    return Rates(limiter, settings(**more), clock)


def request_of(principal: Principal | None = None, address: str = "192.0.2.7") -> Incoming:
    request = incoming()
    request.client = Peer(address).client(request.headers)
    if principal is not None:
        request.principal = principal
    return request


async def admitted(rates: Rates, count: int, principal: Principal | None = None, rate: str = "") -> int:
    """How many of so many requests at once may go on."""
    requests = (rates.admit(request_of(principal), rate) for _ in range(count))
    answers = await asyncio.gather(*requests, return_exceptions=True)
    assert all(answer is None or isinstance(answer, Turned) for answer in answers), answers
    return answers.count(None)


async def test_blocks_of_permits_keep_most_requests_from_asking(limiter: Counted, clock: Clock) -> None:
    rates = made(limiter, clock, rate_callers="1000/1000")
    for _ in range(300):
        await rates.admit(request_of(PERSON))
    assert limiter.asked == 300 // 20
    assert await admitted(rates, 900, PERSON) == 700
    assert limiter.asked <= 300 // 20 + 3  # those who wait together ask together
    assert await admitted(rates, 1, Principal(kind="user", id="u2")) == 1


async def test_a_caller_who_is_refused_asks_nobody_until_there_is_something(
    limiter: Counted, clock: Clock
) -> None:
    rates = made(limiter, clock, rate_callers="2/20")
    assert await admitted(rates, 5, PERSON) == 2
    asked = limiter.asked
    assert await admitted(rates, 100, PERSON) == 0
    assert limiter.asked == asked
    clock.now += 10
    assert await admitted(rates, 5, PERSON) == 1


async def test_permits_that_were_not_used_are_not_kept_beyond_their_time(
    limiter: Counted, clock: Clock
) -> None:
    rates = made(limiter, clock, rate_callers="500/500")
    assert await admitted(rates, 1, PERSON) == 1
    clock.now += 1_000
    assert await admitted(rates, 2_000, PERSON) == 500


async def test_keys_have_a_limit_each_and_a_person_one_for_all_sessions(
    limiter: Counted, clock: Clock
) -> None:
    rates = made(limiter, clock, rate_callers="1/1000")
    for via, allowed in (("s1", 1), ("s2", 0)):
        assert await admitted(rates, 1, Principal(kind="user", id="u1", via=via)) == allowed
    for via in ("k1", "k2"):
        assert await admitted(rates, 1, Principal(kind="key", id="d1", via=via)) == 1


@pytest.mark.parametrize(
    ("first", "second", "same"),
    [
        ("192.0.2.7", "192.0.2.7", True),
        ("192.0.2.7", "192.0.2.8", False),
        ("2001:db8::1", "2001:db8::ffff:1", True),
        ("2001:db8::1", "2001:db8:0:1::1", False),
        ("", "", True),
    ],
)
async def test_addresses_are_counted_and_networks_of_one_owner(
    limiter: Counted, clock: Clock, first: str, second: str, same: bool
) -> None:
    rates = made(limiter, clock, rate_anonymous="1/1000")
    await rates.admit(request_of(address=first))
    if same:
        with pytest.raises(Turned):
            await rates.admit(request_of(address=second))
    else:
        await rates.admit(request_of(address=second))


async def test_trying_to_sign_in_is_counted_apart_and_one_by_one(limiter: Counted, clock: Clock) -> None:
    rates = made(limiter, clock, rate_anonymous="5/1000", rate_sign_in="100/1000")
    assert await admitted(rates, 9) == 5
    asked = limiter.asked
    for _ in range(20):
        await rates.admit(request_of(), SIGN_IN)
    assert limiter.asked == asked + 20
    assert await admitted(rates, 120, rate=SIGN_IN) == 80
    assert await admitted(rates, 1, PERSON, rate=SIGN_IN) == 0


async def test_without_a_limit_nothing_is_counted(limiter: Counted, clock: Clock) -> None:
    rates = made(limiter, clock, rate_anonymous="0", rate_sign_in="", rate_callers="0")
    request = request_of()
    for rate in ("", SIGN_IN):
        assert rates.at_once(request, rate)
        await rates.admit(request, rate)
    assert (limiter.asked, request.rate) == (0, None)


async def test_what_is_left_is_said(limiter: Counted, clock: Clock) -> None:
    rates = made(limiter, clock, rate_anonymous="100/50")
    request = request_of()
    await rates.admit(request)
    assert request.rate == ('"anonymous";r=99;t=1', '"anonymous";q=100;w=50')


async def test_memory_is_bounded(limiter: Counted, clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rates, "MOST_BLOCKS", 3)
    made_rates = made(limiter, clock)
    for number in range(10):
        await made_rates.admit(request_of(address=f"192.0.2.{number}"))
    assert len(made_rates._blocks) == 3


@pytest.mark.parametrize("text", ["5", "-1/1", "five/1", "1/0"])
def test_a_limit_nobody_can_read_stops_the_start(limiter: Counted, clock: Clock, text: str) -> None:
    with pytest.raises(BadSettings, match="POSTHOUSE_RATE_SIGN_IN"):
        made(limiter, clock, rate_sign_in=text)


@pytest.fixture
async def strict(vault: Vault) -> AsyncIterator[House]:
    async with open_house(
        vault, rate_sign_in="2/1000", rate_anonymous="3/1000", rate_callers="100/1000"
    ) as house:
        yield house


async def test_who_tries_too_often_is_told_when_to_come_again(strict: House) -> None:
    answers = [await strict.request("POST", "/v1/sessions", json=WRONG) for _ in range(4)]
    assert [answer.status for answer in answers] == [401, 401, 429, 429]
    assert [answer.headers["RateLimit"].partition(";t")[0] for answer in answers] == [
        '"sign-in";r=1',
        '"sign-in";r=0',
        '"sign-in";r=0',
        '"sign-in";r=0',
    ]
    refused = answers[2]
    assert refused.json["code"] == "too_many_requests"
    assert 490 <= int(refused.headers["Retry-After"]) <= 500
    assert refused.headers["RateLimit-Policy"] == '"sign-in";q=2;w=1000'
    assert (await strict.request("GET", "/v1/datasets")).status == 401


async def test_health_and_documents_are_never_refused(strict: House) -> None:
    for path in ("/healthz", "/openapi.json", "/problems/unauthorized"):
        for _ in range(10):
            answer = await strict.request("GET", path)
            assert (answer.status, "RateLimit" in answer.headers) == (200, False)


async def test_both_ways_count_and_say_the_same(strict: House, monkeypatch: pytest.MonkeyPatch) -> None:
    token = strict.services.token()
    short: list[bool] = []
    look = ShortWay.exchange

    def spy(self: ShortWay, *arguments: object) -> object:
        exchange = look(self, *arguments)  # type: ignore[arg-type]
        short.append(exchange is not None)
        return exchange

    monkeypatch.setattr(ShortWay, "exchange", spy)
    answers = [await strict.request("GET", "/v1/datasets", token=token) for _ in range(101)]
    assert [answer.status for answer in answers] == [200] * 100 + [429]
    assert [answer.headers["RateLimit"].partition(";t")[0] for answer in answers] == [
        f'"caller";r={max(99 - number, 0)}' for number in range(101)
    ]
    assert {answer.headers["RateLimit-Policy"] for answer in answers} == {'"caller";q=100;w=1000'}
    assert 40 < sum(short) < 60  # every second one has to ask for a block of two


async def test_pages_of_other_origins_may_read_the_headers(strict: House) -> None:
    answer = await strict.request("GET", "/v1/datasets", headers={"Origin": "https://app.test"})
    exposed = answer.headers["Access-Control-Expose-Headers"].split(", ")
    assert {"RateLimit", "RateLimit-Policy", "Retry-After"} <= set(exposed)
