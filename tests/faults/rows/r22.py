"""R22: a message that ends every process that takes it, with fifty others around it.

Unprotected, what is delivered again is run and counted together, as a broker's delivery limit counts it.
"""

from __future__ import annotations

import asyncio
import time

from shared.bus.verdict import MOST_ATTEMPTS
from tests.faults.poison import POISON, Poison, letters, runs_of, send_poison, told
from tests.faults.row import Bare, Row
from tests.faults.scene import Scene
from tests.faults.wire import Wire
from tests.journeys.instance import until_it_is

NEIGHBOURS = 50


async def broken(scene: Scene) -> None:
    """Five processes die of it, then it lies among the dead letters, alone."""
    sent: list[Poison] = []
    took = []

    async def strike() -> None:
        began = time.monotonic()
        neighbours = [_neighbour(scene) for _ in range(NEIGHBOURS)]
        poison, *_ = await asyncio.gather(send_poison(scene, "kills", "respond-async"), *neighbours)
        sent.append(poison)
        assert sent[-1].answer.status == 202, sent[-1].answer

        async def is_buried() -> bool:
            return told(sent, await letters(scene), "too_often") == len(sent)

        await until_it_is(is_buried, "it is among the dead letters", 120)
        took.append(time.monotonic() - began)

    for _ in range(scene.runs):
        await scene.strike("a message that kills", strike, promise="stored", lasts=True)
        await scene.posthouse.ready()
    scene.figure("buried after s, worst", max(took))
    deaths = runs_of(scene, sent, alone=False)
    others = sum(each != MOST_ATTEMPTS for each in deaths)
    scene.figure(f"other than {MOST_ATTEMPTS} deaths of one", others, 0)
    found = await letters(scene)
    scene.figure("dead letters with reason and trace", told(sent, found, "too_often"), least=len(sent))
    innocents = {one.request_id for one in found} - {each.request_id for each in sent}
    scene.figure("innocents among the dead letters", len(innocents), 0)
    scene.recovery(10)


async def _neighbour(scene: Scene) -> None:
    """A reading that is in the queue at the same moment."""
    value, key = scene.devices.begin()
    target = scene.devices.target
    headers = {"X-API-Key": target.write_key, "Prefer": "respond-async", "Idempotency-Key": key}
    with Wire(scene.posthouse.url) as wire:
        path = f"/v1/datasets/{target.id}/readings"
        answer = await wire.ask("POST", path, {"values": {"n": value}}, headers)
    if answer.status == 202:
        scene.devices.acknowledge(value, key, 0, answer.status)


ROW = Row(
    "R22",
    "a message that kills its process",
    broken,
    Bare(
        "delivered again together, counted together",
        {"FAULTS_COUNT": "off"},
        shows="innocents among the dead letters",
        each=20,
    ),
    faults=3,
    bare_faults=1,
    each=18,
    beside="R25",
    environment=POISON,
    dead=1,
)
