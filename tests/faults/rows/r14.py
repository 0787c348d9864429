"""R14: memory alarm, then disk alarm; unprotected, what comes late is done a second time.

Devices ask for three seconds of patience and are answered at their end: the limit is a little above them. A
broker with an alarm takes the replies of services as little as the requests of the gateway, so what is
measured of those who take messages is that what waited when it began is done during it.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from tests.faults.control import control
from tests.faults.row import Bare, Row
from tests.faults.rows.r19 import nobody_waits
from tests.faults.scene import Scene

SECONDS = 60
ALARMS = (
    ("memory", ("set_vm_memory_high_watermark", "0.000001"), ("set_vm_memory_high_watermark", "0.4")),
    ("disk", ("set_disk_free_limit", "500000000000000"), ("set_disk_free_limit", "50MB")),
)
PATIENCE_SECONDS = 3
DONE_SHARE = 0.9


async def broken(scene: Scene, seconds: float = SECONDS) -> None:
    """The broker takes nothing for a minute, then all of it."""
    shares: list[float] = []
    for name, on, off in itertools.islice(itertools.cycle(ALARMS), scene.runs):

        async def alarm(on: tuple[str, ...] = on, off: tuple[str, ...] = off) -> None:
            async with _backlog(scene):
                await asyncio.to_thread(control, scene.directory, *on)
                promised, stored = scene.devices.acknowledged, await _stored(scene)
            try:
                await asyncio.sleep(seconds)
                shares.append((await _stored(scene) - stored) / max(1, promised - stored))
            finally:
                await asyncio.to_thread(control, scene.directory, *off)

        await scene.strike(f"{name} alarm {seconds:.0f} s", alarm, lasts=True)
    scene.worst_request(PATIENCE_SECONDS + 0.5)
    scene.recovery(10)
    meanwhile = [one for fault in scene.faults for one in scene.during(fault)]
    scene.figure("refused meanwhile", sum(one.status not in (201, 202) for one in meanwhile))
    scene.figure("of what waited done meanwhile, share", min(shares), least=DONE_SHARE)
    await scene.acknowledged(scene.least_acknowledged)
    await scene.devices.finish()
    await nobody_waits(scene)


@asynccontextmanager
async def _backlog(scene: Scene) -> AsyncIterator[None]:
    """Ingest stands still during the block, which takes rabbitmqctl a few seconds: something waits then."""
    over = asyncio.Event()
    ends = asyncio.create_task(scene.frozen(["ingest", "ingest-2"], over))
    try:
        yield
    finally:
        over.set()
        await ends


async def _stored(scene: Scene) -> int:
    sql = "SELECT (SELECT count(*) FROM ingest.reading) + (SELECT count(*) FROM ingest.dataset) AS n"
    return int((await scene.posthouse.sql(sql))[0]["n"]) - len(scene.devices.targets)


async def briefly(scene: Scene) -> None:
    """As long as it takes to show what happens."""
    scene.least_acknowledged = 0
    await broken(scene, 10)


ROW = Row(
    "R14",
    "memory alarm, disk alarm, 60 s each",
    broken,
    Bare("no inbox", {"FAULTS_INBOX": "off"}, run=briefly, once=12),
    faults=2,
    each=SECONDS + 5,
    bare_faults=1,
)
