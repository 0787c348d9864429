"""Under load: ingest is restarted, fifty datasets are numbered by three processes, a queue is deleted."""

from __future__ import annotations

import asyncio
import json
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from tests.faults.stored import look, settled, total
from tests.faults.wire import Wire
from tests.faults.writers import Target, Writers
from tests.journeys.instance import OwnPosthouse, make_dataset, own_posthouse, sign_up, until, until_it_is

pytestmark = pytest.mark.timeout(300)

INGESTS = ("ingest", "ingest-2", "ingest-3")
BUSY = 50


@pytest.fixture(scope="module")
async def posthouse(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[OwnPosthouse]:
    """Started once for the tests here, with three processes of ingest."""
    async with own_posthouse(tmp_path_factory.mktemp("under-load"), "ingest=3") as posthouse:
        yield posthouse


@pytest.fixture(scope="module")
async def token(posthouse: OwnPosthouse) -> str:
    """Of the first account."""
    return await asyncio.to_thread(sign_up, posthouse)


@asynccontextmanager
async def writing(posthouse: OwnPosthouse, token: str, datasets: int) -> AsyncIterator[Writers]:
    """96 requests at a time to new datasets, until the end of the block; everything written is answered."""
    made = [make_dataset(posthouse, token, f"busy {n}", "n") for n in range(datasets)]
    writers = Writers(
        posthouse.url, [Target(one["id"], one["write_key"]) for one in made], clients=48, lanes=2
    )
    writers.start()
    try:
        yield writers
        await asyncio.wait_for(writers.finish(), 60)
    finally:
        writers.cancel()


async def more(writers: Writers, values: int) -> None:
    """Return when that many more values have been acknowledged."""
    at = writers.acknowledged
    await until(lambda: writers.acknowledged >= at + values, f"{values} more")


async def check(posthouse: OwnPosthouse, token: str, writers: Writers) -> None:
    """Everything that was sent is stored once and numbered without holes."""
    found = await look(posthouse, token, writers)
    figures = total(found)
    print(figures, dict(writers.answers))
    assert figures["lost"] == figures["doubled"] == figures["unexpected"] == figures["misnumbered"] == 0
    assert figures["acknowledged"] == figures["attempted"] == figures["stored"]
    assert all(one.is_numbered for one in found)


async def test_no_request_fails_while_ingest_is_restarted_in_turn(posthouse, token):
    async with writing(posthouse, token, 8) as writers:
        for name in INGESTS * 2:
            await more(writers, 500)
            pid = posthouse.kill(name, signal.SIGTERM)
            await posthouse.another(name, pid)
            await posthouse.ready()
    assert set(writers.answers) == {"201"}, writers.wrong
    await settled(posthouse)
    await check(posthouse, token, writers)


async def test_no_request_fails_while_the_only_ingest_is_away_for_a_moment(posthouse, token):
    async with writing(posthouse, token, 8) as writers:
        await more(writers, 500)
        for name in INGESTS:
            posthouse.kill(name, signal.SIGTERM)
        await more(writers, 500)
        await posthouse.ready()
    assert set(writers.answers) == {"201"}, writers.wrong
    await settled(posthouse)
    await check(posthouse, token, writers)


async def test_fifty_busy_datasets_are_numbered_without_holes_and_without_deadlocks(posthouse, token):
    async with writing(posthouse, token, BUSY) as writers:
        await more(writers, 10_000)
    assert set(writers.answers) == {"201"}, writers.wrong
    await check(posthouse, token, writers)
    [row] = await posthouse.sql("SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()")
    assert row["deadlocks"] == 0


async def test_while_a_queue_is_missing_requests_are_told_so_and_its_service_names_it(posthouse, token):
    status = json.loads(posthouse.run("status", "--json").stdout)
    [address] = [row["address"] for row in status["processes"] if row["name"] == "ingest"]

    async def is_named() -> bool:
        with Wire(address) as wire:
            answer = await wire.ask("GET", "/readyz")
        return answer.status == 503 and answer.json()["missing"] == {"broker": "ingest"}

    async with writing(posthouse, token, 4) as writers:
        await more(writers, 500)
        await posthouse.management("DELETE", f"queues/{posthouse.virtual_host}/ingest")
        await until_it_is(is_named, "ingest says which queue is missing")
        await more(writers, 500)  # the launcher prepares the broker again
        await posthouse.ready()
    assert set(writers.answers) <= {"201", "503", "504"}, writers.wrong
    await settled(posthouse)
    await check(posthouse, token, writers)
