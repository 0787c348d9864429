"""R10: every process is restarted in turn; unprotected, they are killed and clients repeat without a key."""

from __future__ import annotations

import itertools
import signal

from tests.faults.devices import Manners
from tests.faults.row import Bare, Row
from tests.faults.scene import Scene

NAMES = ("gateway", "ingest", "auth", "gateway-2", "ingest-2", "chat", "worker")


async def told_to_stop(scene: Scene) -> None:
    """SIGTERM to one after the other; no client may notice."""
    await restarted(scene, signal.SIGTERM)
    failed = sum(one.status not in (201, 202) for one in scene.devices.samples)
    scene.figure("requests failed", failed, 0)


async def restarted(scene: Scene, number: signal.Signals) -> None:
    """One process a fault."""
    for name in itertools.islice(itertools.cycle(NAMES), scene.runs):

        async def stop(name: str = name) -> None:
            pid = scene.posthouse.kill(name, number)
            await scene.posthouse.another(name, pid)

        await scene.strike(f"{number.name} {name}", stop)
        await scene.posthouse.ready()


async def killed(scene: Scene) -> None:
    """The same without asking."""
    await restarted(scene, signal.SIGKILL)


ROW = Row(
    "R10",
    "restart of every process in turn",
    told_to_stop,
    Bare("kill -9, repeats without a key", manners=Manners(keys=False), run=killed),
    faults=21,
    bare_faults=4,
    scale="gateway=2,ingest=2",
)
