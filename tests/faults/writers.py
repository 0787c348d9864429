"""Clients as they should be: a key for every write, and the same key again until there is an answer."""

from __future__ import annotations

import asyncio
import itertools
import random
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from tests.faults.ledger import Ledger
from tests.faults.wire import Answer, NoAnswer, NotSent, Wire

AGAIN_SECONDS = 0.2
LARGEST_LIST = 3


@dataclass(frozen=True)
class Target:
    """A dataset with one variable `n`, and the key that may write to it."""

    id: str
    write_key: str


class Writers:
    """`clients` times `lanes` requests at a time, each a reading or a few with values nobody else writes."""

    def __init__(self, url: str, targets: Sequence[Target], *, clients: int = 16, lanes: int = 6) -> None:
        self._url = url
        self._targets = targets
        self._values = itertools.count(1)
        self._stopping = False
        self._lanes = [(client, lane) for client in range(clients) for lane in range(lanes)]
        self._tasks: list[asyncio.Task[None]] = []
        self.ledgers = {target.id: Ledger() for target in targets}
        self.in_flight = 0
        self.latest_kept = 0.0
        """When the request was sent that was sent last among those answered 201 (monotonic)."""

    @property
    def acknowledged(self) -> int:
        """How many values were promised to be stored."""
        return sum(len(ledger.acknowledged) for ledger in self.ledgers.values())

    @property
    def answers(self) -> Counter[str]:
        """How requests ended, all ledgers together."""
        return sum((ledger.answers for ledger in self.ledgers.values()), Counter())

    @property
    def wrong(self) -> list[str]:
        """Answers that must not be."""
        return [words for ledger in self.ledgers.values() for words in ledger.wrong]

    def start(self) -> None:
        """Begin to write."""
        for client, lane in self._lanes:
            target = self._targets[client % len(self._targets)]
            self._tasks.append(asyncio.create_task(self._write_on(target, f"client-{client}-{lane}")))

    async def finish(self) -> None:
        """Begin nothing new; return when everything begun has been answered."""
        self._stopping = True
        await asyncio.gather(*self._tasks)

    def cancel(self) -> None:
        """Stop at once."""
        for task in self._tasks:
            task.cancel()

    async def _write_on(self, target: Target, name: str) -> None:
        ledger = self.ledgers[target.id]
        with Wire(self._url) as wire:
            while not self._stopping:
                values = list(itertools.islice(self._values, random.choice((1, 1, LARGEST_LIST))))
                ledger.attempted.update(values)
                await self._write(wire, target, ledger, f"{name}-{values[0]}", values)

    async def _write(
        self, wire: Wire, target: Target, ledger: Ledger, key: str, values: Sequence[int]
    ) -> None:
        readings = [{"values": {"n": value}} for value in values]
        headers = {"X-API-Key": target.write_key, "Idempotency-Key": key}
        while True:
            sent_at = time.monotonic()
            answer = await self._once(wire, ledger, f"/v1/datasets/{target.id}/readings", readings, headers)
            if answer is not None:
                ledger.answers[str(answer.status)] += 1
                if answer.status == 201:
                    entries = [stored["entry"] for stored in answer.json()["entries"]]
                    ledger.acknowledged.update(zip(values, entries, strict=True))
                    self.latest_kept = max(self.latest_kept, sent_at)
                    return
                if words := wrong(answer):
                    ledger.wrong.append(f"{key}: {words}")
                    return
            await asyncio.sleep(AGAIN_SECONDS * (0.5 + random.random()))

    async def _once(
        self, wire: Wire, ledger: Ledger, path: str, body: object, headers: dict[str, str]
    ) -> Answer | None:
        self.in_flight += 1
        try:
            return await wire.ask("POST", path, body, headers)
        except (NotSent, NoAnswer) as error:
            ledger.answers[type(error).__name__] += 1
            return None
        finally:
            self.in_flight -= 1


def wrong(answer: Answer) -> str:
    """What is wrong with an answer that asks for a repetition; nothing when it is as promised."""
    said = f"{answer.status} {answer.body[:300]!r}"
    if answer.status not in (409, 503, 504) or answer.headers["content-type"] != "application/problem+json":
        return said
    problem = answer.json()
    if not problem.get("code") or problem.get("status") != answer.status:
        return said
    if answer.status == 504:
        return "" if problem.get("outcome") == "unknown" else said
    return "" if answer.headers.get("retry-after") else said
