"""R17: the command queue is unbound, then deleted; unprotected, what is in no queue counts as published.

Whatever lies in a queue goes with it, so it is deleted when it has become empty: that nobody binds a routing
key comes first. Launcher and services have to bring both back by themselves.
"""

from __future__ import annotations

import asyncio
from urllib.parse import quote

from shared.bus.topology import COMMANDS
from tests.faults.alerts import told_of
from tests.faults.row import Bare, Row
from tests.faults.scene import Scene, percentile

ALERT_SECONDS = 10
AT_ONCE_SECONDS = 0.5


async def broken(scene: Scene) -> None:
    """Somebody does it by mistake; the launcher makes it again and the services take from it."""
    alerts = []
    for _ in range(scene.runs):

        async def delete() -> None:
            await _take_away(scene)
            alerts.append(asyncio.create_task(told_of(scene, "ingest", ALERT_SECONDS + 1)))

        await scene.strike("queue ingest unbound and deleted", delete, promise="stored", lasts=True)
        await scene.posthouse.ready()
    refused = [one for one in scene.devices.samples if one.status in (503, 504)]
    scene.figure("refused meanwhile", len(refused))
    at_once = [one.seconds for one in refused if one.status == 503]
    scene.figure("p99 of 503 s", percentile(at_once, 0.99), AT_ONCE_SECONDS)
    scene.figure("alert after s, worst", max(await asyncio.gather(*alerts)), ALERT_SECONDS)
    scene.recovery(10)


async def _take_away(scene: Scene) -> None:
    """First no message gets there any more, then those it holds are taken, then it goes."""
    host = scene.posthouse.virtual_host
    place = f"bindings/{host}/e/{COMMANDS}/q/ingest"
    for binding in await scene.posthouse.management("GET", place):
        await scene.posthouse.management("DELETE", f"{place}/{quote(binding['properties_key'], safe='')}")
    await scene.drained()
    await scene.posthouse.management("DELETE", f"queues/{host}/ingest")


ROW = Row(
    "R17",
    "queue deleted, its messages unroutable",
    broken,
    Bare("not mandatory", {"FAULTS_IN": "services.gateway", "FAULTS_MANDATORY": "off"}),
    faults=3,
    each=14,
)
