"""`python -m benchmarks [part ...]`, as `./posthouse bench` starts it."""

from __future__ import annotations

import argparse
import asyncio
import os
import signal
import sys
import time
import traceback
from collections.abc import Sequence
from contextlib import AsyncExitStack
from pathlib import Path

from benchmarks import machine, table
from benchmarks.install import install
from benchmarks.load import WrongAnswers
from benchmarks.parts import PARTS, TOGETHER, rest
from benchmarks.progress import Progress
from benchmarks.stage import Stage
from benchmarks.table import Row
from deploy.local import settings as configuration
from deploy.local.console import Console
from deploy.local.errors import Failure
from deploy.local.instance import ROOT, Instance
from deploy.local.services import commit

RESULTS = Path(__file__).parent / "results"
START_SECONDS = 40.0


def chosen(names: Sequence[str]) -> list[str]:
    """The parts to run, in their order; all of them when none is named. Raises Failure on an unknown name."""
    wanted = {part for name in names for part in TOGETHER.get(name, (name,))}
    if unknown := sorted(wanted - set(PARTS)):
        known = ", ".join([*PARTS, *TOGETHER])
        raise Failure(f"bench: there is no part {unknown[0]}; there are {known}.")
    return [name for name in PARTS if not wanted or name in wanted]


async def run(parts: Sequence[str], *, quick: bool) -> int:
    """Run the parts, print and write the table; answers 1 when something did not work."""
    began = time.monotonic()
    facts = [f"commit {commit(ROOT) or 'unknown'}", *machine.describe()]
    checkout = Instance(configuration.load(ROOT))
    installed = install(Console(), checkout)
    place = ROOT / ".local" / "bench" / "instance"
    instance = Instance(configuration.load(ROOT, {"POSTHOUSE_LOCAL": str(place)}))
    seconds = {name: PARTS[name].SECONDS * (0.4 if quick else 1.0) for name in parts}
    progress = Progress({"start": START_SECONDS, **seconds})
    stage = Stage(instance, installed, progress, quick=quick)
    async with AsyncExitStack() as stack:
        stack.push_async_callback(stage.stop)
        progress.part("start")
        await stage.start()
        await stage.prepare()
        settings = (await stage.posthouse("settings", quiet=True)).replace(f"{ROOT}/", "")
        facts += await stage.versions()
        rows, broken = await _parts(stage, parts)
    progress.end()
    facts += filter(None, [table.range_of_limit(rows)])
    facts.append(f"{time.monotonic() - began:.0f} s in all, {stage.rotations} rotations of {stage.seconds} s")
    return _report(facts, settings, rows, broken)


async def _parts(stage: Stage, parts: Sequence[str]) -> tuple[list[Row], list[str]]:
    rows: list[Row] = []
    broken: list[str] = []
    stage.memory_at_start = rest.memory(stage)
    for name in parts:
        stage.progress.part(name)
        try:
            rows += await PARTS[name].run(stage)
        except Exception as error:  # the other parts are still worth their time
            if not isinstance(error, (WrongAnswers, Failure)):
                traceback.print_exc()
            broken.append(f"{name}: {error}")
            rows.append(Row(part=name, against="-", note=f"did not work: {error}"))
    if "rest" in parts:
        rows += rest.memory_rows(stage)
    return rows, broken


def _report(facts: Sequence[str], settings: str, rows: Sequence[Row], broken: Sequence[str]) -> int:
    ends = [f"missed: {table.missed(rows)}", *(f"did not work: {one}" for one in broken)]
    text = "\n".join(f"- {fact}" for fact in facts) + "\n\n" + table.to_text(rows) + "\n" + "\n".join(ends)
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "latest.json").write_bytes(table.to_json(rows))
    page = f"# Ours beside others\n\n{text}\n\n## Settings in force\n\n```\n{settings.strip()}\n```\n"
    (RESULTS / "latest.md").write_text(page)
    print(settings)
    print(text, flush=True)
    return 1 if broken else 0


def main(arguments: Sequence[str]) -> int:
    """Run what is named on the command line or in ONLY."""
    parser = argparse.ArgumentParser(prog="./posthouse bench", description=__doc__)
    parser.add_argument("part", nargs="*", help=", ".join([*PARTS, *TOGETHER]))
    named = parser.parse_args(arguments).part or os.environ.get("ONLY", "").replace(",", " ").split()
    try:
        return asyncio.run(_until_signalled(chosen(named), quick=bool(os.environ.get("QUICK"))))
    except Failure as failure:
        print(f"\n{failure.text()}", file=sys.stderr)
        return 1
    except asyncio.CancelledError:
        return 130


async def _until_signalled(parts: Sequence[str], *, quick: bool) -> int:
    loop, me = asyncio.get_running_loop(), asyncio.current_task()
    assert me is not None
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        loop.add_signal_handler(number, me.cancel)
    return await run(parts, quick=quick)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
