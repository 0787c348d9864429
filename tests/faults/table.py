"""The table `make faults` ends with."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from tests.faults.run import Result, place_of

HEAD = (
    "row",
    "what",
    "faults",
    "attempted",
    "acknowledged",
    "stored",
    "lost",
    "doubled",
    "recovered",
    "unexp.",
    "minutes",
    "",
)


def lines(results: Sequence[Result], not_yet: Mapping[str, str]) -> Iterator[str]:
    """One line a row, its figures under it."""
    yield ""
    yield _line(HEAD)
    for one in sorted(results, key=lambda each: place_of(each.row)):
        count = one.count
        numbers = (
            count.attempted, count.acknowledged, count.stored, count.lost, count.doubled, count.recovered,
            count.unexpected, f"{one.seconds / 60:.1f}",
        )  # fmt: skip
        yield _line((one.row, one.words[:40], one.faults, *numbers, "passed" if one.passed else "MISSED"))
        limits = (" limit", " at least")
        shown = {name: value for name, value in one.figures.items() if not name.endswith(limits)}
        yield "         " + "; ".join(f"{name} {value}{_limit(one, name)}" for name, value in shown.items())
        for words in one.missed:
            yield f"         missed: {words}"
    for name, words in not_yet.items():
        yield f"{name:<8} {words}: not yet"


def _limit(one: Result, name: str) -> str:
    most = one.figures.get(f"{name} limit")
    least = one.figures.get(f"{name} at least")
    if least is not None:
        return f" (>= {least:g})"
    return "" if most is None else f" (<= {most:g})"


def _line(cells: Sequence[object]) -> str:
    first, second, *rest = cells
    *numbers, last = rest
    return f"{first!s:<8} {second!s:<40} " + " ".join(f"{each!s:>12}" for each in numbers) + f"  {last}"
