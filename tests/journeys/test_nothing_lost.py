"""What was acknowledged is there, once, whatever is killed while it is written."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.faults.kills import HOOKS, Kill, Killer
from tests.faults.ledger import Findings, compare
from tests.faults.writers import Target, Writers
from tests.journeys.instance import OwnPosthouse, make_dataset, own_posthouse, sign_up, until_it_is

pytestmark = pytest.mark.timeout(420)

QUORUM_SECONDS = 12
"""A younger quorum queue may find no leader after its only broker was killed (RabbitMQ issue 10070)."""
DATASETS = 4
EVERYTHING = ("rabbitmq", "postgres", "redis", "auth", "ingest", "ingest-2", "gateway", "worker", "chat")


@dataclass(frozen=True)
class Report:
    """What the journey found."""

    kills: Sequence[Kill]
    findings: dict[str, Findings]
    ledgers: dict[str, dict[str, int]]
    numbered: dict[str, list[int]]
    answers: dict[str, int]
    wrong: list[str]
    dead: int

    def total(self, name: str) -> int:
        """One figure over all datasets."""
        return sum(getattr(found, name) for found in self.findings.values())


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
        return await report(posthouse, token, writers, killer)


async def settled(posthouse: OwnPosthouse) -> None:
    """Return when ingest's queue has been empty for longer than RabbitMQ takes to notice (5 s)."""
    quiet_since = 0.0

    async def is_quiet() -> bool:
        nonlocal quiet_since
        if (await posthouse.management("GET", "queues/%2F/ingest")).get("messages") != 0:
            quiet_since = 0.0
        else:
            quiet_since = quiet_since or time.monotonic()
        return quiet_since != 0.0 and time.monotonic() - quiet_since > 6

    await until_it_is(is_quiet, "ingest's queue is empty")


async def report(posthouse: OwnPosthouse, token: str, writers: Writers, killer: Killer) -> Report:
    """Compare what was promised with the rows of the tables."""
    findings, ledgers, numbered = {}, {}, {}
    for dataset_id, ledger in writers.ledgers.items():
        rows = await posthouse.sql(
            """
            SELECT r.entry, r.numbers[1]::bigint AS value
            FROM ingest.reading r JOIN ingest.dataset d ON d.number = r.dataset
            WHERE d.id = $1 ORDER BY r.entry
            """,
            dataset_id,
        )
        findings[dataset_id] = compare(ledger, [(row["entry"], row["value"]) for row in rows])
        numbered[dataset_id] = [row["entry"] for row in rows]
        ledgers[dataset_id] = await asyncio.to_thread(
            posthouse.ask, f"/v1/datasets/{dataset_id}/ledger", None, token
        )
    return Report(
        killer.kills,
        findings,
        ledgers,
        numbered,
        dict(writers.answers),
        writers.wrong,
        await posthouse.depth("dead.ingest"),
    )


def show(found: Report) -> None:
    """The figures, for whoever runs this with -s or -rP."""
    for kill in found.kills:
        print(
            f"{kill.what[:50]:<50} {kill.in_flight:>4} in flight, {kill.seconds:5.2f} s to the next promise"
        )
    names = ("attempted", "acknowledged", "stored", "lost", "doubled", "unexpected", "misnumbered")
    print({name: found.total(name) for name in names}, found.answers)


async def test_what_was_acknowledged_is_stored_once_whatever_is_killed(tmp_path: Path) -> None:
    found = await journey(tmp_path, inbox="on", full=True)
    show(found)
    assert found.wrong == []
    assert found.total("lost") == 0
    assert found.total("doubled") == 0
    assert found.total("unexpected") == 0
    assert found.total("misnumbered") == 0
    assert found.total("acknowledged") == found.total("attempted") == found.total("stored")
    for dataset_id, entries in found.numbered.items():
        assert entries == list(range(1, len(entries) + 1))
        ledger = found.ledgers[dataset_id]
        assert (ledger["stored"], ledger["last_entry"]) == (len(entries), len(entries))
        assert ledger["in_flight"] == 0
    assert found.dead == 0
    assert len(found.kills) == 14


async def test_without_the_inbox_the_same_journey_finds_doubles(tmp_path: Path) -> None:
    found = await journey(tmp_path, inbox="off", full=False)
    show(found)
    assert found.total("doubled") > 0
    assert found.total("lost") == 0
