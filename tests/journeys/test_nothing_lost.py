"""What was acknowledged is there, once, whatever is killed while it is written."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.faults.kills import HOOKS, Kill, Killer
from tests.faults.stored import Stored, look, settled, total
from tests.faults.writers import Target, Writers
from tests.journeys.instance import make_dataset, own_posthouse, sign_up

pytestmark = pytest.mark.timeout(420)

QUORUM_SECONDS = 12
"""A younger quorum queue may find no leader after its only broker was killed (RabbitMQ issue 10070)."""
DATASETS = 4
EVERYTHING = ("rabbitmq", "postgres", "redis", "auth", "ingest", "ingest-2", "gateway", "worker", "chat")


@dataclass(frozen=True)
class Report:
    """What the journey found."""

    kills: Sequence[Kill]
    stored: list[Stored]
    answers: dict[str, int]
    wrong: list[str]
    dead: int


async def journey(directory: Path, *, inbox: str, full: bool) -> Report:
    """Write from 16 clients while one part after the other is killed; compare when all has settled."""
    trigger = directory / "kill-after-commit"
    faults = {"FAULTS_IN": "services.ingest", "FAULTS_KILL_FILE": str(trigger), "FAULTS_INBOX": inbox}
    async with own_posthouse(directory, "ingest=2", PYTHONPATH=str(HOOKS), **faults) as posthouse:
        began = time.monotonic()
        token = await asyncio.to_thread(sign_up, posthouse)
        made = [make_dataset(posthouse, token, f"ledger {n}", "n") for n in range(DATASETS)]
        writers = Writers(posthouse.url, [Target(one["id"], one["write_key"]) for one in made])
        killer = Killer(posthouse, writers, trigger)
        writers.start()
        try:
            for commits in (1, 2, 3, 5, 8) if full else (1, 3):
                await killer.kill_after_commit(commits)
            if full:
                await killer.kill("gateway")
                await asyncio.sleep(max(0.0, began + QUORUM_SECONDS - time.monotonic()))
                for name in ("rabbitmq", "postgres", "gateway", "ingest", "rabbitmq", "postgres"):
                    await killer.kill(name)
                await killer.freeze("postgres", 8)
                await killer.kill(*EVERYTHING)
            await asyncio.wait_for(writers.finish(), 60)
        finally:
            writers.cancel()
        await settled(posthouse)
        found = await look(posthouse, token, writers)
        dead = await posthouse.depth("dead.ingest")
    return Report(killer.kills, found, dict(writers.answers), writers.wrong, dead)


def show(found: Report) -> None:
    """The figures, for whoever runs this with -s or -rP."""
    for kill in found.kills:
        print(f"{kill.what[:50]:<50} {kill.in_flight:>4} in flight, {kill.seconds:5.2f} s to a new promise")
    print(total(found.stored), found.answers)


async def test_what_was_acknowledged_is_stored_once_whatever_is_killed(tmp_path: Path) -> None:
    found = await journey(tmp_path, inbox="on", full=True)
    show(found)
    figures = total(found.stored)
    assert found.wrong == []
    assert figures["lost"] == figures["doubled"] == figures["unexpected"] == figures["misnumbered"] == 0
    assert figures["acknowledged"] == figures["attempted"] == figures["stored"]
    assert all(one.is_numbered for one in found.stored)
    assert found.dead == 0
    assert len(found.kills) == 14


async def test_without_the_inbox_the_same_journey_finds_doubles(tmp_path: Path) -> None:
    found = await journey(tmp_path, inbox="off", full=False)
    show(found)
    figures = total(found.stored)
    assert figures["doubled"] > 0
    assert figures["lost"] == 0
