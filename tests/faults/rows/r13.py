"""R13: the clients' side of every AMQP connection breaks and the broker does not know; bare: no inbox."""

from __future__ import annotations

import time

from tests.faults.row import Bare, Row
from tests.faults.scene import Scene
from tests.journeys.instance import until_it_is

INGESTS = 2


async def broken(scene: Scene) -> None:
    """New connections at once; the old ones' consumers go when the broker misses their heartbeats."""
    only_ours = []

    async def cut() -> None:
        scene.cables["all"].half_open()

    async def all_take() -> bool:
        return (await scene.posthouse.counted("ingest"))[1] == INGESTS

    for _ in range(scene.runs):
        fault = await scene.strike("half-open AMQP connections", cut, promise="stored")
        await until_it_is(all_take, "the old consumers are gone")
        only_ours.append(time.monotonic() - fault.began)
    scene.recovery(3)
    scene.figure("old consumers gone s, worst", max(only_ours), 15)


ROW = Row(
    "R13",
    "half-open AMQP connections",
    broken,
    Bare("no inbox", {"FAULTS_INBOX": "off"}),
    faults=3,
    each=16,
    beside="R12",
    cables={"all": "services."},
)
