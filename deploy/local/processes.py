"""Looking at processes, and signalling only those that are surely ours."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

PROC = Path("/proc")


@dataclass(frozen=True)
class Process:
    """A process that cannot be mistaken for a later one with the same number."""

    pid: int
    born: str

    @classmethod
    def of(cls, pid: int) -> Process | None:
        """The process that has this number now; None when there is none or it has ended."""
        born = _born(pid)
        return cls(pid, born) if born else None

    @classmethod
    def recorded(cls, numbers: Sequence[Any] | None) -> Process | None:
        """The process that was written down as `[pid, born]`, if it still runs."""
        process = cls(*numbers) if numbers else None
        return process if process and process.alive() else None

    def alive(self) -> bool:
        """Whether it still runs."""
        return Process.of(self.pid) == self

    def signal(self, number: signal.Signals) -> None:
        """Send a signal, if it is still the same process."""
        if self.alive():
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, number)

    def wait(self, seconds: float) -> bool:
        """Whether it ended within that time; for processes that are not our children."""
        end = time.monotonic() + seconds
        while self.alive():
            if time.monotonic() > end:
                return False
            time.sleep(0.02)
        return True

    def wait_or_kill(self, seconds: float) -> None:
        """After it was asked to end: end it when it does not in time."""
        if not self.wait(seconds):
            self.signal(signal.SIGKILL)
            self.wait(5)

    def memory(self) -> int:
        """Bytes it and the processes under it really take; shared pages are counted once."""
        return sum(_memory(pid) for pid in _family(self.pid))


def _born(pid: int) -> str:
    """When a process was started, to the clock tick of this boot (proc(5), field 22)."""
    if not PROC.joinpath("self").exists():
        return _born_by_ps(pid)
    try:
        fields = (PROC / str(pid) / "stat").read_text().rpartition(")")[2].split()
    except (OSError, ValueError):
        return ""
    return "" if fields[0] in "ZX" else f"{_boot()}/{fields[19]}"


def _boot() -> str:
    try:
        return (PROC / "sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return ""


def _born_by_ps(pid: int) -> str:
    answer = subprocess.run(
        ["ps", "-o", "lstart=", "-p", str(pid)], capture_output=True, text=True, check=False
    )
    return answer.stdout.strip()


def _family(pid: int) -> Iterator[int]:
    children = defaultdict(list)
    for stat in PROC.glob("[0-9]*/stat"):
        try:
            parent = int(stat.read_text().rpartition(")")[2].split()[1])
        except (OSError, ValueError, IndexError):
            continue
        children[parent].append(int(stat.parent.name))
    waiting = [pid]
    while waiting:
        yield (one := waiting.pop())
        waiting += children[one]


def _memory(pid: int) -> int:
    try:
        for line in (PROC / str(pid) / "smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                return int(line.split()[1]) * 1024
    except (OSError, ValueError):
        pass
    return 0
