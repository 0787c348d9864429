"""In which order rows run, which of them side by side, and how long all of it is expected to take."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from tests.faults.row import Row
from tests.faults.run import Depth

START_SECONDS = 14.0
END_SECONDS = 12.0
LOAD_SECONDS = 22.0
BARE_SIDE_BY_SIDE = 3
"""Of unprotected variants only counts matter: they do not mind other instances on their cores."""


@dataclass(frozen=True)
class Part:
    """A row, or its unprotected variant."""

    row: Row
    bare: bool

    def seconds(self, depth: Depth) -> float:
        """Expected under load."""
        faults = depth.of(self.row, self.bare)
        if self.bare and self.row.bare:
            return self.row.bare.once + faults * self.row.bare.each
        return max(LOAD_SECONDS, self.row.once + faults * self.row.each)


Stage = Sequence[Part]


def stages(rows: Sequence[Row], depth: Depth) -> list[Stage]:
    """First the rows, each with those that may run at its side, then the unprotected variants."""
    chosen = {row.id for row in rows}
    found: list[Stage] = []
    for row in rows:
        if row.beside not in chosen:
            found.append([Part(row, False), *(Part(one, False) for one in rows if one.beside == row.id)])
    bare = [Part(row, True) for row in rows if row.bare] if depth.bare else []
    together = [part for part in bare if not (part.row.bare and part.row.bare.alone)]
    found += [together[at : at + BARE_SIDE_BY_SIDE] for at in range(0, len(together), BARE_SIDE_BY_SIDE)]
    return found + [[part] for part in bare if part not in together]


def seconds(all_of_them: Iterable[Stage], depth: Depth) -> float:
    """Expected in all: while one stage counts, the next one starts."""
    return END_SECONDS + sum(
        START_SECONDS * (1 + len(stage)) / 2 + max(part.seconds(depth) for part in stage)
        for stage in all_of_them
    )
