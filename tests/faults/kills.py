"""Killing the parts of an instance while requests are in flight, and what each kill was like."""

from __future__ import annotations

import asyncio
import signal
import time
from dataclasses import dataclass, field
from pathlib import Path

from tests.faults.writers import Writers
from tests.journeys.instance import OwnPosthouse, until

LEAST_IN_FLIGHT = 50
GOES_ON_AFTER = 100  # values acknowledged after a kill
HOOKS = Path(__file__).parent / "hooks"


@dataclass(frozen=True)
class Kill:
    """One kill that counts."""

    what: str
    in_flight: int
    seconds: float
    """Until the first promise for a request that was sent after it."""


@dataclass
class Killer:
    """Kills parts of an instance under the load of writers."""

    posthouse: OwnPosthouse
    writers: Writers
    trigger: Path
    kills: list[Kill] = field(default_factory=list)

    async def kill(self, *names: str) -> None:
        """`kill -9` these processes of the instance at once, and see them come back."""
        await self._loaded()
        await until(lambda: all(map(self.posthouse.pid, names)), "all of them run")
        flying, began = self.writers.in_flight, time.monotonic()
        killed = {name: self.posthouse.kill(name) for name in names}
        for name, pid in killed.items():
            await self.posthouse.another(name, pid)
        await self._recovered(f"kill -9 {', '.join(names)}", flying, began)

    async def freeze(self, name: str, seconds: float) -> None:
        """Stop a process without ending it: it holds its connections and says nothing."""
        await self._loaded()
        flying, began = self.writers.in_flight, time.monotonic()
        self.posthouse.kill(name, signal.SIGSTOP)
        try:
            await asyncio.sleep(seconds)
        finally:
            self.posthouse.kill(name, signal.SIGCONT)
        await self._recovered(f"{name} silent for {seconds:.0f} s", flying, began)

    async def kill_after_commit(self, commits: int) -> None:
        """An ingest process dies between its commit and its ack, `commits` commits from now."""
        before = {name: self.posthouse.pid(name) for name in ("ingest", "ingest-2")}
        for _ in range(20):
            await self._loaded()
            await until(lambda: all(map(self.posthouse.pid, before)), "both ingest processes run")
            whole = self.trigger.with_suffix(".new")
            whole.write_text(str(commits))
            whole.rename(self.trigger)  # nobody reads half of it
            await until(lambda: not self.trigger.exists(), f"{commits} commits")
            flying, began = self.writers.in_flight, time.monotonic()
            if flying >= LEAST_IN_FLIGHT:
                break
        else:
            raise AssertionError("never enough in flight when a process died after its commit")
        await self._recovered(f"ingest, {commits} commits on, before its ack", flying, began)

    async def _loaded(self) -> None:
        await until(lambda: self.writers.in_flight >= LEAST_IN_FLIGHT, "enough requests in flight")

    async def _recovered(self, what: str, flying: int, began: float) -> None:
        await until(lambda: self.writers.latest_kept > began, f"a promise after {what}")
        self.kills.append(Kill(what, flying, time.monotonic() - began))
        at = self.writers.acknowledged
        await until(lambda: self.writers.acknowledged > at + GOES_ON_AFTER, f"work goes on after {what}")
        await self.posthouse.ready()
