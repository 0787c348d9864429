"""R4: PostgreSQL is killed, once for half a minute; unprotected, what arrives meanwhile has failed."""

from __future__ import annotations

from tests.faults.row import Bare, Row
from tests.faults.scene import Fault, Scene, percentile

LONG_SECONDS, SHORT_SECONDS = 30, 8
STORED_SECONDS = 30


async def broken(scene: Scene) -> None:
    """Once down for long, then killed and started again at once."""
    long = await scene.strike(
        f"postgres down {LONG_SECONDS} s",
        lambda: scene.keep_down("postgres", LONG_SECONDS),
        promise="stored",
        lasts=True,
    )
    drained = [long.recovered + await scene.drained()]
    for _ in range(scene.runs - 1):
        fault = await scene.strike("kill -9 postgres", lambda: scene.kill("postgres"), promise="stored")
        drained.append(fault.recovered + await scene.drained())
    queued_meanwhile(scene, long, 0.25)
    scene.figure("all stored after s, worst", max(drained), STORED_SECONDS)


async def shortly(scene: Scene) -> None:
    """Down as long as it takes to show what happens."""
    for _ in range(scene.runs):
        await scene.strike(
            f"postgres down {SHORT_SECONDS} s",
            lambda: scene.keep_down("postgres", SHORT_SECONDS),
            promise="stored",
            lasts=True,
        )


def queued_meanwhile(scene: Scene, fault: Fault, most_seconds: float) -> None:
    """Devices that do not wait are served as if nothing had happened."""
    queued = [
        one for one in scene.devices.samples if one.queued and fault.began <= one.sent_at <= fault.ended
    ]
    refused = sum(one.status != 202 for one in queued)
    scene.figure("queued meanwhile", len(queued))
    scene.figure("of them refused, share", refused / max(1, len(queued)), 0.001)
    scene.figure("p99 of queued meanwhile s", percentile([one.seconds for one in queued], 0.99), most_seconds)


ROW = Row(
    "R4",
    "kill -9 PostgreSQL, once down 30 s",
    broken,
    Bare("nothing held while the database is away", {"FAULTS_HOLD": "off"}, run=shortly, each=12),
    bare_faults=1,
    once=LONG_SECONDS,
)
