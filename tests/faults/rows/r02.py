"""R2: the gateway is killed; unprotected, clients repeat without a key."""

from __future__ import annotations

import time

from tests.faults.devices import Manners
from tests.faults.row import Bare, Row
from tests.faults.scene import Scene
from tests.journeys.instance import until


async def broken(scene: Scene) -> None:
    """Kill it, see how soon after its next start a client has a promise."""
    served: list[float] = []

    async def kill() -> None:
        old = scene.posthouse.kill("gateway")
        await scene.posthouse.another("gateway", old)
        began = time.monotonic()
        await until(lambda: scene.devices.latest_answer > began, "an answer of the new gateway")
        served.append(time.monotonic() - began)

    for _ in range(scene.runs):
        await scene.strike("kill -9 gateway", kill)
    scene.figure("answers after its start s, worst", max(served), 2)
    scene.recovery(5)


ROW = Row("R2", "kill -9 gateway", broken, Bare("repeats without a key", manners=Manners(keys=False)))
