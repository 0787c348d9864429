"""What has no key is stored once as well, when ingest dies after a commit of one journey, before its ack."""

from __future__ import annotations

import asyncio
import itertools
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from tests.faults.kills import HOOKS
from tests.faults.ledger import Ledger, compare
from tests.faults.stored import settled
from tests.faults.wire import NoAnswer, NotSent, Wire
from tests.journeys.instance import OwnPosthouse, make_dataset, own_posthouse, sign_up, until

pytestmark = pytest.mark.timeout(240)

CLIENTS = 32
DEATHS = (1, 3)


class Clients:
    """Each sends one thing after the other, each thing once, and believes only a 201."""

    def __init__(self, url: str, path: str, headers: dict[str, str]) -> None:
        self._url, self._path, self._headers = url, path, headers
        self._values = itertools.count(1)
        self._stopping = False
        self.ledger = Ledger()

    def body(self, value: int) -> dict[str, Any]:
        """What says this value."""
        return {"values": {"n": value}}

    def number(self, said: dict[str, Any]) -> int:
        """What was made of it."""
        entry: int = said["entries"][0]["entry"]
        return entry

    async def run(self) -> None:
        await asyncio.gather(*(self._send() for _ in range(CLIENTS)))

    def stop(self) -> None:
        """Begin nothing new."""
        self._stopping = True

    async def _send(self) -> None:
        with Wire(self._url) as wire:
            while not self._stopping:
                value = next(self._values)
                self.ledger.attempted.add(value)
                try:
                    answer = await wire.ask("POST", self._path, self.body(value), self._headers)
                except (NotSent, NoAnswer) as error:
                    self.ledger.answers[type(error).__name__] += 1
                    continue
                self.ledger.answers[str(answer.status)] += 1
                if answer.status == 201:
                    self.ledger.acknowledged[value] = self.number(answer.json())


class Makers(Clients):
    """The same with datasets, a value being a name."""

    def body(self, value: int) -> dict[str, Any]:
        return {"name": f"made {value}", "variables": [{"tag": "n"}]}

    def number(self, said: dict[str, Any]) -> int:
        channel_id: int = said["channel_id"]
        return channel_id


async def die_under(posthouse: OwnPosthouse, clients: Clients, trigger: Path, way: str) -> Counter[str]:
    """Let ingest die after commits that went this way while clients are busy; how they were answered."""
    running = asyncio.create_task(clients.run())
    try:
        for commits in DEATHS:
            new = trigger.with_suffix(".new")
            new.write_text(f"{commits} {way}")
            before = len(clients.ledger.acknowledged)
            new.rename(trigger)
            await until(lambda: not trigger.exists(), f"{commits} commits by way of {way}")
            await until(lambda seen=before: len(clients.ledger.acknowledged) > seen + 100, "work goes on")
            await posthouse.ready()
    finally:
        clients.stop()
        await asyncio.wait_for(running, 60)
    await settled(posthouse)
    return clients.ledger.answers


async def test_readings_and_datasets_without_a_key_are_stored_once(tmp_path: Path) -> None:
    trigger = tmp_path / "kill-after-commit"
    faults = {"FAULTS_IN": "services.ingest", "FAULTS_KILL_FILE": str(trigger), "PYTHONPATH": str(HOOKS)}
    async with own_posthouse(tmp_path, "ingest=2", **faults) as posthouse:
        token = await asyncio.to_thread(sign_up, posthouse)
        dataset = await asyncio.to_thread(make_dataset, posthouse, token, "no key", "n")
        path = f"/v1/datasets/{dataset['id']}/readings"
        writers = Clients(posthouse.url, path, {"X-API-Key": dataset["write_key"]})
        print(await die_under(posthouse, writers, trigger, "at_once"))
        rows = await posthouse.sql(
            "SELECT entry, numbers[1]::bigint FROM ingest.reading WHERE dataset = $1 ORDER BY entry",
            dataset["channel_id"],
        )
        assert [row[0] for row in rows] == list(range(1, len(rows) + 1))
        assert_kept(writers.ledger, [(row[0], row[1]) for row in rows])

        makers = Makers(posthouse.url, "/v1/datasets", {"Authorization": f"Bearer {token}"})
        print(await die_under(posthouse, makers, trigger, "with_row"))
        rows = await posthouse.sql(
            "SELECT number, substr(name, 6) FROM ingest.dataset WHERE name LIKE 'made %'"
        )
        assert_kept(makers.ledger, [(row[0], int(row[1])) for row in rows])
        assert await posthouse.depth("dead.ingest") == 0


def assert_kept(ledger: Ledger, rows: list[tuple[int, int]]) -> None:
    """What was promised is there with its number, nothing twice, nothing that nobody sent."""
    found = compare(ledger, rows)
    print(found)
    assert found.lost == found.doubled == found.unexpected == found.misnumbered == 0
    assert found.acknowledged > 0
    assert set(ledger.answers) <= {"201", "503", "504", "NoAnswer"}
