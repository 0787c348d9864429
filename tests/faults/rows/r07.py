"""R7: auth is away, once for half a minute; tokens and keys that are known go on."""

from __future__ import annotations

import asyncio
import time

from tests.faults.row import Row
from tests.faults.scene import Scene
from tests.faults.wire import Answer, Wire
from tests.journeys.instance import NAMED

LONG_SECONDS, SHORT_SECONDS = 30, 3
PATIENCE_SECONDS = 2


async def broken(scene: Scene) -> None:
    """Away, while somebody tries to sign in all the time."""
    answers: list[tuple[int, float]] = []
    for number in range(scene.runs):
        seconds = SHORT_SECONDS if number else LONG_SECONDS
        down = asyncio.create_task(
            scene.strike(
                f"auth down {seconds} s", lambda seconds=seconds: scene.keep_down("auth", seconds), lasts=True
            )
        )
        await _try(scene, down, answers)
        await down
        await scene.posthouse.ready()
    meanwhile = [one for fault in scene.faults for one in scene.during(fault)]
    refused = [one for one in meanwhile if one.status not in (201, 202)]
    scene.figure("requests meanwhile", len(meanwhile))
    scene.figure("of them refused", len(refused), 0)
    scene.figure("sign-ins tried", len(answers))
    scene.figure("slowest of them s", max((took for _, took in answers), default=0), PATIENCE_SECONDS + 0.5)
    fine = (201, 503, 504)  # 504: it was sent, and may yet have been done within its time
    scene.figure("other answers", sum(status not in fine for status, _ in answers), 0)


async def _try(scene: Scene, down: asyncio.Task[object], answers: list[tuple[int, float]]) -> None:
    with Wire(scene.posthouse.url) as wire:
        while not down.done():
            began = time.monotonic()
            answer: Answer = await wire.ask(
                "POST", "/v1/sessions", NAMED, {"Prefer": f"wait={PATIENCE_SECONDS}"}
            )
            answers.append((answer.status, time.monotonic() - began))
            await asyncio.sleep(0.5)


ROW = Row("R7", "auth away 30 s, then 3 s each", broken, None, environment={"POSTHOUSE_RATE_SIGN_IN": "0"})
