"""R14: memory alarm, then disk alarm; unprotected, what comes late is done a second time."""

from __future__ import annotations

import asyncio
import itertools

from tests.faults.control import control
from tests.faults.row import Bare, Row
from tests.faults.scene import Scene

SECONDS = 60
ALARMS = (
    ("memory", ("set_vm_memory_high_watermark", "0.000001"), ("set_vm_memory_high_watermark", "0.4")),
    ("disk", ("set_disk_free_limit", "500000000000000"), ("set_disk_free_limit", "50MB")),
)
PATIENCE_SECONDS = 3


async def broken(scene: Scene, seconds: float = SECONDS) -> None:
    """The broker takes nothing for a minute, then all of it."""
    for name, on, off in itertools.islice(itertools.cycle(ALARMS), scene.runs):

        async def alarm(on: tuple[str, ...] = on, off: tuple[str, ...] = off) -> None:
            await asyncio.to_thread(control, scene.directory, *on)
            try:
                await asyncio.sleep(seconds)
            finally:
                await asyncio.to_thread(control, scene.directory, *off)

        await scene.strike(f"{name} alarm {seconds:.0f} s", alarm, lasts=True)
    scene.worst_request(PATIENCE_SECONDS + 0.5)
    scene.recovery(10)
    meanwhile = [one for fault in scene.faults for one in scene.during(fault)]
    scene.figure("refused meanwhile", sum(one.status not in (201, 202) for one in meanwhile))


async def briefly(scene: Scene) -> None:
    """As long as it takes to show what happens."""
    await broken(scene, 10)


ROW = Row(
    "R14",
    "memory alarm, disk alarm, 60 s each",
    broken,
    Bare("no inbox", {"FAULTS_INBOX": "off"}, run=briefly),
    faults=2,
    bare_faults=1,
)
