"""R17: the command queue is deleted while running; unprotected, what is in no queue counts as published."""

from __future__ import annotations

import asyncio

from tests.faults.alerts import told_of
from tests.faults.row import Bare, Row
from tests.faults.scene import Scene, percentile

ALERT_SECONDS = 10
AT_ONCE_SECONDS = 0.5


async def broken(scene: Scene) -> None:
    """Somebody deletes it by mistake; the launcher makes it again and the services take from it."""
    path = f"queues/{scene.posthouse.virtual_host}/ingest"
    alerts = []
    for _ in range(scene.runs):

        async def delete() -> None:
            await scene.posthouse.management("DELETE", path)
            alerts.append(asyncio.create_task(told_of(scene, "ingest", ALERT_SECONDS + 1)))

        await scene.strike("queue ingest deleted", delete, promise="stored")
        await scene.posthouse.ready()
    refused = [one for one in scene.devices.samples if one.status in (503, 504)]
    scene.figure("refused meanwhile", len(refused))
    at_once = [one.seconds for one in refused if one.status == 503]
    scene.figure("p99 of 503 s", percentile(at_once, 0.99), AT_ONCE_SECONDS)
    scene.figure("alert after s, worst", max(await asyncio.gather(*alerts)), ALERT_SECONDS)
    scene.recovery(10)


ROW = Row(
    "R17",
    "queue deleted, its messages unroutable",
    broken,
    Bare("not mandatory", {"FAULTS_IN": "services.gateway", "FAULTS_MANDATORY": "off"}),
    faults=3,
    each=14,
)
