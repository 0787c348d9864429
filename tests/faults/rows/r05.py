"""R5: PostgreSQL hangs with all its processes; unprotected, what its timeouts hit has failed."""

from __future__ import annotations

from tests.faults.row import Bare, Row
from tests.faults.rows.r04 import queued_meanwhile
from tests.faults.scene import Scene

LONG_SECONDS, SHORT_SECONDS = 20, 4
MOVING_SECONDS = 5


async def broken(scene: Scene) -> None:
    """Silent once for long, then for moments."""
    faults = []
    for number in range(scene.runs):
        seconds = SHORT_SECONDS if number else LONG_SECONDS
        fault = await scene.strike(
            f"postgres silent {seconds} s",
            lambda seconds=seconds: scene.freeze(["postgres"], seconds),
            promise="stored",
            lasts=True,
        )
        faults.append(fault)
    queued_meanwhile(scene, faults[0], 0.25)
    scene.recovery(MOVING_SECONDS, "stored again after s, worst")


async def hung_then_killed(scene: Scene) -> None:
    """The same hang, ended by the death of the database."""
    for _ in range(scene.runs):
        await scene.strike(
            "postgres down 10 s", lambda: scene.keep_down("postgres", 10), promise="stored", lasts=True
        )


ROW = Row(
    "R5",
    "PostgreSQL silent 20 s, then 4 s each",
    broken,
    Bare("nothing held while the database is away", {"FAULTS_HOLD": "off"}, run=hung_then_killed),
    bare_faults=1,
)
