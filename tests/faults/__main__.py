"""`make faults`: every row under load with its unprotected variant beside it, a table, and `latest.json`."""

from __future__ import annotations

import asyncio
import os
import secrets
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from tests.faults.plan import Part, Stage, seconds, stages
from tests.faults.row import Row
from tests.faults.rows import NOT_YET, ROWS
from tests.faults.run import Depth, Result, Turn, run, write
from tests.faults.table import lines

LATEST = Path(os.environ.get("FAULTS_RESULTS") or Path(__file__).parent / "results" / "latest.json")
SHORT = ("R3", "R11", "R26")
SHORT_DEPTH = Depth(faults=1, least=2_000, gap=2.0, short=True)


def chosen(names: list[str]) -> list[Row]:
    """The rows of these names, all when there are none; an unknown one ends the run."""
    wanted = [name.upper() for name in names]
    if unknown := set(wanted) - {row.id for row in ROWS} - set(NOT_YET):
        raise SystemExit(
            f"There is no row {sorted(unknown)[0]}; there are {', '.join(row.id for row in ROWS)}."
        )
    return [row for row in ROWS if not wanted or row.id in wanted]


def depth() -> Depth:
    """RUNS=: faults of each row; SHORT=1: CI's; BARE=0: without the unprotected variants."""
    if os.environ.get("SHORT") == "1":
        return SHORT_DEPTH
    return Depth(faults=int(os.environ.get("RUNS") or 0), bare=os.environ.get("BARE") != "0")


async def main(names: list[str]) -> int:
    """Run the rows and their unprotected variants; exit status 1 when one was missed."""
    how, seed = depth(), int(os.environ.get("SEED") or secrets.randbelow(10**6))
    if how.short and not names:
        names = list(SHORT)
    plan = stages(chosen(names), how)
    me, loop = asyncio.current_task(), asyncio.get_running_loop()
    assert me is not None
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, me.cancel)
    expected = f"{sum(map(len, plan))} runs, about {seconds(plan, how) / 60:.0f} min"
    print(f"{expected}; seed {seed}; load average {os.getloadavg()[0]:.1f}", flush=True)
    results: list[Result] = []
    began = time.monotonic()
    not_yet = [] if names else list(NOT_YET)
    try:
        await through(plan, how, seed, results, not_yet)
    except asyncio.CancelledError:
        print("stopped", flush=True)
    finally:
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.remove_signal_handler(number)
        for line in lines(results, {name: NOT_YET[name] for name in not_yet}):
            print(line)
        print(f"{(time.monotonic() - began) / 60:.1f} min, seed {seed}; kept in {LATEST}", flush=True)
    return 0 if results and all(one.passed for one in results) else 1


async def through(
    plan: Sequence[Stage], how: Depth, seed: int, results: list[Result], not_yet: list[str]
) -> None:
    """One stage after the other; while one is looked at and put away, the next one starts."""
    began, before = time.monotonic(), list[Turn]()

    async def one(part: Part, turn: Turn) -> None:
        name = f"{part.row.id} bare" if part.bare else part.row.id

        def say(words: str) -> None:
            print(f"{_clock(began)} {name:<8} {words}", flush=True)

        say(part.row.bare.words if part.bare and part.row.bare else part.row.words)
        result = await run(part.row, how, seed, say, bare=part.bare, turn=turn)
        results.append(result)
        write(LATEST, results, seed, not_yet)
        say("passed" if result.passed else f"MISSED: {'; '.join(result.missed)}")

    async with asyncio.TaskGroup() as group:
        for stage in plan:
            turns = [Turn(before) for _ in stage]
            for part, turn in zip(stage, turns, strict=True):
                group.create_task(one(part, turn))
            for turn in turns:
                await turn.quiet.wait()
            before = turns


def _clock(began: float) -> str:
    minutes, rest = divmod(int(time.monotonic() - began), 60)
    return f"{minutes:02}:{rest:02}"


if __name__ == "__main__":
    given = [
        name
        for text in (*sys.argv[1:], os.environ.get("ONLY", ""))
        for name in text.replace(",", " ").split()
    ]
    sys.exit(asyncio.run(main(given)))
