"""R21: one message in ten thousand always fails; unprotected, it takes its neighbours along.

An exception is no passing trouble: it is tried once by itself (k = 1) and is a dead letter. The five attempts
that are counted are of messages that end their process: R22. `queue never blocked` is seen as the time to the
next promise of something stored.
"""

from __future__ import annotations

from tests.faults.poison import POISON, Poison, letters, runs_of, send_poison, told
from tests.faults.row import Bare, Row
from tests.faults.scene import Scene, percentile

NEIGHBOURS_SECONDS = 1.0
ONE_IN = 10_000
GAP_SECONDS = 20.0
LEAST_P99_SECONDS = 0.25
"""Twice the usual; of 1,000 neighbours the p99 is ten requests, which a burst makes by itself."""


async def broken(scene: Scene) -> None:
    """It ends among the dead letters at once, with its reason and its trace; the others are done."""
    sent: list[Poison] = []
    if scene.runs == ROW.faults:
        scene.gap, scene.least_acknowledged = GAP_SECONDS, scene.runs * ONE_IN

    async def poison() -> None:
        sent.append(await send_poison(scene, "raises"))

    for _ in range(scene.runs):
        await scene.strike("a poison message", poison, promise="stored")
    samples = scene.devices.samples
    beside = [
        one.seconds
        for fault in scene.faults
        for one in samples
        if abs(one.sent_at - fault.began) < NEIGHBOURS_SECONDS
    ]
    usual = percentile([one.seconds for one in samples], 0.99)
    scene.figure("p99 beside it s", percentile(beside, 0.99), max(2 * usual, LEAST_P99_SECONDS))
    scene.figure("p99 usually s", usual)
    scene.figure("answers other than 500", sum(each.answer.status != 500 for each in sent), 0)
    attempts = runs_of(scene, sent, alone=True)
    scene.figure("other than 1 attempt by itself", sum(each != 1 for each in attempts), 0)
    found = await letters(scene)
    explained = told(sent, found, "failed")
    innocents = {one.request_id for one in found} - {each.request_id for each in sent}
    scene.figure("innocents among the dead letters", len(innocents), 0)
    scene.figure("dead letters with reason and trace", explained, least=len(sent))
    scene.recovery(1)


ROW = Row(
    "R21",
    "a message that always fails",
    broken,
    Bare(
        "a batch that fails is not tried one by one",
        {"FAULTS_ALONE": "off"},
        shows="innocents among the dead letters",
    ),
    bare_faults=8,  # not every one has neighbours in its batch
    environment=POISON,
    faults=3,
    each=GAP_SECONDS + 1,
    dead=1,
)
