"""The newest readings and a day of one series, while the table grows a hundredfold."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import timedelta
from urllib.parse import urlencode

from benchmarks.contest import Burst, compared, our, p50, rotate
from benchmarks.growth_rows import grow
from benchmarks.load import Request
from benchmarks.parts.query import PATH
from benchmarks.stage import Stage
from benchmarks.table import Row, Target, judged, ratio_of

SECONDS = 200
SIZES = (100_000, 1_000_000, 10_000_000)
TARGET = Target(1.5, lower=True)
YARDSTICK = "yardstick"
NOTE = "p50 at 1 connection, each divided by that of a query without a database in the same rotation"


async def run(stage: Stage) -> list[Row]:
    """Each size against the smallest."""
    connection = await stage.database()
    dataset = await stage.dataset("growing")
    number = await connection.fetchval("SELECT number FROM ingest.dataset WHERE id = $1", dataset)
    seen: dict[int, Mapping[str, Sequence[Burst]]] = {}
    for size in SIZES:
        stage.progress.say(f"{size:,} rows are made")
        await grow(connection, number, size)
        requests = await _requests(stage, dataset, number)
        contenders = [our(stage, name, request) for name, request in requests.items()]
        seen[size] = await rotate(stage, contenders, 1)
    names = [name for name in seen[SIZES[0]] if name != YARDSTICK]
    return [_row(name, size, seen) for name in names for size in SIZES[1:]]


async def _requests(stage: Stage, dataset: str, number: int) -> dict[str, Request]:
    connection = await stage.database()
    first = await connection.fetchval(
        "SELECT first_at FROM ingest.dataset_counter WHERE dataset = $1", number
    )
    start = first + timedelta(days=3)
    day = {"start": start.isoformat(), "end": (start + timedelta(days=1)).isoformat(), "limit": 1000}
    path, headers = f"/v1/datasets/{dataset}/readings", await stage.bearer()
    return {
        "newest 100": Request(path=f"{path}?limit=100", headers=headers),
        "a day": Request(path=f"{path}?{urlencode(day)}", headers=headers),
        YARDSTICK: Request(path=PATH, headers=headers),
    }


def _row(name: str, size: int, seen: Mapping[int, Mapping[str, Sequence[Burst]]]) -> Row:
    large, small = seen[size], seen[SIZES[0]]
    row = compared(
        "growth",
        f"{name}: {size:.0e} / {SIZES[0]:.0e} rows",
        1,
        large[name],
        small[name],
        None,
        measure=p50,
        note=NOTE,
    )
    ratio = ratio_of(zip(_relative(large, name), _relative(small, name), strict=True))
    return judged(row, ratio, TARGET)


def _relative(bursts: Mapping[str, Sequence[Burst]], name: str) -> list[float]:
    return [one.p50_ms / other.p50_ms for one, other in zip(bursts[name], bursts[YARDSTICK], strict=True)]
