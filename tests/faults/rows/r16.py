"""R16: the command queue is full; unprotected, the gateway does not hear that the broker refused."""

from __future__ import annotations

import asyncio

from tests.faults.row import Bare, Row
from tests.faults.scene import Scene

MOST_MESSAGES = 5
AWAY_SECONDS = 5


async def broken(scene: Scene) -> None:
    """A few messages are its limit, and nobody takes any."""
    path = f"policies/{scene.posthouse.virtual_host}/full"
    policy = {"pattern": "^ingest$", "definition": {"max-length": MOST_MESSAGES}, "apply-to": "queues"}
    await scene.posthouse.management("PUT", path, policy)

    async def nobody_takes() -> None:
        await asyncio.gather(*(scene.keep_down(name, AWAY_SECONDS) for name in ("ingest", "ingest-2")))

    for _ in range(scene.runs):
        await scene.strike(
            f"queue of {MOST_MESSAGES} messages, nobody takes any for {AWAY_SECONDS} s",
            nobody_takes,
            promise="stored",
            lasts=True,
        )
    await scene.posthouse.management("DELETE", path)
    meanwhile = [one for fault in scene.faults for one in scene.during(fault)]
    refused = sum(one.status in (429, 503) for one in meanwhile)
    scene.figure("refused with Retry-After", refused)
    if not refused:
        scene.missed.append("the queue was never full")
    scene.recovery(5)


ROW = Row(
    "R16",
    "queue at its limit",
    broken,
    Bare("confirms not waited for", {"FAULTS_IN": "services.gateway", "FAULTS_CONFIRMS": "off"}),
    faults=3,
)
