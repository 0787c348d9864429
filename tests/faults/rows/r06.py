"""R6: Redis is killed and comes back empty; good tokens stay good, and those that were ended stay ended.

Unprotected, it is Redis alone that knows which sessions have ended. People sign in all the time, before and
after too, so that the two p99 are of the same load.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from dataclasses import dataclass

import redis.asyncio

from tests.faults.row import Bare, Row
from tests.faults.scene import Scene, percentile
from tests.faults.wire import Wire
from tests.journeys.instance import NAMED, until_it_is

LONG_SECONDS = 8
AFTER_SECONDS = 2.0
"""A process that was killed is started again within it."""
LEAST_P99_SECONDS = 0.25
"""Twice the usual, but what R4 allows without a server is no harm here either."""


@dataclass
class Seen:
    """What somebody saw who asked with a token that was ended, and signed in."""

    accepted: int = 0
    asked: int = 0
    sign_ins: int = 0
    refused: int = 0


async def broken(scene: Scene) -> None:
    """Down for a while once, then killed and started again; empty each time."""
    seen = Seen()
    asking = asyncio.create_task(_ask(scene, await _ended_token(scene), seen))
    try:
        for number in range(scene.runs):
            await scene.strike(
                f"redis emptied, {f'down {LONG_SECONDS} s' if not number else 'killed'}",
                lambda seconds=0 if number else LONG_SECONDS: _lose(scene, seconds),
                lasts=True,
            )
        await asyncio.sleep(AFTER_SECONDS)
    finally:
        asking.cancel()
    meanwhile = [one for fault in scene.faults for one in scene.during(fault, AFTER_SECONDS)]
    known = set(map(id, meanwhile))
    usual = percentile([one.seconds for one in scene.devices.samples if id(one) not in known], 0.99)
    scene.figure("ended token asked with", seen.asked)
    scene.figure("ended tokens accepted", seen.accepted, 0)
    scene.figure("sign-ins", seen.sign_ins)
    scene.figure("of them refused", seen.refused, 0)
    scene.figure("requests refused meanwhile", sum(one.status not in (201, 202) for one in meanwhile), 0)
    p99 = percentile([one.seconds for one in meanwhile], 0.99)
    scene.figure("p99 meanwhile s", p99, max(2 * usual, LEAST_P99_SECONDS))
    scene.figure("p99 otherwise s", usual)


async def _lose(scene: Scene, seconds: float) -> None:
    async with redis.asyncio.Redis.from_url(scene.posthouse.addresses["POSTHOUSE_REDIS_URL"]) as client:

        async def is_empty() -> bool:
            with suppress(redis.RedisError):
                return bool(await client.flushall())
            return False

        await until_it_is(is_empty, "Redis is there, and empty")
    if seconds:
        await scene.keep_down("redis", seconds)
    else:
        await scene.kill("redis")


async def _ask(scene: Scene, ended: str, seen: Seen) -> None:
    while True:
        seen.asked += 1
        seen.accepted += await _status(scene, ended) != 401
        seen.sign_ins += 1
        seen.refused += await _sign_in(scene) != 201
        await asyncio.sleep(0.5)


async def _ended_token(scene: Scene) -> str:
    made = await asyncio.to_thread(scene.posthouse.ask, "/v1/sessions", NAMED)
    token = str(made["access_token"])
    await asyncio.to_thread(scene.posthouse.ask, "/v1/sessions/current", None, token, "DELETE")
    return token


async def _status(scene: Scene, token: str) -> int:
    with Wire(scene.posthouse.url) as wire:
        return (await wire.ask("GET", "/v1/me", headers={"Authorization": f"Bearer {token}"})).status


async def _sign_in(scene: Scene) -> int:
    with Wire(scene.posthouse.url) as wire:
        return (await wire.ask("POST", "/v1/sessions", NAMED)).status


ROW = Row(
    "R6",
    "kill -9 Redis, empty when it is back",
    broken,
    Bare(
        "ended sessions known to Redis alone",
        {"FAULTS_IN": "services.gateway", "FAULTS_REVOKED": "off"},
        shows="ended tokens accepted",
        once=LONG_SECONDS,
        each=4,
    ),
    once=LONG_SECONDS,
    bare_faults=1,
    beside="R3",
    environment={"POSTHOUSE_RATE_SIGN_IN": "0"},
)
