"""What the person who starts Posthouse sees: one line for each step, with its time."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from deploy.local.errors import Failure

READY = "\x06ready"


@dataclass
class Step:
    """What is printed of a step when it is done."""

    words: str


class Console:
    """Lines to standard output, and to a second place when a start is watched from there."""

    def __init__(self, watcher: int | None = None) -> None:
        self._watcher = watcher

    def line(self, text: str = "") -> None:
        """Print one line now; a reader that has gone away is no reason to stop."""
        try:
            print(text, flush=True)
        except (BrokenPipeError, OSError):
            sys.stdout = open(os.devnull, "w")  # noqa: SIM115
        self._tell(text)

    @contextmanager
    def step(self, name: str, words: str = "ready") -> Iterator[Step]:
        """Time a step and say how it went; its failure carries its name."""
        step = Step(words)
        began = time.monotonic()
        try:
            yield step
        except Failure as failure:
            raise Failure(f"{name}: {failure.reason}", failure.log) from None
        self.line(f"  {name:<18} {step.words:<34} {time.monotonic() - began:6.1f} s")

    def ready(self) -> None:
        """Tell the watcher, if there is one, that the start is complete."""
        self._tell(READY)
        if self._watcher is not None:
            os.close(self._watcher)
            self._watcher = None

    def _tell(self, text: str) -> None:
        if self._watcher is not None:
            try:
                os.write(self._watcher, f"{text}\n".encode())
            except OSError:
                self._watcher = None
