"""R17: the command queue is deleted while running; unprotected, what is in no queue counts as published."""

from __future__ import annotations

from tests.faults.row import Bare, Row
from tests.faults.scene import Scene


async def broken(scene: Scene) -> None:
    """Somebody deletes it by mistake; the launcher makes it again and the services take from it."""
    path = f"queues/{scene.posthouse.virtual_host}/ingest"
    for _ in range(scene.runs):
        await scene.strike(
            "queue ingest deleted", lambda: scene.posthouse.management("DELETE", path), promise="stored"
        )
        await scene.posthouse.ready()
    refused = sum(one.status in (503, 504) for one in scene.devices.samples)
    scene.figure("refused meanwhile", refused)
    scene.recovery(10)


ROW = Row(
    "R17",
    "queue deleted, its messages unroutable",
    broken,
    Bare("not mandatory", {"FAULTS_IN": "services.gateway", "FAULTS_MANDATORY": "off"}),
    faults=3,
)
