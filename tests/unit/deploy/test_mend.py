"""What the launcher repairs while everything runs."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from deploy.local.errors import Failure
from deploy.local.servers import SERVERS
from deploy.local.up import ELECT_AFTER_SECONDS, Repairs, mend


class Watched:
    """A supervisor whose programs are as ready as the test says."""

    def __init__(self, *unready: set[str], up_seconds: float = 0.0) -> None:
        self._unready = list(unready)
        self._started = time.time() - up_seconds
        self.looks = 0
        self.told: list[str] = []

    async def unready(self, foundation: frozenset[str]) -> set[str]:
        assert foundation == SERVERS
        self.looks += 1
        return self._unready[min(self.looks, len(self._unready)) - 1]

    def started_at(self, name: str) -> float:
        assert name == "rabbitmq"
        return self._started

    def tell(self, text: str) -> None:
        self.told.append(text)


class Done:
    """Counts the repairs that were made."""

    def __init__(self, answer: str = "[]", *, fails: bool = False) -> None:
        self.prepared = self.elected = 0
        self._answer = answer
        self._fails = fails

    async def prepare(self) -> None:
        self.prepared += 1
        if self._fails:
            raise Failure("no")

    def elect(self) -> str:
        self.elected += 1
        return self._answer


@asynccontextmanager
async def mending(watched: Watched, done: Done, looks: int = 4) -> AsyncIterator[None]:
    repairs = Repairs(done.prepare, done.elect)
    task = asyncio.create_task(mend(watched, repairs, every_seconds=0))  # type: ignore[arg-type]
    async with asyncio.timeout(10):
        while watched.looks < looks:  # noqa: ASYNC110 (the look is what is waited for)
            await asyncio.sleep(0)
    yield
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert task.cancelled()


async def test_a_service_that_stays_unready_has_everything_prepared_again() -> None:
    watched, done = Watched({"ingest"}, {"ingest"}, set()), Done()
    async with mending(watched, done):
        assert done.prepared == 1
        assert "ingest not ready" in watched.told[0]


async def test_one_that_was_unready_for_a_moment_or_waits_for_a_server_is_left_alone() -> None:
    for states in (({"ingest"}, set()), ({"ingest", "postgres"}, {"ingest", "postgres"})):
        watched, done = Watched(*states), Done()
        async with mending(watched, done):
            assert done.prepared == 0


async def test_preparing_that_fails_is_said_and_tried_again() -> None:
    watched, done = Watched({"ingest"}), Done(fails=True)
    async with mending(watched, done, looks=5):
        assert done.prepared >= 2
        assert "preparing failed: no" in watched.told


async def test_leaders_are_elected_once_after_each_start_of_the_broker() -> None:
    for up_seconds, elections in ((0.0, 0), (ELECT_AFTER_SECONDS + 1, 1)):
        watched, done = Watched(set(), up_seconds=up_seconds), Done("[ok]")
        async with mending(watched, done, looks=6):
            assert done.elected == elections
            assert len(watched.told) == elections
