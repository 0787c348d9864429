"""What a look at one thing has found."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Literal

Mend = Literal["", "broker", "leaders", "database", "partitions", "files"]
Environment = Mapping[str, str]
SECONDS = 10.0


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at; `advice` is empty when it is as it should be, `mend` when only somebody
    else than `--mend` can do something.
    """

    part: str
    words: str
    advice: str = ""
    mend: Mend = ""

    @property
    def is_wrong(self) -> bool:
        """Whether there is something to do."""
        return bool(self.advice)


Check = Callable[[Environment], Awaitable[list[Finding]]]


def mendable(part: str, words: str, mend: Mend) -> Finding:
    """What `--mend` puts right."""
    return Finding(part, words, "./posthouse doctor --mend", mend)
