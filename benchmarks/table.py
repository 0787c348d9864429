"""Rows of the result: what was compared, the ratio, and whether its target is met."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping, Sequence

import msgspec
from msgspec import Struct

HEAD = ("part", "against", "conn.", "ours", "theirs", "ratio", "target", "met", "p50/p99 ms", "of theirs")
CPU_HEAD = ("part", "conn.", "who", "CPU seconds")
LEAST_CPU = 0.0005
"""Processes below this many seconds for 1,000 requests are not shown."""


class Target(Struct, frozen=True):
    """What a ratio has to reach, or stay below when `lower` is better; `stretch` is the wish beyond."""

    value: float
    stretch: float | None = None
    lower: bool = False

    def met(self, ratio: float) -> bool:
        """Whether this ratio is good enough."""
        return ratio <= self.value if self.lower else ratio >= self.value


class Ratio(Struct, frozen=True):
    """The median of the ratios inside each rotation, and their spread."""

    median: float
    low: float
    high: float


class Cost(Struct, frozen=True):
    """Median latencies in ms, and CPU seconds for 1,000 requests by process (`client` is the load)."""

    p50_ms: float
    p99_ms: float
    cpu: Mapping[str, float]


class Row(Struct, frozen=True, kw_only=True):
    """One comparison; without `ratio` it is a figure, or a peer that is missing (`note` says why)."""

    part: str
    against: str
    connections: int | None = None
    ours: float | None = None
    theirs: float | None = None
    unit: str = ""
    ratio: float | None = None
    low: float | None = None
    high: float | None = None
    target: float | None = None
    stretch: float | None = None
    lower: bool = False
    met: bool | None = None
    cost: Cost | None = None
    their_cost: Cost | None = None
    note: str = ""


def ratio_of(pairs: Iterable[tuple[float, float]]) -> Ratio:
    """Pairs are (ours, theirs) of one rotation each; at least one is needed."""
    ratios = [ours / theirs if theirs else float("inf") for ours, theirs in pairs]
    return Ratio(statistics.median(ratios), min(ratios), max(ratios))


def judged(row: Row, ratio: Ratio, target: Target | None) -> Row:
    """The row with its ratio, and whether the target is met."""
    values = {"ratio": ratio.median, "low": ratio.low, "high": ratio.high}
    if target is None:
        return msgspec.structs.replace(row, **values)
    return msgspec.structs.replace(
        row,
        **values,
        target=target.value,
        stretch=target.stretch,
        lower=target.lower,
        met=target.met(ratio.median),
    )


def missed(rows: Iterable[Row]) -> int:
    """How many targets are not met."""
    return sum(row.met is False for row in rows)


def to_json(rows: Sequence[Row]) -> bytes:
    """The list as `latest.json` has it."""
    return msgspec.json.format(msgspec.json.encode(rows), indent=1) + b"\n"


def to_text(rows: Sequence[Row]) -> str:
    """The tables of ratios, of CPU seconds, and the notes, in Markdown that lines up in a terminal."""
    parts = [lined_up(HEAD, [_cells(row) for row in rows])]
    if costs := list(_costs(rows)):
        parts += ["CPU seconds for 1,000 requests, by process:", lined_up(CPU_HEAD, costs)]
    if notes := _notes(rows):
        parts += ["\n".join(notes)]
    return "\n\n".join(parts) + "\n"


def range_of_limit(rows: Iterable[Row]) -> str:
    """Between which rates the same program, the limit, moved in the course of the run."""
    rates = [row.theirs for row in rows if row.against == "limit" and row.theirs and row.connections == 64]
    if len(rates) < 2:
        return ""
    return (
        f"the limit at 64 connections moved from {shown(min(rates))} to {shown(max(rates))}/s between parts"
    )


def lined_up(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table whose columns are as wide as their widest cell."""
    lines = [head, *rows]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    made = [" | ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) for line in lines]
    made.insert(1, "-|-".join("-" * width for width in widths))
    return "\n".join(f"| {line} |" if "-|-" not in line else f"|-{line}-|" for line in made)


def shown(value: float | None) -> str:
    """Three figures that count: 0.583, 14.2, 20,500."""
    if value is None:
        return "-"
    size = abs(value)
    digits = 3 if size < 1 else 2 if size < 10 else 1 if size < 100 else 0
    return f"{value:,.{digits}f}"


def _cells(row: Row) -> tuple[str, ...]:
    return (
        row.part,
        row.against,
        "-" if row.connections is None else str(row.connections),
        _with_unit(row.ours, row.unit),
        _with_unit(row.theirs, row.unit),
        _ratio(row),
        _target(row),
        "-" if row.met is None else "yes" if row.met else "NO",
        _latency(row.cost),
        _latency(row.their_cost),
    )


def _with_unit(value: float | None, unit: str) -> str:
    return "-" if value is None else f"{shown(value)} {unit}".rstrip()


def _ratio(row: Row) -> str:
    if row.ratio is None:
        return "-"
    return f"{shown(row.ratio)} [{shown(row.low)}..{shown(row.high)}]"


def _target(row: Row) -> str:
    if row.target is None:
        return "-"
    text = f"{'<=' if row.lower else '>='} {row.target:g}"
    return text if row.stretch is None else f"{text} ({row.stretch:g})"


def _latency(cost: Cost | None) -> str:
    return "-" if cost is None else f"{cost.p50_ms:.2f}/{cost.p99_ms:.2f}"


def _costs(rows: Iterable[Row]) -> Iterable[tuple[str, ...]]:
    """One line for each who was measured; ours is the same in several rows."""
    seen: dict[tuple[str, ...], None] = {}
    for row in rows:
        for who, cost in (("ours", row.cost), (row.against, row.their_cost)):
            if cost is not None:
                seen[row.part, str(row.connections), who, _by_process(cost)] = None
    return seen


def _notes(rows: Iterable[Row]) -> list[str]:
    """Each note once, with all it is about."""
    about: dict[str, list[str]] = {}
    for row in rows:
        if row.note:
            about.setdefault(row.note, []).append(f"{row.part}, {row.against}")
    return [f"- {'; '.join(names)}: {note}" for note, names in about.items()]


def _by_process(cost: Cost) -> str:
    largest = sorted(cost.cpu.items(), key=lambda item: -item[1])
    return ", ".join(f"{name} {seconds:.3f}" for name, seconds in largest if seconds >= LEAST_CPU)
