"""`make faults`: every row under load with its unprotected variant beside it, a table, and `latest.json`."""

from __future__ import annotations

import asyncio
import os
import secrets
import signal
import sys
import time
from pathlib import Path

from tests.faults.row import Row
from tests.faults.rows import NOT_YET, ROWS
from tests.faults.run import Depth, Result, run, write
from tests.faults.table import lines

LATEST = Path(__file__).parent / "results" / "latest.json"
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
    """Run the rows one after the other; exit status 1 when one was missed."""
    how, seed = depth(), int(os.environ.get("SEED") or secrets.randbelow(10**6))
    if how.short and not names:
        names = list(SHORT)
    rows = chosen(names)
    me, loop = asyncio.current_task(), asyncio.get_running_loop()
    assert me is not None
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, me.cancel)
    print(f"seed {seed}; load average {os.getloadavg()[0]:.1f}", flush=True)
    results: list[Result] = []
    began = time.monotonic()
    try:
        for row in rows:
            await both(row, how, seed, results)
    except asyncio.CancelledError:
        print("stopped", flush=True)
    finally:
        not_yet = [] if names else list(NOT_YET)
        write(LATEST, results, seed, not_yet)
        for line in lines(results, {name: NOT_YET[name] for name in not_yet}):
            print(line)
        print(f"{time.monotonic() - began:.0f} s, seed {seed}; kept in {LATEST}", flush=True)
    return 0 if all(one.passed for one in results) else 1


async def both(row: Row, how: Depth, seed: int, results: list[Result]) -> None:
    """The row, and beside it the same without its protection."""
    for bare in (False, True) if how.bare and row.bare else (False,):
        print(f"\n{row.id}{' unprotected' if bare else ''}: {row.words}", flush=True)
        one = await run(row, how, seed, lambda words: print(f"  {words}", flush=True), bare=bare)
        results.append(one)
        for words in one.missed:
            print(f"  MISSED {words}", flush=True)


if __name__ == "__main__":
    given = [
        name
        for text in (*sys.argv[1:], os.environ.get("ONLY", ""))
        for name in text.replace(",", " ").split()
    ]
    sys.exit(asyncio.run(main(given)))
