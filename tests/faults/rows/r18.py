"""R18: services answer later than anybody waits; unprotected, commands run after their deadline."""

from __future__ import annotations

from tests.faults.devices import Manners
from tests.faults.row import Bare, Row
from tests.faults.scene import Fault, Scene

SILENT_SECONDS = 7
PATIENCE_SECONDS = 2
BEFORE_SECONDS = 0.5  # what was sent earlier may have been at work when the processes stopped


async def broken(scene: Scene) -> None:
    """Ingest stands still for longer than three waits; everybody waits for two seconds and sends once."""
    for _ in range(scene.runs):
        await scene.strike(
            f"ingest stands still {SILENT_SECONDS} s",
            lambda: scene.freeze(["ingest", "ingest-2"], SILENT_SECONDS),
            lasts=True,
        )
        await scene.drained()
    waited = [one for fault in scene.faults for one in _expired(scene, fault)]
    scene.figure("requests that waited in vain", len(waited))
    scene.figure("off by s, worst", max(abs(one.seconds - PATIENCE_SECONDS) for one in waited), 0.2)
    scene.figure("not 504", sum(one.status != 504 for one in waited), 0)
    late = {one.value for one in waited if one.kind == "reading"} & await _stored(scene)
    scene.figure("executed after their deadline", len(late), 0)


def _expired(scene: Scene, fault: Fault) -> list:
    latest = fault.ended - PATIENCE_SECONDS - BEFORE_SECONDS
    return [
        one
        for one in scene.devices.samples
        if fault.began + BEFORE_SECONDS <= one.sent_at <= latest and one.status
    ]


async def _stored(scene: Scene) -> set[int]:
    rows = await scene.posthouse.sql("SELECT numbers[1]::bigint FROM ingest.reading")
    return {row[0] for row in rows}


ROW = Row(
    "R18",
    "ingest slower than anybody waits",
    broken,
    Bare("deadlines ignored", {"FAULTS_DEADLINE": "off"}, shows="executed after their deadline"),
    faults=3,
    manners=Manners(repeats=False, queues=False, prefer=f"wait={PATIENCE_SECONDS}"),
)
