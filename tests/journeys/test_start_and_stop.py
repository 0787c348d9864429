"""A second Posthouse beside whatever runs here: started, hurt, started over, stopped, as its owner would."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import stat
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import asyncpg
import pytest
from redis.asyncio import Redis

from deploy.local.errors import tail
from deploy.local.processes import Process
from deploy.local.settings import read_file

ROOT = Path(__file__).parents[2]
SERVERS = ("epmd", "rabbitmq", "postgres", "redis")
SERVICES = ("auth", "chat", "ingest", "worker", "gateway")

pytestmark = pytest.mark.timeout(300)


@dataclass
class House:
    """One instance, driven only by its commands and its files."""

    local: Path

    async def run(self, *arguments: str, expect: int = 0) -> str:
        """`./posthouse ...` for this instance."""
        env = {name: value for name, value in os.environ.items() if not name.startswith("POSTHOUSE_")}
        child = await asyncio.create_subprocess_exec(
            ROOT / "posthouse",
            *arguments,
            env=env | {"POSTHOUSE_LOCAL": str(self.local)},
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        output = (await child.communicate())[0].decode()
        assert child.returncode == expect, output
        return output

    async def processes(self, wait: int = 0) -> dict[str, dict[str, Any]]:
        """By name, when all are ready."""
        answer = json.loads(await self.run("status", "--json", "--wait", str(wait)))
        return {row["name"]: row for row in answer["processes"]}

    def address(self, name: str) -> str:
        """From the file that scripts read."""
        return read_file(self.local / "addresses.env")[f"POSTHOUSE_{name}_URL"]

    def pid(self, name: str) -> int:
        """From the file that scripts read."""
        return int((self.local / "run" / f"{name}.pid").read_text())

    def supervisor(self) -> Process:
        """Who watches over the rest."""
        process = Process.recorded(json.loads((self.local / "run/processes.json").read_text())["supervisor"])
        assert process is not None
        return process


@pytest.fixture(scope="module")
async def house(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[House]:
    """Started once for all tests here, with two gateways."""
    house = House(tmp_path_factory.mktemp("house"))
    try:
        await house.run("up", "--detach", "--scale", "gateway=2")
        yield house
    finally:
        await house.run("down")


async def leave_marks(house: House) -> None:
    """Something in each store that must still be there later."""
    connection = await asyncpg.connect(house.address("DATABASE"))
    await connection.execute("CREATE TABLE IF NOT EXISTS mark (word text); INSERT INTO mark VALUES ('here')")
    await connection.close()
    async with Redis.from_url(house.address("REDIS")) as redis:
        await redis.set("mark", "here")
        await redis.execute_command("WAITAOF", 1, 0, 5000)


async def find_marks(house: House) -> tuple[str, str]:
    """What `leave_marks` left."""
    connection = await asyncpg.connect(house.address("DATABASE"))
    word = await connection.fetchval("SELECT word FROM mark LIMIT 1")
    await connection.close()
    async with Redis.from_url(house.address("REDIS"), decode_responses=True) as redis:
        return word, await redis.get("mark")


async def test_everything_is_ready_and_only_its_owner_can_read_the_secrets(house: House) -> None:
    processes = await house.processes()

    assert set(processes) == {*SERVERS, *SERVICES, "gateway-2"}
    assert all(row["ready"] and row["memory"] > 0 for row in processes.values())
    assert processes["rabbitmq"]["pid"] == house.pid("rabbitmq")
    for secret in ("addresses.env", "posthouse.env", "run/processes.json"):
        assert stat.S_IMODE((house.local / secret).stat().st_mode) == 0o600
    web = read_file(house.local / "addresses.env")["POSTHOUSE_URL"]
    async with aiohttp.ClientSession() as client, client.get(f"{web}/readyz") as answer:
        assert answer.status == 200


async def test_whatever_is_killed_comes_back_at_its_place_with_its_data(house: House) -> None:
    await leave_marks(house)
    before = await house.processes()

    for name in (*SERVERS, "auth", "gateway-2"):
        os.kill(house.pid(name), signal.SIGKILL)

    after = await house.processes(wait=60)
    for name in (*SERVERS, "auth", "gateway-2"):
        assert after[name]["pid"] != before[name]["pid"]
        assert after[name]["address"] == before[name]["address"]
        assert after[name]["ends"] == 1
    assert after["chat"]["pid"] == before["chat"]["pid"]
    assert await find_marks(house) == ("here", "here")


async def test_a_queue_that_somebody_deleted_is_made_again_and_taken_from(house: House) -> None:
    await house.processes(wait=60)
    queue = f"{house.address('MANAGEMENT')}/api/queues/%2F/ingest"
    async with aiohttp.ClientSession() as client, asyncio.timeout(60):
        async with client.delete(queue) as answer:
            assert answer.status == 204
        consumers = 0
        while not consumers:
            async with client.get(queue) as answer:
                consumers = (await answer.json()).get("consumers", 0)
            await asyncio.sleep(0.2)
    await house.processes(wait=60)


async def test_a_start_after_the_supervisor_was_killed_clears_up_and_keeps_ports_and_data(
    house: House,
) -> None:
    await leave_marks(house)
    addresses = read_file(house.local / "addresses.env")
    before = await house.processes()
    supervisor = house.supervisor()
    supervisor.signal(signal.SIGKILL)
    assert supervisor.wait(10)

    assert "10 processes of an earlier start" in await house.run("up", "--detach", "--scale", "gateway=2")

    assert not {row["pid"] for row in before.values()} & {
        row["pid"] for row in (await house.processes()).values()
    }
    assert read_file(house.local / "addresses.env") == addresses
    assert await find_marks(house) == ("here", "here")


async def test_a_second_start_says_that_it_runs(house: House) -> None:
    supervisor = house.supervisor()

    assert "runs already" in await house.run("up")

    assert house.supervisor() == supervisor


async def test_a_second_instance_does_not_touch_the_data_of_the_first(house: House, tmp_path: Path) -> None:
    second = House(tmp_path)
    (tmp_path / "posthouse.env").write_text(f"POSTHOUSE_DATA={house.local / 'data'}\n")

    assert "in use by another instance" in await second.run("up", "--detach", expect=1)


async def test_stopping_ends_every_process_and_keeps_the_data(house: House) -> None:
    await leave_marks(house)
    running = [Process.of(row["pid"]) for row in (await house.processes()).values()]

    await house.run("down")

    assert [process for process in running if process and process.alive()] == []
    assert "not running" in await house.run("status", expect=3)
    assert "was not running" in await house.run("down")
    assert (house.local / "data/postgres/PG_VERSION").exists()


async def test_a_start_that_fails_says_why_and_leaves_nothing(tmp_path: Path) -> None:
    house = House(tmp_path)
    (tmp_path / "posthouse.env").write_text(
        "POSTHOUSE_DATABASE_URL=postgresql://nobody:x@127.0.0.1:1/none\n"
        "POSTHOUSE_AMQP_URL=amqp://nobody:x@127.0.0.1:1\n"
        "POSTHOUSE_MANAGEMENT_URL=http://nobody:x@127.0.0.1:1\n"
    )
    try:
        words = await house.run("up", "--detach", expect=1)

        assert "\nprepare: " in words
        assert f"log: {tmp_path / 'logs/prepare.log'}" in words
        assert tail(tmp_path / "logs/prepare.log", 1)[0] in words
        assert "not running" in await house.run("status", expect=3)
    finally:
        await house.run("down")
