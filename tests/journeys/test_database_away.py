"""PostgreSQL hangs and a gateway starts anew: known devices are served, revoked keys are not."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path

import aiohttp
import pytest

from tests.journeys.instance import OwnPosthouse, make_dataset, own_posthouse, sign_up, until_it_is

pytestmark = pytest.mark.timeout(300)

DEVICES = 20


@pytest.fixture
async def posthouse(tmp_path: Path) -> AsyncIterator[OwnPosthouse]:
    async with own_posthouse(tmp_path) as posthouse:
        yield posthouse


@contextmanager
def hanging(pid: int) -> Iterator[None]:
    """Every process of PostgreSQL stands still."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    processes = [pid, *map(int, children)]
    for one in processes:
        os.kill(one, signal.SIGSTOP)
    try:
        yield
    finally:
        for one in processes:
            os.kill(one, signal.SIGCONT)


async def write(url: str, dataset: str, key: str, prefer: str = "respond-async") -> tuple[int, str, str]:
    """The status of a write, when to come again, and where to hear of it."""
    path = f"{url}/v1/datasets/{dataset}/readings"
    headers = {"X-API-Key": key, "Prefer": prefer}
    async with (
        aiohttp.ClientSession() as client,
        client.post(path, json={"values": {"n": 1}}, headers=headers) as answer,
    ):
        return (
            answer.status,
            answer.headers.get("Retry-After", ""),
            answer.headers.get("Location", ""),
        )


async def test_a_gateway_started_anew_takes_what_known_devices_write_while_postgres_hangs(
    posthouse: OwnPosthouse,
) -> None:
    token = await asyncio.to_thread(sign_up, posthouse)
    known = [
        await asyncio.to_thread(make_dataset, posthouse, token, f"known {number}", "n")
        for number in range(DEVICES)
    ]
    revoked = await asyncio.to_thread(make_dataset, posthouse, token, "revoked", "n")
    stranger = await asyncio.to_thread(make_dataset, posthouse, token, "stranger", "n")
    url = posthouse.url

    for one in (*known, revoked):
        assert (await write(url, one["id"], one["write_key"], "wait=10"))[0] == 201
    async with aiohttp.ClientSession(headers={"Authorization": f"Bearer {token}"}) as client:
        answer = await client.post(f"{url}/v1/datasets/{revoked['id']}/keys/write")
        assert answer.status == 200

    async def is_refused() -> bool:
        return (await write(url, revoked["id"], revoked["write_key"]))[0] == 401

    await until_it_is(is_refused, "the old key opens nothing")
    with hanging(posthouse.pid("postgres")):
        before = posthouse.kill("gateway")
        await posthouse.another("gateway", before)

        async def listens() -> bool:
            async with aiohttp.ClientSession() as client, client.get(f"{url}/healthz") as answer:
                return answer.status == 200

        await until_it_is(listens, "the gateway answers")

        async def is_taken() -> bool:
            return (await write(url, known[0]["id"], known[0]["write_key"]))[0] == 202

        await until_it_is(is_taken, "the gateway reaches the broker", 10)
        taken = await asyncio.gather(*(write(url, one["id"], one["write_key"]) for one in known))
        assert [status for status, _, _ in taken] == [202] * DEVICES
        assert await is_refused()
        unknown = await write(url, stranger["id"], stranger["write_key"], "wait=2, respond-async")
        assert unknown[:2] == (503, "1")

    async def all_stored() -> bool:
        rows = await posthouse.sql("SELECT count(*), count(DISTINCT dataset) FROM ingest.reading")
        return rows[0][0] >= 2 * DEVICES + 2 and rows[0][1] == DEVICES + 1

    await until_it_is(all_stored, "everything taken is stored")
    status, _, _ = await write(url, stranger["id"], stranger["write_key"], "wait=10")
    assert status == 201
