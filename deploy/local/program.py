"""What the supervisor must know of a process it keeps running."""

from __future__ import annotations

import signal
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path


def _nothing() -> None:
    return None


@dataclass(frozen=True)
class Program:
    """One process: how it is started, when it is ready, how it is stopped."""

    name: str
    command: tuple[str, ...]
    env: Mapping[str, str]
    log: Path
    probes: tuple[str, ...]
    """Addresses that all have to answer (see probe.py) before it counts as ready."""
    cwd: Path = Path("/")
    stop_signal: signal.Signals = signal.SIGTERM
    stop_seconds: float = 15.0
    before: Callable[[], None] = field(default=_nothing)
    """Runs before every start, in a thread."""
    user: int | None = None
    """Start it as this user; only root can."""
    fds: tuple[int, ...] = ()
    """Open files of ours that it is given under the same numbers."""
    address: str = ""
    """Where it can be reached, as shown to people."""
