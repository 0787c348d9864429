"""R10: every process is restarted in turn; unprotected, they are killed and clients repeat without a key."""

from __future__ import annotations

import itertools
import signal
import time

from tests.faults.devices import Manners
from tests.faults.row import Bare, Row
from tests.faults.scene import Scene

DRAIN_SECONDS = 10
REPEATS = "posthouse_repeats_total"
NAMES = ("gateway", "ingest", "auth", "gateway-2", "ingest-2", "chat", "worker")


async def told_to_stop(scene: Scene) -> None:
    """SIGTERM to one after the other; no client may notice."""
    repeats = {name: 0.0 for name in NAMES}
    took = await restarted(scene, signal.SIGTERM, repeats)
    failed = sum(one.status not in (201, 202) for one in scene.devices.samples)
    scene.figure("requests failed", failed, 0)
    scene.figure("stopped and started again s, worst", max(took), DRAIN_SECONDS)
    for name in NAMES:
        repeats[name] += await scene.metric(name, REPEATS)
    scene.figure("finished work delivered again", sum(repeats.values()), 0)


async def restarted(scene: Scene, number: signal.Signals, repeats: dict[str, float]) -> list[float]:
    """One process a fault; what it had counted goes into `repeats`, answers how long each was away."""
    took: list[float] = []
    for name in itertools.islice(itertools.cycle(NAMES), scene.runs):

        async def stop(name: str = name) -> None:
            began = time.monotonic()
            pid = scene.posthouse.kill(name, number)
            await scene.posthouse.another(name, pid)
            took.append(time.monotonic() - began)

        repeats[name] = repeats.get(name, 0.0) + await scene.metric(name, REPEATS)
        await scene.strike(f"{number.name} {name}", stop)
        await scene.posthouse.ready()
    return took


async def killed(scene: Scene) -> None:
    """The same without asking."""
    await restarted(scene, signal.SIGKILL, {})


ROW = Row(
    "R10",
    "restart of every process in turn",
    told_to_stop,
    Bare("kill -9, repeats without a key", manners=Manners(keys=False), run=killed),
    faults=21,
    beside="R3",
    bare_faults=6,
    scale="gateway=2,ingest=2",
)
