"""What a row is: what breaks under the load, what must hold, and the same with its protection off."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from tests.faults.devices import Manners
from tests.faults.scene import Scene

HONEST = Manners()
Break = Callable[[Scene], Awaitable[None]]


@dataclass(frozen=True)
class Bare:
    """The unprotected variant: what is taken away, and how that is done."""

    words: str
    environment: Mapping[str, str] = field(default_factory=dict)
    manners: Manners | None = None
    run: Break | None = None
    shows: str = ""
    """A figure that must be above 0 when neither lost nor doubled can be."""
    once: float = 0.0
    each: float = 6.0
    """Seconds that are expected, as those of a row."""
    alone: bool = False
    """No other unprotected variant may run at the same time."""


@dataclass(frozen=True)
class Row:
    """One row of the scoreboard; `faults` is how many a full run has, `short` how many CI's."""

    id: str
    words: str
    run: Break
    bare: Bare | None
    faults: int = 20
    short: int = 1
    bare_faults: int = 2
    once: float = 0.0
    each: float = 10.5
    """Seconds that are expected of a full run, for the row and for each fault; they limit nothing."""
    beside: str = ""
    """A row at whose side this one may run: the figures of both leave room for that."""
    kills_broker: bool = False
    scale: str = "ingest=2"
    environment: Mapping[str, str] = field(default_factory=dict)
    cables: Mapping[str, str] = field(default_factory=dict)
    """Name of a cable and the processes that reach the broker through it: services.gateway, services."""
    manners: Manners = HONEST
    lets_through: tuple[str, ...] = ()
    """Answers that are no mistake in this row, as `500 `."""
    dead: int | None = 0
    """Dead letters that must be there at the end for each fault; None: the row counts them itself."""

    @property
    def own_file(self) -> Path:
        """Where its journal is kept, by name only."""
        return Path(f"{self.id}.jsonl")
