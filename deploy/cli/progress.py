"""How far a command is: a bar on a terminal, nothing but the last line elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import TextIO

WIDTH = 28
EVERY_SECONDS = 0.1


class Progress:
    """A bar over the lines of a file, drawn again at most ten times a second."""

    def __init__(
        self, title: str, out: TextIO = sys.stderr, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._title, self._out, self._clock = title, out, clock
        self._total = self._start = self._done = 0
        self._began = clock()
        self._drawn = float("-inf")
        self._shows = out.isatty()

    def begin(self, total: int, done: int) -> None:
        """Lines there are, and lines that were done before."""
        self._total, self._start, self._done = total, done, done
        self._began = self._clock()

    @property
    def seconds(self) -> float:
        """Since the start."""
        return self._clock() - self._began

    def at(self, done: int) -> None:
        """This many lines of all are done."""
        self._done = done
        if self._shows and (done >= self._total or self._clock() - self._drawn >= EVERY_SECONDS):
            self._draw(self._speed())

    def say(self, words: str) -> None:
        """Show a word beside the bar, as that the server is away."""
        if self._shows:
            self._draw(words)

    def close(self) -> None:
        """Make room for the next line."""
        if self._shows and self._drawn > float("-inf"):
            self._out.write("\n")
            self._out.flush()

    def _draw(self, words: str) -> None:
        part = self._done / self._total if self._total else 1.0
        bar = "#" * int(part * WIDTH)
        lines = f"{self._done:,}/{self._total:,} lines"
        self._out.write(f"\r{self._title}  [{bar:.<{WIDTH}}] {part:4.0%}  {lines}  {words}\x1b[K")
        self._out.flush()
        self._drawn = self._clock()

    def _speed(self) -> str:
        rate = (self._done - self._start) / max(self.seconds, 0.001)
        left = (self._total - self._done) / rate if rate else 0.0
        return f"{rate:,.0f}/s, {left:,.0f} s left"
