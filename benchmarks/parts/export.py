"""A million readings as CSV, beside PostgreSQL's own COPY through psql."""

from __future__ import annotations

import asyncio
import http.client
import statistics
import subprocess
import time
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from urllib.parse import urlsplit

import aiohttp
import msgspec

from benchmarks import machine
from benchmarks.load import WrongAnswers
from benchmarks.parts.rest import MIB
from benchmarks.stage import Stage
from benchmarks.table import Row, Target, judged, ratio_of

SECONDS = 70
READINGS = 1_000_000
PIECE = 1_000
WRITERS = 8
FIRST = datetime(2021, 1, 1, tzinfo=UTC)
TARGET = Target(0.25)
MOST_GROWTH = 24 * MIB
"""A process that holds the file, or a good part of it, grows by more than that."""
COPY = (
    "COPY (SELECT at, numbers[1], numbers[2] FROM ingest.reading WHERE dataset = {number} ORDER BY at, entry)"
    " TO STDOUT (FORMAT csv)"
)


async def run(stage: Stage) -> list[Row]:
    """Speed, and what each process takes of memory meanwhile."""
    dataset = await stage.dataset("export")
    stage.progress.say("a million readings are stored")
    await _fill(stage, dataset)
    connection = await stage.database()
    number = await connection.fetchval("SELECT number FROM ingest.dataset WHERE id = $1", dataset)
    path = f"/v1/datasets/{dataset}/readings.csv"
    await _ours(stage, path)
    before, peak = _memory(stage), Peak(stage)
    pairs = []
    for turn in range(stage.rotations):
        stage.progress.say(f"{turn + 1} of {stage.rotations}")
        async with peak:
            ours = await _ours(stage, path)
        pairs.append((ours, await _psql(stage, COPY.format(number=number))))
    ours, theirs = (statistics.median(READINGS / one[side] for one in pairs) for side in (0, 1))
    row = Row(
        part="export", against="psql COPY TO STDOUT", connections=1, ours=ours, theirs=theirs, unit="/s"
    )
    speed = judged(row, ratio_of((theirs, ours) for ours, theirs in pairs), TARGET)
    return [speed, *(_growth(name, before[name], top) for name, top in peak.bytes.items() if name in before)]


def _growth(name: str, before: int, top: int) -> Row:
    return Row(
        part="export, memory",
        against=f"{name}: most / before",
        ours=top / MIB,
        theirs=before / MIB,
        unit="MiB",
        met=top - before <= MOST_GROWTH,
        note="" if top - before <= MOST_GROWTH else f"grows by {(top - before) / MIB:.0f} MiB",
    )


async def _fill(stage: Stage, dataset: str) -> None:
    pieces = iter(range(READINGS // PIECE))
    url = f"{stage.url}/v1/datasets/{dataset}/readings"
    headers = {"Content-Type": "application/json", **await stage.bearer()}
    async with aiohttp.ClientSession(headers=headers) as client:

        async def write() -> None:
            for piece in pieces:
                async with client.post(url, data=_body(piece)) as answer:
                    if answer.status != 201:
                        raise WrongAnswers(f"export: {answer.status} {(await answer.text())[:300]}")
                    await answer.read()

        await asyncio.gather(*(write() for _ in range(WRITERS)))


def _body(piece: int) -> bytes:
    first = piece * PIECE
    return msgspec.json.encode(
        [
            {
                "at": FIRST + timedelta(minutes=number),
                "values": {"temperature": number * 7919 % 5000 / 100, "humidity": number * 31 % 1000 / 10},
            }
            for number in range(first, first + PIECE)
        ]
    )


async def _ours(stage: Stage, path: str) -> float:
    began = time.monotonic()
    lines = await asyncio.to_thread(_lines, stage.url, path, await stage.bearer())
    if lines != READINGS:  # the head line, and no line break after the last
        raise WrongAnswers(f"export: {lines:,} line breaks for {READINGS:,} readings")
    return time.monotonic() - began


def _lines(url: str, path: str, headers: Mapping[str, str]) -> int:
    connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=60)
    connection.request("GET", path, headers=dict(headers))
    with connection.getresponse() as answer:
        if answer.status != 200:
            raise WrongAnswers(f"export: {answer.status} {answer.read(300)!r}")
        lines, part = 0, bytearray(256 * 1024)
        while size := answer.readinto(part):
            lines += part.count(b"\n", 0, size)
    connection.close()
    return lines


async def _psql(stage: Stage, statement: str) -> float:
    began = time.monotonic()
    command = [str(stage.installed.psql), "-X", "-q", "-c", statement, stage.database_url()]
    await asyncio.to_thread(_to_nothing, command)
    return time.monotonic() - began


def _to_nothing(command: list[str]) -> None:
    subprocess.run(command, stdout=subprocess.DEVNULL, check=True)


def _memory(stage: Stage) -> dict[str, int]:
    return {name: machine.memory(pids[0]) for name, pids in stage.pids.items()}


class Peak:
    """The most each process takes while this is entered."""

    def __init__(self, stage: Stage) -> None:
        self._stage = stage
        self.bytes: dict[str, int] = {}

    async def __aenter__(self) -> None:
        self._task = asyncio.create_task(self._watch())

    async def __aexit__(self, *_: object) -> None:
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)

    async def _watch(self) -> None:
        while True:
            now = await asyncio.to_thread(_memory, self._stage)
            self.bytes = {name: max(size, self.bytes.get(name, 0)) for name, size in now.items()}
            await asyncio.sleep(0.25)
