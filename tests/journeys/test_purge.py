"""What was deleted leaves the disk in pieces, whoever dies meanwhile, and nobody has to wait for it."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from tests.journeys.instance import OwnPosthouse, make_dataset, own_posthouse, sign_up, until_it_is

pytestmark = pytest.mark.timeout(600)

READINGS = int(os.environ.get("READINGS", "300000"))
KILLS = 3
PURGED = "SELECT purged FROM ingest.dataset_counter WHERE dataset = $1"
FILL = """
WITH added AS (
    INSERT INTO ingest.reading (entry, at, whole, dataset, numbers)
    SELECT n, timestamptz '2020-01-01Z' + n * interval '3 minutes', 1, $1, ARRAY[n]
    FROM generate_series(1, $2::int) n
), named AS (
    INSERT INTO ingest.reading_identity (id_hash, entry, at, dataset)
    SELECT gen_random_uuid(), n, timestamptz '2020-01-01Z' + n * interval '3 minutes', $1
    FROM generate_series(1, $2::int, 10) n
)
UPDATE ingest.dataset_counter
SET last_entry = $2, entries = $2, stored = $2, first_at = '2020-01-01Z', last_at = now() WHERE dataset = $1
"""
LEFT = """
SELECT (SELECT count(*) FROM ingest.reading WHERE dataset = $1)
     + (SELECT count(*) FROM ingest.reading_identity WHERE dataset = $1)
     + (SELECT count(*) FROM ingest.dataset WHERE number = $1)
     + (SELECT count(*) FROM ingest.dataset_key WHERE dataset = $1)
     + (SELECT count(*) FROM ingest.dataset_counter WHERE dataset = $1) AS rows
"""


class Writers:
    """One client for each dataset; each answered reading is counted, and the slowest one is known."""

    def __init__(self) -> None:
        self.answered: dict[str, int] = {}
        self.slowest = self.since = 0.0

    def begin_again(self) -> float:
        """The slowest until now; from now on only what begins now is looked at."""
        slowest, self.slowest, self.since = self.slowest, 0.0, time.monotonic()
        return slowest

    async def write(self, posthouse: OwnPosthouse, dataset: dict[str, Any]) -> None:
        """One reading after the other, each sent until it is answered, under one key."""
        path = f"{posthouse.url}/v1/datasets/{dataset['id']}/readings"
        self.answered[dataset["id"]] = 0
        async with aiohttp.ClientSession(headers={"X-API-Key": dataset["write_key"]}) as http:
            while True:
                count = self.answered[dataset["id"]] + 1
                key = {"Idempotency-Key": f"{dataset['id']}-{count}", "Prefer": "wait=30"}
                began = time.monotonic()
                async with http.post(path, json={"values": {"v": count}}, headers=key) as answer:
                    assert answer.status in (201, 409, 503, 504), await answer.text()
                    if answer.status == 201:
                        self.answered[dataset["id"]] = count
                if began > self.since:
                    self.slowest = max(self.slowest, time.monotonic() - began)


@asynccontextmanager
async def writing(posthouse: OwnPosthouse, *datasets: dict[str, Any]) -> AsyncIterator[Writers]:
    writers = Writers()
    tasks = [asyncio.create_task(writers.write(posthouse, dataset)) for dataset in datasets]
    try:
        yield writers
    finally:
        failed = [task.exception() for task in tasks if task.done()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    assert not failed, failed


async def deleted_long_ago(posthouse: OwnPosthouse, token: str, dataset: dict[str, Any]) -> None:
    async with (
        aiohttp.ClientSession(headers={"Authorization": f"Bearer {token}"}) as http,
        http.delete(f"{posthouse.url}/v1/datasets/{dataset['id']}") as answer,
    ):
        assert answer.status == 204
    sql = "UPDATE ingest.dataset SET deleted_at = deleted_at - interval '25 hours' WHERE id = $1"
    await posthouse.sql(sql, dataset["id"])


async def test_a_purge_goes_on_when_its_process_is_killed_and_touches_nothing_else(tmp_path: Path) -> None:
    async with own_posthouse(tmp_path / "instance") as posthouse:
        token = sign_up(posthouse)
        doomed, kept, cleared = [
            make_dataset(posthouse, token, name, "v") for name in ("doomed", "kept", "cleared")
        ]
        number = doomed["channel_id"]
        await posthouse.sql(FILL, number, READINGS)
        await posthouse.sql(FILL, cleared["channel_id"], READINGS // 10)
        async with writing(posthouse, kept, cleared) as writers:
            await deleted_long_ago(posthouse, token, doomed)
            await clear(posthouse, token, cleared)
            for kill in range(1, KILLS + 1):
                await until_it_is(lambda k=kill: purged(posthouse, number, k), f"purged before kill {kill}")
                pid = posthouse.kill("ingest")
                await posthouse.another("ingest", pid)
            await posthouse.ready()
            with_kills = writers.begin_again()
            await until_it_is(lambda: gone(posthouse, number), "nothing is left", 30 + READINGS / 2_000)
        print(
            f"purged {READINGS:,} readings, {KILLS} kills; slowest write {with_kills:.2f} s with, "
            f"{writers.slowest:.2f} s without kills"
        )
        assert writers.slowest < 5
        for dataset in (kept, cleared):
            await is_whole(posthouse, dataset, writers.answered[dataset["id"]])
        assert (await asyncio.to_thread(posthouse.run, "doctor")).returncode == 0


async def purged(posthouse: OwnPosthouse, number: int, kills: int) -> bool:
    """Whether the next part of it is gone."""
    [row] = await posthouse.sql(PURGED, number) or [{"purged": READINGS}]
    return int(row["purged"]) > READINGS * (kills - 1) // (KILLS + 1)


async def gone(posthouse: OwnPosthouse, number: int) -> bool:
    [row] = await posthouse.sql(LEFT, number)
    return row["rows"] == 0


async def clear(posthouse: OwnPosthouse, token: str, dataset: dict[str, Any]) -> None:
    async with (
        aiohttp.ClientSession(headers={"Authorization": f"Bearer {token}"}) as http,
        http.delete(f"{posthouse.url}/v1/datasets/{dataset['id']}/readings?all=true") as answer,
    ):
        assert answer.status == 200, await answer.text()


async def is_whole(posthouse: OwnPosthouse, dataset: dict[str, Any], answered: int) -> None:
    """Every reading that was answered is there or was cleared, once; of the last one nobody may know."""
    rows = await posthouse.sql(
        "SELECT r.entry, r.numbers[1] AS value, c.last_entry, c.entries, c.cleared"
        " FROM ingest.reading r JOIN ingest.dataset_counter c USING (dataset)"
        " WHERE dataset = $1 AND entry > c.cleared ORDER BY entry",
        dataset["channel_id"],
    )
    values = [int(row["value"]) for row in rows]
    assert values == list(range(values[0], values[-1] + 1))
    assert values[-1] in (answered, answered + 1)
    assert [row["entry"] for row in rows] == list(range(rows[0]["cleared"] + 1, rows[0]["last_entry"] + 1))
    assert len(rows) == rows[0]["entries"]
