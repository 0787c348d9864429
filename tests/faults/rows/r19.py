"""R19: every reply comes twice, and once more when nobody waits for it any longer.

Unprotected, a reply nobody waits for is taken by whoever has waited longest.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from tests.faults.row import Bare, Row
from tests.faults.scene import Scene
from tests.faults.wire import NoAnswer, Wire
from tests.journeys.instance import until_it_is

CALLS, FEW_CALLS = 100_000, 5_000
CALLERS = 64
LATE_SECONDS = 4.0
COUNTED_SHARE = 1.9  # of two replies to each call; what leaves while a socket is full is not sent again


@dataclass
class Asked:
    """What became of the calls."""

    left: int
    wrong: int = 0
    failed: int = 0


async def broken(scene: Scene) -> None:
    """Nothing strikes: every answer is the fault. Each must be about what was asked."""
    asked = Asked(CALLS if scene.runs >= ROW.faults else FEW_CALLS)
    calls = asked.left

    async def ask() -> None:
        await asyncio.gather(*(_ask(scene, asked, number) for number in range(CALLERS)))

    await scene.strike(f"replies to {calls} calls, each three times", ask)
    await scene.acknowledged(scene.least_acknowledged)
    await scene.devices.finish()
    scene.figure("calls", calls)
    scene.figure("answers to another call", asked.wrong, 0)
    unanswered = sum(one.status not in (201, 202) for one in scene.devices.samples)
    scene.figure("calls that failed", asked.failed + unanswered, 0)
    await asyncio.sleep(LATE_SECONDS)
    counted = await scene.metric("gateway", "posthouse_late_replies")
    scene.figure("replies for nobody, counted", counted, least=COUNTED_SHARE * calls)
    await nobody_waits(scene)


async def nobody_waits(scene: Scene) -> None:
    """When no client asks any more, the table of those who wait is empty."""

    async def is_empty() -> bool:
        return await scene.metric("gateway", "posthouse_calls_waiting") == 0

    await until_it_is(is_empty, "nobody waits for a reply", 20)
    scene.figure("calls that still wait", await scene.metric("gateway", "posthouse_calls_waiting"), 0)


async def _ask(scene: Scene, asked: Asked, number: int) -> None:
    targets = scene.devices.targets
    headers = {"Authorization": f"Bearer {scene.token}"}
    with Wire(scene.posthouse.url) as wire:
        while asked.left > 0:
            asked.left -= 1
            wanted = targets[(number + asked.left) % len(targets)].id
            try:
                answer = await wire.ask("GET", f"/v1/datasets/{wanted}", headers=headers)
            except NoAnswer:
                asked.failed += 1
                continue
            asked.failed += answer.status != 200
            asked.wrong += answer.status == 200 and answer.json()["id"] != wanted


ROW = Row(
    "R19",
    "replies twice, late, for nobody",
    broken,
    Bare(
        "replies taken in order",
        {"FAULTS_IN": "services.ingest services.gateway", "FAULTS_CORRELATION": "off"},
        shows="answers to another call",
        once=15,
        each=0,
    ),
    faults=2,
    bare_faults=1,
    once=90,
    each=0,
    environment={"FAULTS_REPLIES": "again"},
)
