"""S10: guessing a password costs the guesser, not the owner, and nobody else waits for it."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace
from typing import Any, Literal

import pytest
from argon2 import PasswordHasher

from services.auth.throttle import Attempt, Throttle, Ticket
from shared.limits import Limiter
from shared.vault import Vault
from tests.faults.town import PASSWORD, Said, Town, samples, town
from tests.servers import Place, cloned_database

pytestmark = pytest.mark.timeout(600)

AT_ONCE = 32  # fewer than may wait for a place, so that only limits refuse
ADDRESSES = 1_000
HOME = "192.0.2.77"
WRONG = "twelve purple kettles"


class CountingArgon2(PasswordHasher):
    """Costs what it costs in production and knows how often it was asked."""

    def __init__(self) -> None:
        super().__init__(memory_cost=19_456, time_cost=2, parallelism=1)
        self.verified = 0

    def verify(self, hash: str | bytes, password: str | bytes) -> Literal[True]:
        self.verified += 1
        return super().verify(hash, password)


@pytest.fixture(scope="module")
def argon2() -> CountingArgon2:
    return CountingArgon2()


@pytest.fixture(scope="module")
async def place(
    argon2: CountingArgon2,
    database_template: Place,
    vault: Vault,
    amqp_url: str,
    management_url: str,
    redis_url: str,
) -> AsyncIterator[Town]:
    async with (
        cloned_database(database_template) as database,
        town(database, vault, amqp_url, management_url, redis_url, argon2) as opened,
    ):
        await opened.set_up()
        yield opened


async def try_to_sign_in(
    place: Town, name: str, password: str, address: str, door: int = 0, device: str = ""
) -> Said:
    body = {"name": name, "password": password, "device_token": device}
    return await place.ask("POST", "/v1/sessions", body, door=door, address=address)


async def crowd(tries: int, attempt: Callable[[int], Awaitable[Said]]) -> Counter[int]:
    """As many attempts, some at a time; how they were answered."""
    numbers = iter(range(tries))
    statuses: Counter[int] = Counter()

    async def one() -> None:
        for number in numbers:
            statuses[(await attempt(number)).status] += 1

    await asyncio.gather(*(one() for _ in range(AT_ONCE)))
    return statuses


def address(number: int) -> str:
    """One of a thousand."""
    return f"198.51.{100 + number % ADDRESSES // 250}.{number % 250}"


async def test_ten_thousand_guesses_get_a_hundred_verifications_and_the_owner_gets_in(
    place: Town, argon2: CountingArgon2
) -> None:
    tokens = await place.sign_in(address=HOME)
    tries = samples(1_000)
    argon2.verified = 0

    async def attempt(number: int) -> Said:
        name = "ann@example.org" if number % 2 else "ann"
        return await try_to_sign_in(place, name, WRONG, address(number), number % 2)

    statuses = await crowd(tries, attempt)
    verified = argon2.verified
    device = tokens["device_token"]
    there = await try_to_sign_in(place, "ann", PASSWORD, "203.0.113.5", device=device)
    home = await try_to_sign_in(place, "ann", PASSWORD, HOME)
    stranger = await try_to_sign_in(place, "ann", PASSWORD, "203.0.113.6")
    print(
        f"S10 one account: {tries} guesses from {min(tries, ADDRESSES)} addresses, {verified} verifications,"
        f" answers {dict(statuses)}; its owner on a known device {there.status}, at home {home.status},"
        f" elsewhere {stranger.status}"
    )
    assert verified <= 100
    assert statuses[429] == tries - verified
    assert (there.status, home.status) == (201, 201)


async def test_one_password_on_many_accounts_gets_no_further_from_one_address(
    place: Town, argon2: CountingArgon2
) -> None:
    tries = samples(1_000)
    argon2.verified = 0
    statuses = await crowd(tries, lambda n: try_to_sign_in(place, f"person-{n}", WRONG, "203.0.113.66"))
    print(f"S10 one address: {tries} accounts, {argon2.verified} verifications, answers {dict(statuses)}")
    assert argon2.verified <= 150


async def test_while_everybody_is_guessed_at_others_are_served(place: Town, argon2: CountingArgon2) -> None:
    """From a thousand addresses on as many accounts, so that every worker is busy all the time."""
    tokens = await place.sign_in(address=HOME)
    guesses = samples(1_000) // 10
    rest = await measured(place, tokens, asyncio.sleep(0.5))
    argon2.verified = 0
    attack = crowd(guesses, lambda n: try_to_sign_in(place, f"nobody-{n}", WRONG, address(n), n % 2))
    busy = await measured(place, tokens, attack)
    print(
        f"S10 others: {argon2.verified} verifications meanwhile; p99 of a query {p99(rest[0]):.1f} ms at"
        f" rest, {p99(busy[0]):.1f} ms under attack; of a refresh {p99(rest[1]):.1f}, {p99(busy[1]):.1f} ms"
    )
    assert argon2.verified > 0
    assert {said.status for said in (*busy[0], *busy[1])} == {200}


async def measured(
    place: Town, tokens: dict[str, Any], meanwhile: Awaitable[Any]
) -> tuple[list[Said], list[Said]]:
    """Queries and refreshes of somebody who is signed in, one after the other until `meanwhile` is over."""
    queries, refreshes = [], []
    task = asyncio.ensure_future(meanwhile)
    while not task.done():
        queries.append(await place.ask("GET", "/v1/me", token=tokens["access_token"]))
        body = {"refresh_token": tokens["refresh_token"]}
        refreshes.append(await place.ask("POST", "/v1/sessions/refresh", body))
        tokens |= refreshes[-1].body
    await task
    return queries, refreshes


def p99(said: list[Said]) -> float:
    """Milliseconds."""
    return sorted(each.seconds for each in said)[int(len(said) * 0.99)] * 1000


async def test_without_redis_each_process_counts_for_itself(place: Town, argon2: CountingArgon2) -> None:
    before = place.tools[0]
    place.tools[0] = replace(before, throttle=Throttle(Limiter(None, "alone")))
    argon2.verified = 0
    statuses = await crowd(300, lambda n: try_to_sign_in(place, "ann", WRONG, address(n)))
    place.tools[0] = before
    print(f"S10 without Redis: 300 guesses, {argon2.verified} verifications, answers {dict(statuses)}")
    assert argon2.verified <= 100


class Unlimited(Throttle):
    """Lets everybody try."""

    async def enter(self, attempt: Attempt) -> Ticket:
        """Without counting."""
        return Ticket(())


async def test_without_limits_every_guess_is_verified(place: Town, argon2: CountingArgon2) -> None:
    """The same attempt with the protection off, so that the figures above mean something."""
    before = place.tools[0]
    place.tools[0] = replace(before, throttle=Unlimited(Limiter(None, "none")))
    argon2.verified = 0
    began = time.perf_counter()
    await crowd(110, lambda n: try_to_sign_in(place, "ann", WRONG, address(n)))
    place.tools[0] = before
    seconds = time.perf_counter() - began
    print(f"S10 without limits: 110 guesses, {argon2.verified} verifications in {seconds:.1f} s")
    assert argon2.verified == 110
