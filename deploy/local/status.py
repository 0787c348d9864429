"""What runs, as seen from outside: for people, and as JSON for scripts."""

from __future__ import annotations

import json
import signal
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from deploy.local.console import Console
from deploy.local.errors import Failure
from deploy.local.instance import Instance
from deploy.local.probe import why_not
from deploy.local.processes import Process
from deploy.local.up import stop_left_over

STOP_SECONDS = 75.0
ALL_READY, NOT_ALL_READY, NOT_RUNNING = 0, 1, 3


def supervisor_of(instance: Instance) -> Process | None:
    """The supervisor of this instance, when it is alive."""
    return Process.recorded(instance.read_state().get("supervisor"))


def observe(instance: Instance) -> list[dict[str, Any]]:
    """One row for each process; memory in bytes, seconds since its start, `ends`: how often it ended."""
    programs = instance.read_state().get("programs", {})
    with ThreadPoolExecutor() as pool:
        return list(pool.map(_row, programs, programs.values()))


def _row(name: str, facts: dict[str, Any]) -> dict[str, Any]:
    process = Process.recorded(facts["process"])
    why = next(filter(None, map(why_not, facts["probes"])), "") if process else "does not run"
    return {
        "name": name,
        "pid": process.pid if process else None,
        "ready": not why,
        "why": why,
        "memory": process.memory() if process else 0,
        "seconds": round(time.time() - facts["started_at"], 1) if process else 0,
        "ends": facts["ends"],
        "address": facts["address"],
        "log": facts["log"],
    }


def status(instance: Instance, *, as_json: bool, wait_seconds: float = 0) -> int:
    """Print what runs, at once or when all of it is ready; the exit code says whether it is."""
    end = time.monotonic() + wait_seconds
    while True:
        supervisor, rows = supervisor_of(instance), observe(instance)
        ready = bool(rows) and supervisor is not None and all(row["ready"] for row in rows)
        if ready or time.monotonic() >= end:
            break
        time.sleep(0.1)
    if as_json:
        print(json.dumps({"supervisor": supervisor.pid if supervisor else None, "processes": rows}, indent=1))
    else:
        _print(rows, supervisor, instance)
    if not any(row["pid"] for row in rows):
        return NOT_RUNNING
    return ALL_READY if ready else NOT_ALL_READY


def _print(rows: list[dict[str, Any]], supervisor: Process | None, instance: Instance) -> None:
    if not any(row["pid"] for row in rows):
        print(f"Posthouse is not running in {instance.local}. Start it: ./posthouse up")
        return
    print(f"{'process':<12} {'pid':>8}  {'ready':<6} {'memory':>9} {'up':>9} {'restarts':>8}  address")
    for row in rows:
        ready = "yes" if row["ready"] else "no"
        memory = f"{row['memory'] / 1024 / 1024:.1f} MiB"
        up = _duration(row["seconds"])
        pid = row["pid"] or "-"
        where = row["why"] or row["address"]
        print(f"{row['name']:<12} {pid:>8}  {ready:<6} {memory:>9} {up:>9} {row['ends']:>8}  {where}")
    print(f"{'all':<12} {'':>8}  {'':<6} {sum(row['memory'] for row in rows) / 1024 / 1024:>5.1f} MiB")
    if supervisor is None:
        print("Nobody watches over these: their supervisor was killed. ./posthouse up or down puts it right.")


def _duration(seconds: float) -> str:
    for unit, size in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= size:
            return f"{seconds / size:.1f} {unit}"
    return f"{seconds:.0f} s"


def down(instance: Instance, console: Console) -> int:
    """Stop the instance and whatever an earlier one left; fine when nothing runs."""
    began = time.monotonic()
    names = list(instance.read_state().get("programs", {}))
    supervisor = supervisor_of(instance)
    if supervisor:
        supervisor.signal(signal.SIGTERM)
        if not supervisor.wait(STOP_SECONDS):
            raise Failure(
                f"The supervisor (process {supervisor.pid}) does not end.", instance.logs / "supervisor.log"
            )
    stop_left_over(instance, console)
    instance.state.unlink(missing_ok=True)
    if names:
        console.line(
            f"Posthouse has stopped ({', '.join(names)}) in {time.monotonic() - began:.1f} s. The data stays."
        )
    else:
        console.line("Posthouse was not running.")
    return 0
