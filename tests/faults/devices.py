"""The load of every row: 200 devices that report at the same moments, and people who give commands."""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from tests.faults.journal import Journal, Kind
from tests.faults.ledger import Ledger
from tests.faults.wire import Answer, Wire
from tests.faults.writers import AGAIN_SECONDS, Target, Writers, wrong

DEVICES = 200
TICK_SECONDS = 0.4  # 200 devices each 0.4 s: 500 readings a second, 200 of them in flight at once
COMMANDERS = 4
COMMAND_SECONDS = 0.5


@dataclass(frozen=True)
class Manners:
    """How the clients behave; the defaults are as they should.

    `keys`: repeats carry the same key. `repeats`: what has no answer is sent again. `prefer` is their
    Prefer header when they wait; every second device does not, and takes 202 for an answer.
    """

    keys: bool = True
    repeats: bool = True
    prefer: str = "wait=3"
    queues: bool = True


@dataclass(frozen=True, slots=True)
class Sample:
    """One request of a device or commander and its answer; status 0: there was none."""

    sent_at: float
    seconds: float
    status: int
    queued: bool
    kind: Kind
    value: int


class Devices(Writers):
    """Writers with a pace, a journal, and a memory of every answer."""

    def __init__(
        self, url: str, targets: Sequence[Target], token: str, journal: Journal, manners: Manners = Manners()
    ) -> None:
        super().__init__(url, targets)
        self._token = token
        self._journal = journal
        self._manners = manners
        self.samples: list[Sample] = []
        self.mistakes: list[str] = []
        self.latest_stored = 0.0
        """As `latest_kept`, among those answered 201."""
        self.latest_answer = 0.0
        """When an answer came last."""
        self._acknowledged = 0

    @property
    def acknowledged(self) -> int:
        """How many were answered 2xx."""
        return self._acknowledged

    @property
    def answers(self) -> Counter[str]:
        """How requests ended."""
        return Counter(str(sample.status or "none") for sample in self.samples)

    @property
    def targets(self) -> Sequence[Target]:
        """The datasets the devices write to."""
        return self._targets

    @property
    def target(self) -> Target:
        """A dataset for who writes beside the devices."""
        return self._targets[0]

    def begin(self) -> tuple[int, str]:
        """A new reading of somebody beside the devices: its value and key, in the journal."""
        value = next(self._values)
        self._journal.sends("reading", value, key := f"beside-{value}")
        return value, key

    def acknowledge(self, value: int, key: str, entry: int, status: int = 201) -> None:
        """It was answered so; the entry is 0 when the answer does not say which it became."""
        self._journal.acknowledged("reading", value, key, status, entry)
        self._acknowledged += 1

    def start(self) -> None:
        """Begin."""
        for number in range(DEVICES):
            target = self._targets[number % len(self._targets)]
            self._tasks.append(asyncio.create_task(self._report(number, target)))
        self._tasks += [asyncio.create_task(self._command(number)) for number in range(COMMANDERS)]

    async def _report(self, number: int, target: Target) -> None:
        queued = self._manners.queues and number % 2 == 1
        prefer = "respond-async, wait=3" if queued else self._manners.prefer
        path = f"/v1/datasets/{target.id}/readings"
        headers = {"X-API-Key": target.write_key, "Prefer": prefer}
        with Wire(self._url) as wire:
            while not self._stopping:
                now = time.monotonic()
                await asyncio.sleep(TICK_SECONDS - now % TICK_SECONDS)
                value = next(self._values)
                await self._tell(wire, "reading", value, path, {"values": {"n": value}}, headers)

    async def _command(self, number: int) -> None:
        headers = {"Authorization": f"Bearer {self._token}", "Prefer": self._manners.prefer}
        with Wire(self._url) as wire:
            while not self._stopping:
                await asyncio.sleep(COMMAND_SECONDS * (0.5 + random.random()))
                value = next(self._values)
                body = {"name": f"command {value}", "variables": [{"tag": "n"}]}
                await self._tell(wire, "command", value, "/v1/datasets", body, headers)

    async def _tell(
        self, wire: Wire, kind: Kind, value: int, path: str, body: object, headers: dict[str, str]
    ) -> None:
        key = f"{kind}-{value}"
        if self._manners.keys:
            headers = headers | {"Idempotency-Key": key}
        self._journal.sends(kind, value, key)
        while True:
            answer = await self._sampled(wire, kind, value, path, body, headers)
            if answer is not None and self._is_over(answer, kind, value, key):
                return
            if not self._manners.repeats:
                return
            await asyncio.sleep(AGAIN_SECONDS * (0.5 + random.random()))

    async def _sampled(
        self, wire: Wire, kind: Kind, value: int, path: str, body: object, headers: dict[str, str]
    ) -> Answer | None:
        sent_at = time.monotonic()
        answer = await self._once(wire, Ledger(), path, body, headers)
        status = answer.status if answer else 0
        queued = headers["Prefer"].startswith("respond-async")
        self.samples.append(Sample(sent_at, time.monotonic() - sent_at, status, queued, kind, value))
        if status:
            self.latest_answer = time.monotonic()
        if status in (201, 202):
            self.latest_kept = max(self.latest_kept, sent_at)
        if status == 201:
            self.latest_stored = max(self.latest_stored, sent_at)
        return answer

    def _is_over(self, answer: Answer, kind: Kind, value: int, key: str) -> bool:
        if answer.status in (201, 202):
            entry = answer.json()["entries"][0]["entry"] if (kind, answer.status) == ("reading", 201) else 0
            self._journal.acknowledged(kind, value, key, answer.status, entry)
            self._acknowledged += 1
            return True
        if words := wrong(answer):
            self.mistakes.append(f"{key}: {words}")
            return True
        return False
