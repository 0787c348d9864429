"""One row's stage: an instance under load, what can be done to it, and when that counts."""

from __future__ import annotations

import asyncio
import json
import os
import random
import signal
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import aiohttp

from tests.faults.cable import Cable
from tests.faults.devices import Devices, Sample
from tests.faults.kills import LEAST_IN_FLIGHT
from tests.journeys.instance import OwnPosthouse, until

GAP_SECONDS = 10.0  # from the beginning of one fault to that of the next
REST_SECONDS = 1.0
FIGURES_SECONDS = 12.0
Promise = Literal["kept", "stored"]


@dataclass(frozen=True)
class Fault:
    """One fault that counts: when it began and ended, and when the first promise after it was made.

    `recovered` counts from the fault's beginning, or from its end when it lasted.
    """

    what: str
    in_flight: int
    began: float
    ended: float
    recovered: float


@dataclass
class Scene:
    """What a row works with."""

    posthouse: OwnPosthouse
    devices: Devices
    directory: Path
    token: str
    runs: int
    dice: random.Random
    cables: dict[str, Cable]
    say: Callable[[str], None]
    gap: float = GAP_SECONDS
    least_in_flight: int = LEAST_IN_FLIGHT
    least_acknowledged: int = 10_000
    faults: list[Fault] = field(default_factory=list)
    figures: dict[str, Any] = field(default_factory=dict)
    missed: list[str] = field(default_factory=list)
    _next: float = 0.0

    @property
    def trigger(self) -> Path:
        """What a hook waits for."""
        return self.directory / "trigger"

    async def loaded(self) -> None:
        """Return a gap after the last fault began, when enough requests are in flight."""
        await asyncio.sleep(max(0.0, self._next - time.monotonic()) + self.dice.uniform(0, 1))
        await until(lambda: self.devices.in_flight >= self.least_in_flight, "enough requests in flight")

    async def acknowledged(self, least: int) -> None:
        """Return when the devices have been promised so much."""
        await until(lambda: self.devices.acknowledged >= least, f"{least} acknowledged", 180)

    async def strike(
        self, what: str, act: Callable[[], Awaitable[Any]], *, promise: Promise = "kept", lasts: bool = False
    ) -> Fault:
        """Let it happen under load, and wait for a promise of the kind named to a request sent after it."""
        await self.loaded()
        flying, began = self.devices.in_flight, time.monotonic()
        await act()
        ended = time.monotonic()
        since = ended if lasts else began
        await until(lambda: self._latest_promise(promise) > since, f"a promise after {what}", 120)
        fault = Fault(what, flying, began, ended, time.monotonic() - since)
        self.faults.append(fault)
        self._next = max(began + self.gap, time.monotonic() + REST_SECONDS)
        self.say(f"{what}: {flying} in flight, {fault.recovered:.2f} s to a new promise")
        return fault

    def _latest_promise(self, promise: Promise) -> float:
        return self.devices.latest_kept if promise == "kept" else self.devices.latest_stored

    # -- what can be done ------------------------------------------------------------------------------

    async def kill(self, *names: str) -> None:
        """`kill -9` at once; the launcher starts them again."""
        for name in names:
            self.posthouse.kill(name)

    async def keep_down(self, name: str, seconds: float) -> None:
        """`kill -9` whatever the launcher starts under that name."""
        end, killed = time.monotonic() + seconds, 0
        while time.monotonic() < end:
            pid = self.posthouse.pid(name)
            if pid not in (0, killed):
                killed = pid
                _signal(pid, signal.SIGKILL)
            await asyncio.sleep(0.01)

    async def freeze(self, names: Sequence[str], seconds: float) -> None:
        """Stop these and their children for so long without ending them: connections stay."""
        over = asyncio.Event()
        asyncio.get_running_loop().call_later(seconds, over.set)
        await self.frozen(names, over)

    async def frozen(self, names: Sequence[str], over: asyncio.Event) -> None:
        """The same until then."""
        found = [self.posthouse.pid(name) for name in names]
        pids = [each for pid in found for each in (pid, *_children(pid))]
        for pid in pids:
            _signal(pid, signal.SIGSTOP)
        try:
            await over.wait()
        finally:
            for pid in pids:
                _signal(pid, signal.SIGCONT)

    async def drained(self, most_seconds: float = 120) -> float:
        """Seconds until ingest's queue is empty and a device is promised something stored."""
        began = time.monotonic()
        while (await self.posthouse.depth("ingest")) > 0:
            if time.monotonic() - began > most_seconds:
                break
            await asyncio.sleep(0.1)
        return time.monotonic() - began

    # -- what is there -----------------------------------------------------------------------------------

    async def metric(self, process: str, name: str) -> float:
        """A figure of a process now, all its labels together; 0 while it does not answer."""
        port = json.loads((self.directory / "run" / "ports.json").read_text())[process]
        try:
            async with (
                aiohttp.ClientSession() as client,
                client.get(f"http://127.0.0.1:{port}/metrics") as answer,
            ):
                lines = (await answer.text()).splitlines()
        except aiohttp.ClientError:
            return 0.0
        of_it = (line for line in lines if line.startswith((f"{name} ", f"{name}{{")))
        return sum(float(line.rpartition(" ")[2]) for line in of_it)

    async def redelivered(self, queue: str, least: int) -> int:
        """How many messages of a queue were delivered again; its figures are late: wait for `least`."""
        end, path = time.monotonic() + FIGURES_SECONDS, f"queues/{self.posthouse.virtual_host}/{queue}"
        while True:
            found = await self.posthouse.management("GET", path)
            count = int(found.get("message_stats", {}).get("redeliver", 0))
            if count >= least or time.monotonic() > end:
                return count
            await asyncio.sleep(0.5)

    async def dead_letters(self, most: int = 1_000) -> list[dict[str, Any]]:
        """Ingest's, with their headers; they stay where they are."""
        path = f"queues/{self.posthouse.virtual_host}/dead.ingest/get"
        asked = {"count": most, "ackmode": "ack_requeue_true", "encoding": "base64"}
        found: list[dict[str, Any]] = await self.posthouse.management("POST", path, asked)
        return found

    # -- figures ---------------------------------------------------------------------------------------

    def during(self, fault: Fault, after: float = 0.0) -> list[Sample]:
        """The requests sent from the fault's beginning to its recovery."""
        end = fault.ended + after
        return [one for one in self.devices.samples if fault.began <= one.sent_at <= end]

    def figure(
        self, name: str, value: float, most: float | None = None, *, least: float | None = None
    ) -> None:
        """Remember a figure; above its limit, or below what it must be at least, the row has missed."""
        self.figures[name] = round(value, 3)
        if most is not None:
            self.figures[f"{name} limit"] = most
            if value > most:
                self.missed.append(f"{name} {value:.3g} > {most:g}")
        if least is not None:
            self.figures[f"{name} at least"] = least
            if value < least:
                self.missed.append(f"{name} {value:.3g} < {least:g}")

    def recovery(self, most: float, name: str = "recovery s, worst") -> None:
        """The worst time to a new promise."""
        self.figure(name, max((fault.recovered for fault in self.faults), default=0.0), most)

    def worst_request(self, most: float) -> None:
        """The longest any client waited for an answer."""
        self.figure("worst request s", max((one.seconds for one in self.devices.samples), default=0.0), most)


def _signal(pid: int, number: signal.Signals) -> None:
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        return


def _children(pid: int) -> list[int]:
    try:
        found = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    except OSError:
        return []
    return [int(each) for each in found]


def percentile(values: Sequence[float], share: float) -> float:
    """The value below which that share lies; 0 of nothing."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))] if ordered else 0.0
