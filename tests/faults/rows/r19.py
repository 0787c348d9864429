"""R19: every reply comes twice, and once more when nobody waits for it any longer."""

from __future__ import annotations

import asyncio
import time

from tests.faults.row import Row
from tests.faults.scene import Scene

CALLS, SHORT_CALLS = 100_000, 5_000
MOST_SECONDS = 400


async def broken(scene: Scene) -> None:
    """Nothing strikes: every answer is the fault. The ids of entries show that each got its own."""
    calls = CALLS if scene.least_acknowledged >= 10_000 and scene.runs >= 20 else SHORT_CALLS
    end = time.monotonic() + MOST_SECONDS
    while scene.devices.acknowledged < calls and time.monotonic() < end:  # noqa: ASYNC110
        await asyncio.sleep(0.1)

    async def nothing() -> None:
        return

    for _ in range(scene.runs if calls == SHORT_CALLS else 1):
        await scene.strike("replies twice, and late", nothing)
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
