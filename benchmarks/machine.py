"""What the machine is, and what each process takes of it: CPU seconds and memory from /proc."""

from __future__ import annotations

import os
import platform
from collections import defaultdict
from collections.abc import Iterable, Mapping
from pathlib import Path

from deploy.local.processes import Process

PROC = Path("/proc")
TICKS = os.sysconf("SC_CLK_TCK")


def describe() -> list[str]:
    """Processor, cores, memory, kernel and load, one line each."""
    total = next(line for line in (PROC / "meminfo").read_text().splitlines() if line.startswith("MemTotal"))
    load = (PROC / "loadavg").read_text().split()[:3]
    return [
        f"{_processor()}, {len(os.sched_getaffinity(0))} cores, {int(total.split()[1]) / 1024**2:.1f} GiB",
        f"{platform.system()} {platform.release()}, Python {platform.python_version()}",
        f"load average at the start: {', '.join(load)}",
    ]


def _processor() -> str:
    for line in (PROC / "cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


def cpu_seconds(groups: Mapping[str, Iterable[int]]) -> dict[str, float]:
    """CPU seconds so far of each group of processes, everything started by them included."""
    seconds, children = _all_processes()
    return {name: sum(_of_family(pid, seconds, children) for pid in pids) for name, pids in groups.items()}


def spent(before: Mapping[str, float], after: Mapping[str, float]) -> dict[str, float]:
    """What each group took between two looks."""
    return {name: max(0.0, after[name] - before.get(name, 0.0)) for name in after}


def _of_family(pid: int, seconds: Mapping[int, float], children: Mapping[int, list[int]]) -> float:
    below = sum(_of_family(child, seconds, children) for child in children.get(pid, ()))
    return seconds.get(pid, 0.0) + below


def _all_processes() -> tuple[dict[int, float], dict[int, list[int]]]:
    seconds: dict[int, float] = {}
    children: dict[int, list[int]] = defaultdict(list)
    for stat in PROC.glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        pid = int(stat.parent.name)
        # proc(5): utime, stime and those of children that have ended and were waited for.
        seconds[pid] = sum(map(int, fields[11:15])) / TICKS
        children[int(fields[1])].append(pid)
    return seconds, children


def memory(pid: int) -> int:
    """Bytes this process and those under it take; shared pages are counted once."""
    process = Process.of(pid)
    return process.memory() if process else 0
