"""R22: a message that ends every process that takes it, with others around it."""

from __future__ import annotations

import time

from tests.faults.row import Row
from tests.faults.rows.r21 import POISON, send_poison
from tests.faults.scene import Scene
from tests.journeys.instance import until_it_is


async def broken(scene: Scene) -> None:
    """Five processes die of it, then it lies among the dead letters, alone."""
    took = []

    async def poison() -> None:
        dead = await scene.posthouse.depth("dead.ingest")
        began = time.monotonic()
        answer = await send_poison(scene, "kills", "respond-async")
        assert answer.status == 202, answer

        async def is_buried() -> bool:
            return await scene.posthouse.depth("dead.ingest") > dead

        await until_it_is(is_buried, "it is among the dead letters", 120)
        took.append(time.monotonic() - began)

    for _ in range(scene.runs):
        await scene.strike("a message that kills", poison, promise="stored", lasts=True)
        await scene.posthouse.ready()
    scene.figure("buried after s, worst", max(took))
    scene.recovery(10)


ROW = Row("R22", "a message that kills its process", broken, None, faults=2, environment=POISON, dead=1)
