"""Limits that processes share hold together, in Redis and while it is away."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Awaitable, Callable
from urllib.parse import urlsplit

import pytest
from redis.asyncio import Redis

from shared import cache, limits
from shared.limits import Limit, Limiter, Verdict, parse_limit
from tests.line import Line

FIVE = Limit("five", 5, 1_000.0)
QUICK = Limit("quick", 2, 0.2)
PATIENCE = 10.0


@pytest.fixture(params=["redis", "this process"])
def limiter(request: pytest.FixtureRequest, redis: Redis) -> Limiter:
    return Limiter(redis if request.param == "redis" else None, prefix())


def prefix() -> str:
    return f"test:{secrets.token_hex(6)}"


async def until(what: Callable[[], Awaitable[bool]]) -> float:
    """The seconds until it was true."""
    began = time.monotonic()
    while not await what():
        assert time.monotonic() - began < PATIENCE
        await asyncio.sleep(0.01)
    return time.monotonic() - began


async def test_so_many_at_once_and_no_more(limiter: Limiter) -> None:
    verdicts = [await limiter.take(FIVE, "ann") for _ in range(7)]
    assert [verdict.allowed for verdict in verdicts] == [True] * 5 + [False] * 2
    assert [verdict.remaining for verdict in verdicts] == [4, 3, 2, 1, 0, 0, 0]
    assert verdicts[4].retry_after == 0
    assert verdicts[5].retry_after == pytest.approx(200, abs=1)
    assert verdicts[5].reset_after == pytest.approx(1_000, abs=1)
    assert (await limiter.take(FIVE, "bob")).allowed


async def test_one_comes_back_at_a_time(limiter: Limiter) -> None:
    assert [(await limiter.take(QUICK, "k")).allowed for _ in range(3)] == [True, True, False]

    async def allowed() -> bool:
        return (await limiter.take(QUICK, "k")).allowed

    assert await until(allowed) > 0.05
    assert not await allowed()


async def test_a_look_takes_nothing_and_what_was_taken_can_be_given_back(limiter: Limiter) -> None:
    await limiter.take(FIVE, "k", 4)
    assert (await limiter.take(FIVE, "k", 0)).remaining == 1
    assert (await limiter.take(FIVE, "k", 0)).remaining == 1
    assert (await limiter.take(FIVE, "k", -2)).remaining == 3
    assert (await limiter.take(FIVE, "k", -9)).remaining == 5
    assert (await limiter.take(FIVE, "k", 5)).allowed


async def test_several_are_all_or_none_and_some_are_what_is_left(limiter: Limiter) -> None:
    assert (await limiter.take(FIVE, "k", 3)).granted == 3
    refused = await limiter.take(FIVE, "k", 3)
    assert (refused.allowed, refused.granted, refused.remaining) == (False, 0, 2)
    assert (await limiter.take_some(FIVE, "k", 3)).granted == 2
    assert not (await limiter.take_some(FIVE, "k", 3)).allowed
    assert not (await limiter.take(FIVE, "other", 6)).allowed


async def test_two_processes_at_once_grant_exactly_the_burst(redis_url: str) -> None:
    limit, name = Limit("many", 100, 1_000.0), prefix()
    # All the time a busy machine may need: who does not hear from Redis counts alone, and grants more.
    async with cache.connect(redis_url, client_name="test", seconds=30.0) as redis:
        both = [Limiter(redis, name, seconds=30.0) for _ in range(2)]
        verdicts = await asyncio.gather(*(both[n % 2].take(limit, "k") for n in range(400)))
    assert sum(verdict.allowed for verdict in verdicts) == 100


async def test_a_key_tells_nothing_and_goes_by_itself(redis: Redis) -> None:
    name = prefix()
    await Limiter(redis, name).take(FIVE, "ann@example.org", 2)
    (key,) = [key async for key in redis.scan_iter(f"{name}:*")]
    assert b"ann" not in key
    assert 0 < await redis.pttl(key) <= 400_000


async def test_redis_away_is_counted_here_from_what_was_seen_and_asked_again(
    redis: Redis, line: Line, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "AGAIN_SECONDS", 0.1)
    name = prefix()
    limiter, other = Limiter(redis, name), Limiter(redis, name)
    await limiter.take(FIVE, "k", 3)
    await line.close()
    assert [(await limiter.take(FIVE, "k")).allowed for _ in range(3)] == [True, True, False]
    assert [(await limiter.take(FIVE, "new")).allowed for _ in range(6)] == [True] * 5 + [False]
    await line.open()

    async def together() -> bool:
        return await other_sees(limiter, other)

    await until(together)


async def other_sees(limiter: Limiter, other: Limiter) -> bool:
    """Whether what one takes another one misses."""
    key = secrets.token_hex(4)
    await limiter.take(FIVE, key, 2)
    return (await other.take(FIVE, key, 0)).remaining == 3


async def test_a_redis_that_hangs_holds_nobody_for_long(redis: Redis, line: Line) -> None:
    limiter = Limiter(redis, prefix(), seconds=0.2)
    await limiter.take(FIVE, "k")
    line.freeze()
    began = time.monotonic()
    verdicts = [await limiter.take(FIVE, "k") for _ in range(5)]
    assert time.monotonic() - began < 1.0
    assert [verdict.allowed for verdict in verdicts] == [True] * 4 + [False]
    line.thaw()


async def test_a_redis_that_refuses_us_is_no_reason_to_fail(redis_url: str) -> None:
    redis = cache.connect(urlsplit(redis_url)._replace(query="db=-1").geturl(), client_name="test")
    verdict = await Limiter(redis, prefix()).take(FIVE, "k")
    assert verdict.allowed
    await redis.aclose()


async def test_a_server_that_forgot_the_script_is_told_again(redis: Redis) -> None:
    limiter = Limiter(redis, prefix())
    await limiter.take(FIVE, "k")
    await redis.script_flush()
    assert (await limiter.take(FIVE, "k")).remaining == 3


async def test_memory_of_this_process_is_bounded_and_keeps_who_comes_often(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(limits, "MOST_KEYS", 10)
    limiter = Limiter(None, prefix())
    for number in range(50):
        await limiter.take(FIVE, f"guess {number}")
        await limiter.take(FIVE, "busy")
    assert not (await limiter.take(FIVE, "busy")).allowed
    assert (await limiter.take(FIVE, "guess 1", 0)).remaining == 5


@pytest.mark.parametrize("text", ["5", "x/1", "0/1", "-1/1", "1/0", "1/-1", "1/inf", "1/nan", "/", "1/"])
def test_a_limit_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        parse_limit("x", text)


def test_a_limit_is_read_and_can_be_off() -> None:
    assert parse_limit("x", "60/30") == Limit("x", 60, 30.0)
    assert parse_limit("x", "") is None
    assert parse_limit("x", "0") is None
    assert Verdict(True, 1, 0.0, 0.0).granted == 0
