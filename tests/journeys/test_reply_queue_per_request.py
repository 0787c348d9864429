"""With a reply queue for every request, everything works as before."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator
from typing import Any

import pytest

from tests.faults.wire import Wire
from tests.journeys.instance import OwnPosthouse, make_dataset, own_posthouse, sign_up, until_it_is

pytestmark = pytest.mark.timeout(300)


@pytest.fixture(scope="module")
async def posthouse(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[OwnPosthouse]:
    """Started once for the tests here."""
    directory = tmp_path_factory.mktemp("per-request")
    async with own_posthouse(directory, POSTHOUSE_REPLY_QUEUE="request") as posthouse:
        yield posthouse


@pytest.fixture(scope="module")
async def token(posthouse: OwnPosthouse) -> str:
    """Of the first account."""
    return await asyncio.to_thread(sign_up, posthouse)


@pytest.fixture(scope="module")
async def dataset(posthouse: OwnPosthouse, token: str) -> dict[str, Any]:
    """With three readings."""
    made = make_dataset(posthouse, token, "greenhouse", "temp")
    readings = [{"at": f"2026-01-01T12:0{n}:00Z", "values": {"temp": 20 + n}} for n in range(3)]
    answer = await ask(posthouse, "POST", f"/v1/datasets/{made['id']}/readings", token, readings)
    assert [stored["entry"] for stored in answer["entries"]] == [1, 2, 3]
    return made


async def ask(posthouse: OwnPosthouse, method: str, path: str, token: str, body: Any = None) -> Any:
    """The answer to one request that is not refused."""
    with Wire(posthouse.url) as wire:
        answer = await wire.ask(method, path, body, {"Authorization": f"Bearer {token}"})
    assert answer.status in (200, 201), answer
    return answer.json() if answer.headers["content-type"] == "application/json" else answer.body


async def request_queues(posthouse: OwnPosthouse) -> list[str]:
    """The queues that were made for one request."""
    queues = await posthouse.management("GET", "queues?columns=name")
    return [queue["name"] for queue in queues if queue["name"].startswith("gateway.request.")]


async def test_what_was_written_is_read_and_exported(posthouse, token, dataset):
    readings = f"/v1/datasets/{dataset['id']}/readings"
    page = await ask(posthouse, "GET", f"{readings}?order=asc", token)
    assert [item["values"] for item in page["items"]] == [{"temp": 20}, {"temp": 21}, {"temp": 22}]
    assert (await ask(posthouse, "GET", f"{readings}/latest", token))["entry"] == 3
    lines = (await ask(posthouse, "GET", f"{readings}.csv", token)).decode().split("\n")
    assert [line.split(",")[1] for line in lines] == ["temp", "20", "21", "22"]


async def test_each_request_waits_on_a_queue_of_its_own_that_goes_with_it(posthouse, token, dataset):
    posthouse.kill("ingest", signal.SIGSTOP)
    try:
        path = f"/v1/datasets/{dataset['id']}"
        asked = [asyncio.create_task(ask(posthouse, "GET", path, token)) for _ in range(3)]

        async def each_has_its_own() -> bool:
            return len(await request_queues(posthouse)) == len(asked)

        await until_it_is(each_has_its_own, "a queue for each request")
    finally:
        posthouse.kill("ingest", signal.SIGCONT)
    assert [(await one)["entries"] for one in asked] == [3, 3, 3]

    async def none_is_left() -> bool:
        return await request_queues(posthouse) == []

    await until_it_is(none_is_left, "no queue of a request")
