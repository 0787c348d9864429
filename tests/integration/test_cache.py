"""Redis away is told from a bug, and many callers share few connections."""

from __future__ import annotations

import asyncio

import pytest
from redis.asyncio import Redis
from redis.exceptions import RedisError

from shared import cache
from tests.line import Line


async def test_hundreds_of_callers_wait_for_a_connection_instead_of_failing(redis_url: str) -> None:
    async with cache.connect(redis_url, client_name="test", seconds=30.0) as redis:
        assert set(await asyncio.gather(*(redis.echo("here") for _ in range(400)))) == {b"here"}


async def test_a_server_that_hangs_holds_nobody_for_ever(redis: Redis, line: Line) -> None:
    await redis.ping()
    line.freeze()
    with pytest.raises(RedisError) as hung:
        await redis.ping()
    assert cache.away(hung.value)
    line.thaw()


async def test_a_server_that_is_gone_is_away_and_back_when_it_is_back(redis: Redis, line: Line) -> None:
    await line.close()
    with pytest.raises(RedisError) as gone:
        await redis.ping()
    assert cache.away(gone.value)
    await line.open()
    assert await redis.ping()


async def test_a_server_that_was_started_again_meanwhile_is_no_failure(redis: Redis, line: Line) -> None:
    await asyncio.gather(*(redis.echo("here") for _ in range(50)))
    await line.close()
    await line.open()
    assert set(await asyncio.gather(*(redis.echo("here") for _ in range(50)))) == {b"here"}


async def test_a_bug_is_no_outage(redis: Redis) -> None:
    with pytest.raises(RedisError) as bug:
        await redis.script_load("nonsense")
    assert not cache.away(bug.value)
