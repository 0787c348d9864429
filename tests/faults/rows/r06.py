"""R6: Redis is killed; tokens that are good stay good, and those that were ended stay ended."""

from __future__ import annotations

import asyncio

from tests.faults.row import Row
from tests.faults.scene import Scene, percentile
from tests.faults.wire import Wire
from tests.journeys.instance import NAMED

DOWN_SECONDS = 8


async def broken(scene: Scene) -> None:
    """Down for a while, empty when it is back; asked with an ended token all the time."""
    ended = await _ended_token(scene)
    accepted, refused_logins, normal = 0, 0, []
    for _ in range(scene.runs):
        await scene.loaded()
        normal += [one.seconds for one in scene.devices.samples[-1500:]]
        down = asyncio.create_task(
            scene.strike(
                f"redis down {DOWN_SECONDS} s", lambda: scene.keep_down("redis", DOWN_SECONDS), lasts=True
            )
        )
        while not down.done():
            accepted += await _status(scene, ended) != 401
            refused_logins += await _sign_in(scene) != 201
            await asyncio.sleep(0.5)
        await down
    meanwhile = [one for fault in scene.faults for one in scene.during(fault)]
    scene.figure("ended tokens accepted", accepted, 0)
    scene.figure("sign-ins refused", refused_logins, 0)
    scene.figure("requests refused meanwhile", sum(one.status not in (201, 202) for one in meanwhile), 0)
    usual = percentile(normal, 0.99)
    scene.figure("p99 meanwhile s", percentile([one.seconds for one in meanwhile], 0.99), max(2 * usual, 0.5))
    scene.figure("p99 before s", usual)


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


ROW = Row("R6", "Redis away 8 s", broken, None, faults=5, environment={"POSTHOUSE_RATE_SIGN_IN": "0"})
