"""What is being done and how much time is left, on standard error."""

from __future__ import annotations

import sys
import time


class Progress:
    """Of parts whose lengths are about known."""

    def __init__(self, seconds: dict[str, float]) -> None:
        self._seconds = seconds
        self._part = ""
        self._until = 0.0
        self._live = sys.stderr.isatty()

    def part(self, name: str) -> None:
        """A part begins."""
        self._part = name
        self._until = time.monotonic() + self._seconds.pop(name, 0.0)
        self.line(name)

    def say(self, text: str) -> None:
        """What is done in it now."""
        self.line(f"{self._part}: {text}")

    def line(self, text: str) -> None:
        """One line with the time left; on a terminal it replaces the one before."""
        left = sum(self._seconds.values()) + max(0.0, self._until - time.monotonic())
        shown = f"  {left / 60:4.1f} min left  {text}"
        print(
            f"\r\x1b[K{shown}" if self._live else shown,
            end="" if self._live else "\n",
            file=sys.stderr,
            flush=True,
        )

    def end(self) -> None:
        """Nothing more is shown."""
        if self._live:
            print("\r\x1b[K", end="", file=sys.stderr, flush=True)
