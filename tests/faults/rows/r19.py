"""R19: every reply comes twice, and once more when nobody waits for it any longer."""

from __future__ import annotations

import asyncio
import time

from tests.faults.row import Row
from tests.faults.scene import Scene

MOST_CALLS = 100_000
MOST_SECONDS = 400


async def broken(scene: Scene) -> None:
    """Nothing strikes: every answer is the fault. The ids of entries show that each got its own."""
    calls = min(MOST_CALLS, scene.runs * scene.least_acknowledged // 2)
    end = time.monotonic() + MOST_SECONDS
    while scene.devices.acknowledged < calls and time.monotonic() < end:  # noqa: ASYNC110
        await asyncio.sleep(0.1)

    async def nothing() -> None:
        return

    await scene.strike(f"replies to {calls} calls, twice and late", nothing)
    failed = sum(one.status not in (201, 202) for one in scene.devices.samples)
    scene.figure("calls", len(scene.devices.samples))
    scene.figure("calls that failed", failed, 0)


ROW = Row(
    "R19",
    "replies twice, late, for nobody",
    broken,
    None,
    environment={"FAULTS_REPLIES": "again"},
)
