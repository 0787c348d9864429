"""A gateway that is told to stop fails no request: its clients go on with the other one."""

from __future__ import annotations

import asyncio
import os
import signal
from pathlib import Path

import pytest

from tests.faults.talkers import Habit, Place, Talkers
from tests.faults.wire import Wire
from tests.journeys.instance import OwnPosthouse, make_dataset, own_posthouse, sign_up, until

pytestmark = pytest.mark.timeout(600)

REQUESTS = int(os.environ.get("STOP_REQUESTS", "50000"))
LINES = 5_000
GATEWAYS = ("gateway", "gateway-2")
HABITS = [
    *[Habit() for _ in range(40)],
    *[Habit(per_connection=3) for _ in range(8)],
    *[Habit(pause=1.5) for _ in range(16)],
    *[Habit(exports=True, pause=0.5) for _ in range(4)],
]


async def archive(posthouse: OwnPosthouse, token: str) -> Place:
    """A dataset with readings to export, and one to write to."""
    growing, full = (make_dataset(posthouse, token, name, "n") for name in ("growing", "archive"))
    path = f"/v1/datasets/{full['id']}/readings"
    for start in range(0, LINES, 1_000):
        posthouse.ask(path, [{"values": {"n": n}} for n in range(start, start + 1_000)], token)
    with Wire(posthouse.url) as wire:
        export = await wire.ask("GET", f"{path}.csv", headers={"Authorization": f"Bearer {token}"})
    assert export.body.count(b"\n") == LINES  # and the heading; the last line ends with the file
    return Place(growing["id"], full["id"], export.body, token)


async def test_gateways_stop_in_turn_and_no_request_fails(tmp_path: Path) -> None:
    async with own_posthouse(tmp_path, "gateway=2") as posthouse:
        token = await asyncio.to_thread(sign_up, posthouse)
        talkers = Talkers(posthouse.url, await archive(posthouse, token), REQUESTS, HABITS)
        stops, in_flight = 0, []
        try:
            while not talkers.finished:
                name = GATEWAYS[stops % 2]
                began = talkers.began
                await until(
                    lambda began=began: talkers.began > began + 1_000 or talkers.finished, "a thousand more"
                )
                if talkers.finished:
                    break
                in_flight.append(talkers.in_flight)
                pid = posthouse.kill(name, signal.SIGTERM)
                await posthouse.another(name, pid)
                await posthouse.ready()
                stops += 1
        finally:
            talkers.cancel()
        print(
            f"{talkers.began} requests, {talkers.connects} connections, {stops} stops; in flight {in_flight}"
        )
        print(dict(talkers.answers))
        assert talkers.failures == []
        assert sum(talkers.answers.values()) == talkers.began >= REQUESTS
        assert stops >= 4
