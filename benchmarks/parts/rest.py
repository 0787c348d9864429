"""What it takes to have it: a second start, memory, and processor time while nobody calls."""

from __future__ import annotations

import asyncio

from benchmarks import machine
from benchmarks.stage import Stage
from benchmarks.table import Row

SECONDS = 60
CALM_SECONDS = 15.0
"""Ten seconds after the broker's start the launcher has leaders elected: that is not rest yet."""
LOOK_SECONDS = 20.0
MOST_PERCENT = 1.0
MIB = 1024 * 1024


async def run(stage: Stage) -> list[Row]:
    """Start again, then look while nothing is asked."""
    stage.progress.say("second start")
    await stage.stop()
    took = await stage.start()
    stage.memory_at_start = memory(stage)
    stage.progress.say(f"{LOOK_SECONDS:.0f} s without a request")
    await asyncio.sleep(CALM_SECONDS)
    pids = stage.pids | {"launcher": [stage.supervisor]}
    before = machine.cpu_seconds(pids)
    await asyncio.sleep(LOOK_SECONDS)
    used = machine.spent(before, machine.cpu_seconds(pids))
    used["launcher"] -= sum(used.values()) - used["launcher"]  # the others are its children
    start = Row(part="rest", against="second `make up`", ours=took, unit="s", note="servers included")
    return [start, *(_idle(name, seconds) for name, seconds in used.items())]


def _idle(name: str, seconds: float) -> Row:
    percent = 100 * seconds / LOOK_SECONDS
    return Row(
        part="rest, CPU",
        against=name,
        ours=percent,
        unit="%",
        target=MOST_PERCENT,
        lower=True,
        met=percent < MOST_PERCENT,
    )


def memory(stage: Stage) -> dict[str, int]:
    """Bytes by process, those under it included."""
    return {name: machine.memory(pids[0]) for name, pids in stage.pids.items()}


def memory_rows(stage: Stage) -> list[Row]:
    """At the end of a run: now beside what it was at the start."""
    return [
        Row(
            part="rest, memory",
            against=f"{name}: after / at start",
            ours=now / MIB,
            theirs=stage.memory_at_start[name] / MIB,
            unit="MiB",
            ratio=now / stage.memory_at_start[name],
            low=now / stage.memory_at_start[name],
            high=now / stage.memory_at_start[name],
        )
        for name, now in memory(stage).items()
        if stage.memory_at_start.get(name)
    ]
