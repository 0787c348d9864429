"""R5: PostgreSQL hangs with all its processes; unprotected, what arrives while it is away has failed."""

from __future__ import annotations

from tests.faults.row import Bare, Row
from tests.faults.rows.r04 import STORED_SECONDS, queued_meanwhile, shortly
from tests.faults.scene import Scene

LONG_SECONDS, SHORT_SECONDS = 20, 4
MOVING_SECONDS = 5


async def broken(scene: Scene) -> None:
    """Silent once for long, then for moments."""
    faults, drained = [], []
    for number in range(scene.runs):
        seconds = SHORT_SECONDS if number else LONG_SECONDS
        fault = await scene.strike(
            f"postgres silent {seconds} s",
            lambda seconds=seconds: scene.freeze(["postgres"], seconds),
            promise="stored",
            lasts=True,
        )
        faults.append(fault)
        drained.append(fault.recovered + await scene.drained())
    queued_meanwhile(scene, faults[0], 0.25)
    scene.recovery(MOVING_SECONDS, "stored again after s, worst")
    scene.figure("all stored after s, worst", max(drained), STORED_SECONDS)


ROW = Row(
    "R5",
    "PostgreSQL silent 20 s, then 4 s each",
    broken,
    Bare("nothing held while the database is away", {"FAULTS_HOLD": "off"}, run=shortly, each=12),
    faults=3,
    bare_faults=1,
    once=LONG_SECONDS,
)
