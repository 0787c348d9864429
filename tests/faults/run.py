"""Runs one row: an instance of its own, the load, the faults, and a count of everything at the end."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import random
import re
import shutil
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from tests.faults.cable import Cable, cable_to_broker_of
from tests.faults.devices import Devices
from tests.faults.journal import Count, Journal, check
from tests.faults.kills import HOOKS
from tests.faults.places import reserve
from tests.faults.row import Row
from tests.faults.scene import GAP_SECONDS, Scene
from tests.faults.stored import settled
from tests.faults.writers import Target
from tests.journeys.instance import OwnPosthouse, make_dataset, own_posthouse, sign_up, until

DATASETS = 20
LEAST_ACKNOWLEDGED = 10_000
WARM = 1_000
FINISH_SECONDS = 90
BARE_GAP_SECONDS = 3.0
LOAD_SECONDS = 180
QUORUM_SECONDS = 12
"""A younger quorum queue may find no leader after its only broker was killed (RabbitMQ issue 10070)."""


ROW_SECONDS = 900
NOTHING = Count()


class Turn:
    """Runs follow each other: an instance may start while another counts, but only one stage is loaded."""

    def __init__(self, before: Sequence[Turn] = ()) -> None:
        self._before = before
        self.began = time.monotonic()
        """When it could begin, once it has."""
        self.quiet = asyncio.Event()
        """Its load is over."""
        self.ended = asyncio.Event()
        """Nothing of it runs any more."""

    async def begins(self) -> None:
        """Return when nothing of those before runs any more."""
        for each in self._before:
            await each.ended.wait()
        self.began = time.monotonic()

    def end(self) -> None:
        """All of it is over."""
        self.quiet.set()
        self.ended.set()


@dataclass(frozen=True)
class Depth:
    """How much of each row: faults, acknowledged at least, seconds between faults, with variants or not."""

    faults: int = 0
    """0: as many as the row says."""
    least: int = LEAST_ACKNOWLEDGED
    gap: float = GAP_SECONDS
    bare: bool = True
    short: bool = False

    def of(self, row: Row, bare: bool) -> int:
        """How many faults."""
        if bare:
            return min(self.faults or row.bare_faults, row.bare_faults)
        return self.faults or (row.short if self.short else row.faults)


@dataclass
class Result:
    """One line of the table."""

    row: str
    words: str
    faults: int = 0
    count: Count = NOTHING
    figures: dict[str, Any] = field(default_factory=dict)
    missed: list[str] = field(default_factory=list)
    seconds: float = 0.0

    @property
    def passed(self) -> bool:
        """Nothing lost, nothing doubled, and every figure within its limit."""
        return not self.missed

    def as_json(self) -> dict[str, Any]:
        """As `latest.json` has it."""
        return {
            "row": self.row,
            "words": self.words,
            "faults": self.faults,
            **asdict(self.count),
            "figures": self.figures,
            "missed": self.missed,
            "passed": self.passed,
            "seconds": round(self.seconds, 1),
        }


async def run(
    row: Row,
    depth: Depth,
    seed: int,
    say: Callable[[str], None],
    *,
    bare: bool = False,
    turn: Turn | None = None,
) -> Result:
    """Run a row, or its unprotected variant; an error of the row is a miss, not the end of the others."""
    words = row.bare.words if bare and row.bare else row.words
    result = Result(f"{row.id} bare" if bare else row.id, words)
    directory = _directory(result.row)
    turn = turn or Turn()
    try:
        async with asyncio.timeout(ROW_SECONDS):
            await _run(row, depth, seed, say, bare, directory, result, turn)
    except (Exception, asyncio.CancelledError) as error:
        result.missed.append(f"{type(error).__name__}: {error}")
        if isinstance(error, asyncio.CancelledError):
            raise
    finally:
        result.seconds = time.monotonic() - turn.began
        if result.missed:
            _keep_logs(directory, result.row.replace(" ", "-"), say)
        shutil.rmtree(directory, ignore_errors=True)
        turn.end()
    return result


def _directory(name: str) -> Path:
    place = os.environ.get("FAULTS_PLACE")
    if not place:
        return Path(tempfile.mkdtemp(prefix="posthouse-faults-"))
    directory = Path(place) / name.replace(" ", "-")
    shutil.rmtree(directory, ignore_errors=True)
    directory.mkdir(parents=True)
    return directory


def _keep_logs(directory: Path, name: str, say: Callable[[str], None]) -> None:
    kept = directory.parent / "logs" / name
    with contextlib.suppress(OSError):
        shutil.copytree(directory / "logs", kept, dirs_exist_ok=True)
        say(f"logs are kept in {kept}")


async def _run(
    row: Row,
    depth: Depth,
    seed: int,
    say: Callable[[str], None],
    bare: bool,
    directory: Path,
    result: Result,
    turn: Turn,
) -> None:
    break_it = row.bare.run or row.run if bare and row.bare else row.run
    async with AsyncExitStack() as stack:
        scene = await _set_up(stack, row, depth, random.Random(f"{seed} {result.row}"), say, bare, directory)
        up_since = time.monotonic()
        await turn.begins()
        scene.devices.start()
        await until(lambda: scene.devices.acknowledged >= WARM, "every device has been heard")
        if row.kills_broker:
            await asyncio.sleep(max(0.0, up_since + QUORUM_SECONDS - time.monotonic()))
        await _noted(scene, break_it(scene))
        await _loaded_enough(scene.devices, 0 if bare else scene.least_acknowledged)
        await _noted(scene, asyncio.wait_for(scene.devices.finish(), FINISH_SECONDS))
        turn.quiet.set()
        await _noted(scene, settled(scene.posthouse))
        await _judge(row, scene, directory / row.own_file, result, bare)


async def _set_up(
    stack: AsyncExitStack,
    row: Row,
    depth: Depth,
    dice: random.Random,
    say: Callable[[str], None],
    bare: bool,
    directory: Path,
) -> Scene:
    """Start an instance with what the row asks for; its load has yet to begin."""
    environment, manners = dict(row.environment), row.manners
    if bare and row.bare:
        environment |= row.bare.environment
        manners = row.bare.manners or manners
    cables = {name: await stack.enter_async_context(cable_to_broker_of(directory)) for name in row.cables}
    environment = _environment(environment, row.cables, cables, directory)
    environment["POSTHOUSE_PORT"] = str(reserve(directory))
    posthouse = await stack.enter_async_context(own_posthouse(directory, row.scale, **environment))
    token = await asyncio.to_thread(sign_up, posthouse)
    journal = Journal(directory / row.own_file)
    stack.callback(journal.close)
    devices = Devices(posthouse.url, await _targets(posthouse, token), token, journal, manners)
    stack.callback(devices.cancel)
    gap = BARE_GAP_SECONDS if bare else depth.gap
    scene = Scene(posthouse, devices, directory, token, depth.of(row, bare), dice, cables, say, gap=gap)
    scene.least_acknowledged = depth.least
    return scene


async def _noted(scene: Scene, step: Awaitable[None]) -> None:
    """What goes wrong on the way is a miss; what has become of the ledger is looked at all the same."""
    try:
        await step
    except Exception as error:
        scene.missed.append(f"{type(error).__name__}: {error}"[:500])


def _environment(
    given: Mapping[str, str], names: Mapping[str, str], cables: Mapping[str, Cable], directory: Path
) -> dict[str, str]:
    hooked = {"PYTHONPATH": str(HOOKS), "POSTHOUSE_ACCESS_TOKEN_SECONDS": "3600"}
    behind = " ".join(f"{processes}={cables[name].port}" for name, processes in names.items())
    return (
        {"FAULTS_IN": "services.ingest", "FAULTS_AMQP": behind}
        | hooked
        | {name: value.replace("{directory}", str(directory)) for name, value in given.items()}
    )


async def _targets(posthouse: OwnPosthouse, token: str) -> list[Target]:
    made = [
        await asyncio.to_thread(make_dataset, posthouse, token, f"devices {number}", "n")
        for number in range(DATASETS)
    ]
    return [Target(one["id"], one["write_key"]) for one in made]


async def _loaded_enough(devices: Devices, least: int) -> None:
    end = time.monotonic() + LOAD_SECONDS
    while devices.acknowledged < least and time.monotonic() < end:  # noqa: ASYNC110
        await asyncio.sleep(0.1)


async def _judge(row: Row, scene: Scene, journal: Path, result: Result, bare: bool) -> None:
    count = await check(scene.posthouse, journal)
    dead = await scene.posthouse.depth("dead.ingest")
    mistakes = [
        words for words in scene.devices.mistakes if not any(each in words for each in row.lets_through)
    ]
    result.faults, result.count = len(scene.faults), count
    in_flight = min((fault.in_flight for fault in scene.faults), default=0)
    result.figures = scene.figures | {
        "in flight, least": in_flight,
        "answers": dict(scene.devices.answers),
        "dead letters": dead,
    }
    if bare and row.bare:
        harm = count.lost + count.doubled
        shown = scene.figures.get(row.bare.shows, 0) if row.bare.shows else harm
        result.missed = [] if shown else ["the unprotected variant lost and doubled nothing"]
        return
    result.missed = list(scene.missed)
    wrongs = ("lost", "doubled", "unexpected", "misnumbered")
    result.missed += [f"{getattr(count, name)} {name}" for name in wrongs if getattr(count, name)]
    if mistakes:
        result.missed.append(f"{len(mistakes)} wrong answers, the first: {mistakes[0][:200]}")
    if row.dead is not None and dead != row.dead * len(scene.faults):
        result.missed.append(f"{dead} dead letters instead of {row.dead * len(scene.faults)}")
    if count.acknowledged < scene.least_acknowledged:
        result.missed.append(f"only {count.acknowledged} acknowledged: the row does not count")


def write(path: Path, results: list[Result], seed: int, not_yet: Iterable[str]) -> None:
    """Keep the table for machines; rows that were not run now stay as they were."""
    rows = {one["row"]: one for one in _kept(path)}
    at = datetime.now(UTC).isoformat(timespec="seconds")
    rows |= {one.row: one.as_json() | {"seed": seed, "at": at} for one in results}
    rows |= {name: {"row": name, "words": "not yet", "faults": 0, "passed": None} for name in not_yet}
    path.parent.mkdir(parents=True, exist_ok=True)
    new = path.with_suffix(".new")
    ordered = sorted(rows.values(), key=lambda row: place_of(row["row"]))
    new.write_text(json.dumps(ordered, indent=1) + "\n")
    new.replace(path)  # whoever is ended meanwhile has lost nothing of what was there


def place_of(name: str) -> tuple[str, int, str]:
    """Where a row stands in the table: R1 before R10, R before S, a row before its variant."""
    return name[0], int(re.findall(r"\d+", name)[0]), name


def _kept(path: Path) -> list[dict[str, Any]]:
    try:
        found = json.loads(path.read_text())
    except (OSError, ValueError):
        return []
    return found if isinstance(found, list) else []
