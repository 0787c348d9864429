"""R7: auth is away, once for half a minute; unprotected, the gateway asks it about each token.

Who signs in waits for two seconds and is answered at their end, so the limit is a little above them; 504
says that the request had been sent, and may yet have been done within its time.
"""

from __future__ import annotations

import asyncio
import time

from tests.faults.row import Bare, Row
from tests.faults.scene import Scene
from tests.faults.wire import Wire
from tests.journeys.instance import NAMED

LONG_SECONDS, SHORT_SECONDS, BARE_SECONDS = 30, 3, 8
PATIENCE_SECONDS = 2
MOST_SECONDS = PATIENCE_SECONDS + 0.3
FINE = (200, 201, 503, 504)


async def broken(scene: Scene, long_seconds: float = LONG_SECONDS) -> None:
    """Away, while somebody signs in and refreshes all the time."""
    answers: list[tuple[str, int, float]] = []
    for number in range(scene.runs):
        seconds = SHORT_SECONDS if number else long_seconds
        down = asyncio.create_task(
            scene.strike(
                f"auth down {seconds} s", lambda seconds=seconds: scene.keep_down("auth", seconds), lasts=True
            )
        )
        await _try(scene, down, answers)
        await down
        await scene.posthouse.ready()
    meanwhile = [one for fault in scene.faults for one in scene.during(fault)]
    scene.figure("requests meanwhile", len(meanwhile))
    scene.figure("of them refused", sum(one.status not in (201, 202) for one in meanwhile), 0)
    scene.figure("sign-ins and refreshes tried", len(answers))
    scene.figure("refreshed", sum(name == "refresh" and status in (200, 201) for name, status, _ in answers))
    scene.figure("slowest of them s", max((took for _, _, took in answers), default=0), MOST_SECONDS)
    scene.figure("other answers", sum(status not in FINE for _, status, _ in answers), 0)


async def briefly(scene: Scene) -> None:
    """Long enough to show what happens."""
    await broken(scene, BARE_SECONDS)


async def _try(
    scene: Scene, down: asyncio.Task[object], answers: list[tuple[str, int, float]], refresh: str = ""
) -> None:
    """Sign in, refresh what that gave, and so on; after a failure sign in again."""
    with Wire(scene.posthouse.url) as wire:
        while not down.done():
            path = "/v1/sessions/refresh" if refresh else "/v1/sessions"
            body = {"refresh_token": refresh} if refresh else NAMED
            began = time.monotonic()
            answer = await wire.ask("POST", path, body, {"Prefer": f"wait={PATIENCE_SECONDS}"})
            name = "refresh" if refresh else "sign-in"
            answers.append((name, answer.status, time.monotonic() - began))
            is_new = answer.status == 201 and not refresh
            refresh = answer.json()["refresh_token"] if is_new else ""
            await asyncio.sleep(0.4)


ROW = Row(
    "R7",
    "auth away 30 s, then 3 s each",
    broken,
    Bare(
        "auth asked about each token",
        {"FAULTS_IN": "services.gateway", "FAULTS_KEYS": "off"},
        run=briefly,
        shows="of them refused",
        once=BARE_SECONDS,
    ),
    once=LONG_SECONDS,
    bare_faults=1,
    environment={"POSTHOUSE_RATE_SIGN_IN": "0"},
)
