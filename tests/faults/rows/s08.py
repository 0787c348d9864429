"""S8: sixteen hundred slow clients at once, again and again; unprotected, no limit on their time."""

from __future__ import annotations

import asyncio
import time
from dataclasses import asdict

from tests.faults.row import Bare, Row
from tests.faults.scene import Scene, percentile
from tests.faults.slow import CLOSED_SECONDS, READERS_SECONDS, Kind, Order
from tests.faults.strangers import Stranger, beside, memory, stranger

BEFORE_SECONDS, WARM_UP_SECONDS, ATTACK_SECONDS = 15.0, 12.0, 60.0
COUNTS = {"half a header": 1_000, "slow body": 200, "idle": 200, "slow export": 50, "slow page": 2}
READERS = ("slow export", "slow page")
ARCHIVE_PARTS, PART_READINGS, TEXT = 16, 125, "x" * 7_900  # 16 MB: more than the kernels on the way keep
PAGE = 500
GROWTH_MB = 20.0
NO_LIMIT = "100000"


async def broken(scene: Scene) -> None:
    """All of them at once, opened again when they are closed."""
    where = await _archive(scene)
    kinds: dict[str, Kind] = {name: Kind() for name in COUNTS}
    slower = []
    await _attack(scene, where, {name: Kind() for name in COUNTS}, WARM_UP_SECONDS)  # so many were here once
    held = memory(scene.posthouse, ("gateway",))
    for _ in range(scene.runs):
        before = await _quiet(scene)
        fault = await scene.strike(
            "slow clients", lambda: _attack(scene, where, kinds, ATTACK_SECONDS), lasts=True
        )
        during = [one.seconds for one in scene.during(fault)]
        slower.append(percentile(during, 0.99) / max(before, 0.001))
        scene.say(f"99 % within {percentile(during, 0.99):.3f} s, {before:.3f} s before")
        failed = sum(one.status not in (201, 202) for one in scene.during(fault))
        scene.figures["honest requests failed"] = scene.figures.get("honest requests failed", 0) + failed
    await _quiet(scene)
    growth = memory(scene.posthouse, ("gateway",))["gateway"] - held["gateway"]
    _judge(scene, kinds)
    scene.figure("honest p99 against before, worst", max(slower), 2)
    scene.figure("honest requests failed", scene.figures["honest requests failed"], 0)
    scene.figure("gateway grown MB", growth, GROWTH_MB)


def _judge(scene: Scene, kinds: dict[str, Kind]) -> None:
    others = [kind for name, kind in kinds.items() if name not in READERS]
    readers = [kind for name, kind in kinds.items() if name in READERS]
    scene.figure("attackers", sum(kind.opened for kind in kinds.values()))
    scene.figure("attackers open after their time", sum(kind.overdue for kind in kinds.values()), 0)
    scene.figure("longest attacker s", max(kind.longest for kind in others), CLOSED_SECONDS)
    scene.figure("longest reader s", max(kind.longest for kind in readers), READERS_SECONDS)
    for name, kind in kinds.items():
        scene.say(f"{name}: {asdict(kind)}")


async def _quiet(scene: Scene) -> float:
    """The 99th percentile of the devices over a while without attackers."""
    began = time.monotonic()
    await asyncio.sleep(BEFORE_SECONDS)
    return percentile([one.seconds for one in scene.devices.samples if one.sent_at >= began], 0.99)


async def _archive(scene: Scene) -> Stranger:
    """Somebody whose dataset is large enough to be read slowly."""
    someone = await stranger(scene, "archivist")
    line = f'{{"values":{{"text":"{TEXT}"}}}}\n'
    for _ in range(ARCHIVE_PARTS):
        await someone.send(line * PART_READINGS)
    return someone


async def _attack(scene: Scene, where: Stranger, kinds: dict[str, Kind], seconds: float) -> None:
    path = f"/v1/datasets/{where.dataset}/readings"
    order = Order(
        scene.posthouse.url,
        seconds,
        COUNTS,
        large=f"{path}.csv",
        page=f"{path}?limit={PAGE}",
        written=path,
        key=where.write_key,
    )
    for name, found in (await beside("slow", asdict(order))).items():
        kind = kinds[name]
        kind.opened += found["opened"]
        kind.closed += found["closed"]
        kind.refused += found["refused"]
        kind.overdue += found["overdue"]
        kind.longest = max(kind.longest, found["longest"])


ROW = Row(
    "S8",
    "1,452 slow clients at once",
    broken,
    Bare(
        "no limit on their time",
        {
            "POSTHOUSE_HEADER_SECONDS": NO_LIMIT,
            "POSTHOUSE_BODY_SECONDS": NO_LIMIT,
            "POSTHOUSE_IDLE_SECONDS": NO_LIMIT,
        },
        shows="attackers open after their time",
        once=45,
        each=80,
        alone=True,
    ),
    faults=2,
    once=45,
    each=80,
    bare_faults=1,
)
