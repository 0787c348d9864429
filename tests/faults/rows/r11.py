"""R11: every AMQP connection is reset, again and again; unprotected, the inbox remembers nothing."""

from __future__ import annotations

import time

from tests.faults.row import Bare, Row
from tests.faults.scene import Scene
from tests.journeys.instance import until_it_is

GAP_SECONDS = 3.0  # twenty in a minute
INGESTS = 2


async def broken(scene: Scene) -> None:
    """Cut, see the next promise, see every consumer back."""
    scene.gap = GAP_SECONDS
    back = []

    async def cut() -> None:
        scene.cables["all"].cut()

    async def all_take() -> bool:
        return (await scene.posthouse.counted("ingest"))[1] == INGESTS

    for _ in range(scene.runs):
        fault = await scene.strike("all AMQP connections reset", cut, promise="stored")
        await until_it_is(all_take, "every process takes from its queue")
        back.append(time.monotonic() - fault.began)
    scene.recovery(2)
    scene.figure("consumers back s, worst", max(back), 3)
    samples = scene.devices.samples
    failed = sum(one.status not in (201, 202) for one in samples)
    scene.figure("requests failed, share", failed / max(1, len(samples)), 0.01)


ROW = Row(
    "R11",
    "reset of every AMQP connection",
    broken,
    Bare("no inbox", {"FAULTS_INBOX": "off"}),
    cables={"all": "services."},
    short=3,
    each=3.6,
)
