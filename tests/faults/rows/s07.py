"""S7: thousands of made-up and of malformed requests; unprotected, mistakes in JSON are not caught."""

from __future__ import annotations

import asyncio
from collections import Counter
from dataclasses import asdict, dataclass, field
from typing import Any

from tests.faults import generated, spoilt
from tests.faults.row import Bare, Row
from tests.faults.scene import Scene
from tests.faults.strangers import Stranger, beside, memory, pids, python_processes, stranger

BATCH, WARM_UP, FEW = 1_000, 500, 150
"""Of each kind: so many in one strike, before memory is looked at, and for the unprotected variant."""
WORKERS = 3
GROWTH_MB = 20.0
SHOWN = 5


@dataclass
class Tally:
    """What all of them found."""

    generated: int = 0
    malformed: int = 0
    answers: int = 0
    statuses: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)

    def add(self, found: dict[str, Any]) -> None:
        """What one process found."""
        self.generated += found.get("cases", 0)
        self.malformed += found.get("requests", 0)
        self.statuses.update(found["statuses"])
        self.wrong += found["wrong"]


async def broken(scene: Scene) -> None:
    """Both kinds at once, under the load; the first of them only so that everything has been loaded."""
    people = [await stranger(scene, f"maker{number}", ["administrator"]) for number in range(WORKERS)]
    await _send(scene, people, WARM_UP, Tally())
    ours = python_processes(scene.posthouse)
    held, running = memory(scene.posthouse, ours), pids(scene.posthouse)
    tally = Tally()
    for _ in range(scene.runs):
        await scene.strike(
            "made-up and malformed requests", lambda: _send(scene, people, BATCH, tally), lasts=True
        )
    now = memory(scene.posthouse, ours)
    grown = {name: round(now[name] - held[name], 1) for name in ours}
    scene.say(f"MB held before {held}, grown by {grown}")
    _judge(scene, tally)
    scene.figure(
        "processes started again", sum(pids(scene.posthouse)[name] != pid for name, pid in running.items()), 0
    )
    scene.figure("grown MB, most", max(grown.values()), GROWTH_MB)
    failed = sum(one.status not in (201, 202) for one in scene.devices.samples)
    scene.figure("honest requests failed", failed, 0)


async def unguarded(scene: Scene) -> None:
    """A few are enough."""
    people = [await stranger(scene, f"maker{number}") for number in range(WORKERS)]
    tally = Tally()
    await scene.strike("made-up and malformed requests", lambda: _send(scene, people, FEW, tally), lasts=True)
    _judge(scene, tally)


def _judge(scene: Scene, tally: Tally) -> None:
    failed = tally.statuses["500"]
    scene.figure("made-up requests", tally.generated)
    scene.figure("malformed requests", tally.malformed)
    scene.figure("answers 500", failed, 0)
    scene.figure("answers unlike the description", len(tally.wrong), 0)
    scene.figures["their answers"] = dict(sorted(tally.statuses.items()))
    for words in tally.wrong[:SHOWN]:
        scene.say(words[:1_500])


async def _send(scene: Scene, people: list[Stranger], count: int, tally: Tally) -> None:
    """So many of each kind, in processes beside the load."""
    seed = str(scene.dice.getrandbits(32))
    raw = spoilt.Order(scene.posthouse.url, people[0].dataset, people[0].write_key, count, seed)
    running = [beside("malformed", asdict(raw))]
    for part, who in enumerate(people):
        cases = count // WORKERS + (part < count % WORKERS)
        order = generated.Order(who.url, who.name, who.password, cases, seed, part, WORKERS)
        running.append(beside("generated", asdict(order)))
    for found in await asyncio.gather(*running):
        tally.add(found)


ROW = Row(
    "S7",
    "10,000 made-up, 10,000 malformed requests",
    broken,
    Bare(
        "mistakes in JSON not caught",
        {"FAULTS_JSON": "off", "FAULTS_IN": "services.gateway"},
        run=unguarded,
        shows="answers 500",
    ),
    faults=10,
    once=35,
    each=20,
    bare_faults=1,
    environment={"POSTHOUSE_RATE_SIGN_IN": "0", "POSTHOUSE_RATE_ANONYMOUS": "0"},
)
