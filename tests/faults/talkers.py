"""Honest clients with keep-alive connections: every request they sent must be answered, whole."""

from __future__ import annotations

import asyncio
import itertools
import random
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from tests.faults.wire import Answer, NoAnswer, NotSent, Wire


@dataclass(frozen=True)
class Place:
    """A dataset to write to, one that stays as it is with its export, and the token to both."""

    growing: str
    archive: str
    export: bytes
    token: str


@dataclass(frozen=True)
class Habit:
    """How a client behaves: requests on one connection, pauses between requests, only exports."""

    per_connection: int = 10_000
    pause: float = 0.0
    exports: bool = False


class Talkers:
    """Clients of several habits that make `total` requests together."""

    def __init__(self, url: str, place: Place, total: int, habits: list[Habit]) -> None:
        self._url = url
        self._place = place
        self._total = total
        self._keys = itertools.count(1)
        self._own = {"Authorization": f"Bearer {place.token}"}
        self._tasks = [asyncio.create_task(self._talk(habit)) for habit in habits]
        self.began = 0
        self.in_flight = 0
        self.answers: Counter[str] = Counter()
        self.failures: list[str] = []
        self.connects = 0

    @property
    def finished(self) -> bool:
        """Whether all requests have been made and ended."""
        return all(task.done() for task in self._tasks)

    def cancel(self) -> None:
        """Stop at once."""
        for task in self._tasks:
            task.cancel()

    async def _talk(self, habit: Habit) -> None:
        turns = itertools.cycle([self._export] if habit.exports else [self._look, self._write, self._latest])
        with Wire(self._url) as wire:
            while self.began < self._total:
                if wire.asked >= habit.per_connection:
                    wire.close()
                self.began += 1
                await self._once(next(turns), wire)
                await asyncio.sleep(random.uniform(0, habit.pause))
            self.connects += wire.connects

    async def _once(self, kind: Callable[[Wire], Awaitable[Answer]], wire: Wire) -> None:
        self.in_flight += 1
        try:
            answer = await kind(wire)
        except (NotSent, NoAnswer) as error:
            self.failures.append(f"{type(error).__name__}: {error}")
        else:
            self.answers[f"{kind.__name__.strip('_')} {answer.status}"] += 1
            if answer.status not in (200, 201):
                self.failures.append(f"{kind.__name__}: {answer.status} {answer.body[:300]!r}")
        finally:
            self.in_flight -= 1

    async def _look(self, wire: Wire) -> Answer:
        return await wire.ask("GET", f"/v1/datasets/{self._place.growing}", headers=self._own)

    async def _latest(self, wire: Wire) -> Answer:
        return await wire.ask("GET", f"/v1/datasets/{self._place.archive}/readings/latest", headers=self._own)

    async def _write(self, wire: Wire) -> Answer:
        number = next(self._keys)
        headers = self._own | {"Idempotency-Key": f"talk-{number}"}
        path = f"/v1/datasets/{self._place.growing}/readings"
        return await wire.ask("POST", path, {"values": {"n": number}}, headers)

    async def _export(self, wire: Wire) -> Answer:
        path = f"/v1/datasets/{self._place.archive}/readings.csv"
        answer = await wire.ask("GET", path, headers=self._own)
        if answer.status == 200 and answer.body != self._place.export:
            raise NoAnswer(f"an export of {len(answer.body)} bytes instead of {len(self._place.export)}")
        return answer
