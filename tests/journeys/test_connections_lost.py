"""Every connection to the broker breaks, again and again, or falls silent: requests wait, none fails."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from tests.broker import VirtualHost
from tests.faults.stored import look, settled, total
from tests.faults.writers import Target, Writers
from tests.journeys.instance import (
    OwnPosthouse,
    make_dataset,
    own_posthouse,
    sign_up,
    until,
    until_it_is,
)
from tests.line import Line, line_to

pytestmark = pytest.mark.timeout(300)

CUTS = 20
SILENT_SECONDS = 8
INGESTS = 2


@pytest.fixture
async def line(amqp_url: str) -> AsyncIterator[Line]:
    """To the broker under test."""
    parts = urlsplit(amqp_url)
    async with line_to(parts.hostname or "", parts.port or 5672) as line:
        yield line


@pytest.fixture
async def posthouse(
    tmp_path: Path, line: Line, amqp_url: str, management_url: str
) -> AsyncIterator[OwnPosthouse]:
    """An instance whose processes reach the broker over the line only."""
    async with VirtualHost(amqp_url, management_url, [], {}) as host:
        parts = urlsplit(host.admin)
        account = parts.netloc.rpartition("@")[0]
        urls = {
            "POSTHOUSE_AMQP_URL": parts._replace(netloc=f"{account}@127.0.0.1:{line.port}").geturl(),
            "POSTHOUSE_MANAGEMENT_URL": management_url,
        }
        async with own_posthouse(tmp_path, f"ingest={INGESTS}", **urls) as posthouse:
            yield posthouse


async def test_no_request_fails_when_connections_to_the_broker_break(posthouse: OwnPosthouse, line: Line):
    token = await asyncio.to_thread(sign_up, posthouse)
    made = [await asyncio.to_thread(make_dataset, posthouse, token, f"cut {n}", "n") for n in range(4)]
    writers = Writers(posthouse.url, [Target(one["id"], one["write_key"]) for one in made])

    async def all_take() -> bool:
        return (await posthouse.counted("ingest"))[1] == INGESTS

    async def goes_on(since: float) -> float:
        await until(lambda: writers.latest_kept > since, "a promise")
        after = time.monotonic() - since
        await until_it_is(all_take, "every process takes from its queue")
        return after

    writers.start()
    took = []
    try:
        for _ in range(CUTS):
            await until(lambda: writers.in_flight >= 50, "requests in flight")
            began = time.monotonic()
            line.cut()
            took.append(await goes_on(began))
        line.freeze()
        await asyncio.sleep(SILENT_SECONDS)
        line.thaw()
        healed = await goes_on(time.monotonic())
        await asyncio.wait_for(writers.finish(), 60)
    finally:
        writers.cancel()
    await settled(posthouse)
    found = await look(posthouse, token, writers)
    figures = total(found)
    print(f"to a new promise: {sorted(round(one, 2) for one in took)} s, after the silence {healed:.2f} s")
    print(figures, dict(writers.answers))
    assert writers.wrong == []
    assert figures["lost"] == figures["doubled"] == figures["unexpected"] == figures["misnumbered"] == 0
    assert figures["acknowledged"] == figures["attempted"] == figures["stored"]
    assert all(one.is_numbered for one in found)
    failed = sum(count for answer, count in writers.answers.items() if answer != "201")
    assert failed <= sum(writers.answers.values()) / 100
