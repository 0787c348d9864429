"""What stops the launcher, in words for the person who started it."""

from __future__ import annotations

from pathlib import Path

TAIL_LINES = 12


class Failure(Exception):
    """One sentence that says what is wrong and what to do; `log` has the rest."""

    def __init__(self, reason: str, log: Path | None = None) -> None:
        super().__init__(reason)
        self.reason = reason
        self.log = log

    def text(self) -> str:
        """The reason and the end of the log, as it is printed."""
        if self.log is None:
            return self.reason
        lines = [self.reason, f"  log: {self.log}"]
        return "\n".join(lines + [f"  | {line}" for line in tail(self.log, TAIL_LINES)])


def tail(path: Path, lines: int) -> list[str]:
    """The last lines of a file that may be missing, long, or not quite UTF-8."""
    try:
        with path.open("rb") as file:
            size = file.seek(0, 2)
            file.seek(max(0, size - 64 * 1024))
            return file.read().decode(errors="replace").splitlines()[-lines:]
    except OSError:
        return []
