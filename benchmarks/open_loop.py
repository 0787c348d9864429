"""A load that comes at its own pace, whatever is answered: `python -m benchmarks.open_loop '<plan as JSON>'`.

Each kind of request has connections of its own. What is due goes to a free connection, in chunks that are
written at once; when none is free it is counted as turned away. Latency is taken from when a request was due.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import resource
import statistics
import sys
import time
from collections import Counter, deque
from collections.abc import Mapping, Sequence
from typing import cast

import msgspec
import uvloop
from msgspec import Struct

TICK_SECONDS = 0.005
LAST_ANSWERS_SECONDS = 15.0
CONNECT_AT_ONCE = 64


class Kind(Struct, frozen=True, kw_only=True):
    """One kind of request: how often a second, on how many connections, how many at a time on each."""

    name: str
    rate: float
    connections: int
    chunk: int = 1
    requests: Sequence[str]
    """Whole requests as they are sent; they take turns."""


class Plan(Struct, frozen=True, kw_only=True):
    """What to send where, for how long; `nice` as in nice(1)."""

    host: str
    port: int
    seconds: float
    kinds: Sequence[Kind]
    nice: int = 0


class Outcome(Struct, kw_only=True):
    """What became of one kind; `statuses` counts answers, `unanswered` requests without one."""

    due: int = 0
    sent: int = 0
    statuses: dict[int, int] = {}
    unanswered: int = 0
    retry_after: dict[str, int] = {}
    """Answers with 503 by their Retry-After; an empty text: without one."""
    p50_ms: float = 0.0
    p99_ms: float = 0.0
    """Of the answers with a 2xx."""

    @property
    def accepted(self) -> int:
        """Answers with a 2xx."""
        return sum(count for status, count in self.statuses.items() if 200 <= status < 300)


class Answers:
    """Cuts a stream into answers: status and Retry-After of each."""

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, data: bytes) -> list[tuple[int, str]]:
        """The answers that are complete now."""
        buffer, at, found = self._rest + data, 0, []
        while (end := buffer.find(b"\r\n\r\n", at)) >= 0:
            head = buffer[at:end].lower()
            after = end + 4 + int(_field(head, b"\r\ncontent-length: ") or 0)
            if after > len(buffer):
                break
            found.append((int(head[9:12]), _field(head, b"\r\nretry-after: ").decode()))
            at = after
        self._rest = buffer[at:]
        return found


def _field(head: bytes, name: bytes) -> bytes:
    start = head.find(name)
    if start < 0:
        return b""
    start += len(name)
    end = head.find(b"\r", start)
    return head[start:] if end < 0 else head[start:end]


class Line(asyncio.Protocol):
    """One connection; it carries one chunk at a time."""

    def __init__(self, sender: Sender) -> None:
        self._sender = sender
        self._answers = Answers()
        self._waiting: deque[float] = deque()
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """It can be used."""
        self._transport = cast("asyncio.Transport", transport)  # uvloop's is none by its class
        self._sender.lines.add(self)
        self._sender.free.append(self)

    def close(self) -> None:
        """Nothing more is sent."""
        assert self._transport is not None
        self._transport.close()

    def send(self, chunk: bytes, due: Sequence[float]) -> None:
        """Write requests that were due at these times."""
        assert self._transport is not None
        self._waiting.extend(due)
        self._transport.write(chunk)

    def data_received(self, data: bytes) -> None:
        """Count answers; free when all have come."""
        now = time.monotonic()
        for status, retry_after in self._answers.feed(data):
            self._sender.answered(status, retry_after, now - self._waiting.popleft())
        if not self._waiting:
            self._sender.free.append(self)

    def connection_lost(self, error: Exception | None) -> None:
        """What it carried has no answer; another takes its place."""
        self._sender.lost(self, len(self._waiting))


class Sender:
    """Sends one kind at its rate."""

    def __init__(self, plan: Plan, kind: Kind) -> None:
        self.lines: set[Line] = set()
        self.free: deque[Line] = deque()
        self.outcome = Outcome()
        self._plan, self._kind = plan, kind
        self._statuses: Counter[int] = Counter()
        self._retry_after: Counter[str] = Counter()
        self._latencies: list[float] = []
        self._chunks = itertools.cycle(_chunks(kind))
        self._under_way = 0
        self._ended = False
        self._all_answered = asyncio.Event()
        self._opening: set[asyncio.Task[None]] = set()

    async def open(self) -> None:
        """Have all connections before the clock runs."""
        for first in range(0, self._kind.connections, CONNECT_AT_ONCE):
            count = min(CONNECT_AT_ONCE, self._kind.connections - first)
            await asyncio.gather(*(self._connect() for _ in range(count)))

    async def _connect(self) -> None:
        loop = asyncio.get_running_loop()
        with contextlib.suppress(OSError):
            await loop.create_connection(lambda: Line(self), self._plan.host, self._plan.port)

    async def run(self) -> Outcome:
        """Send until the time is over, then wait for the last answers."""
        kind, began = self._kind, time.monotonic()
        while (passed := time.monotonic() - began) < self._plan.seconds:
            while self.outcome.due / kind.rate <= passed:
                self._one(began + self.outcome.due / kind.rate)
            await asyncio.sleep(TICK_SECONDS)
        self._ended = True
        self._look_for_the_end()
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._all_answered.wait(), LAST_ANSWERS_SECONDS)
        outcome = self._counted()
        for line in list(self.lines):
            line.close()
        await asyncio.sleep(0)  # connections are closed in the next turn of the loop
        return outcome

    def _one(self, due: float) -> None:
        chunk = self._kind.chunk
        self.outcome.due += chunk
        body = next(self._chunks)
        if self.free:
            self.outcome.sent += chunk
            self._under_way += chunk
            self.free.popleft().send(body, [due] * chunk)

    def answered(self, status: int, retry_after: str, seconds: float) -> None:
        """One answer has come."""
        self._settled(1)
        self._statuses[status] += 1
        if 200 <= status < 300:
            self._latencies.append(seconds)
        elif status == 503:
            self._retry_after[retry_after] += 1

    def lost(self, line: Line, waiting: int) -> None:
        """A connection has ended."""
        self._settled(waiting)
        self.outcome.unanswered += waiting
        self.lines.discard(line)
        with contextlib.suppress(ValueError):
            self.free.remove(line)
        if not self._ended:
            task = asyncio.ensure_future(self._connect())
            self._opening.add(task)
            task.add_done_callback(self._opening.discard)

    def _settled(self, count: int) -> None:
        self._under_way -= count
        self._look_for_the_end()

    def _look_for_the_end(self) -> None:
        if self._ended and not self._under_way:
            self._all_answered.set()

    def _counted(self) -> Outcome:
        self.outcome.unanswered += self._under_way
        self.outcome.statuses = dict(self._statuses)
        self.outcome.retry_after = dict(self._retry_after)
        if len(self._latencies) > 1:
            cuts = statistics.quantiles(self._latencies, n=100, method="inclusive")
            self.outcome.p50_ms, self.outcome.p99_ms = cuts[49] * 1000, cuts[98] * 1000
        return self.outcome


def _chunks(kind: Kind) -> list[bytes]:
    """Ready to be written; every request has its turn in each place."""
    turns = itertools.cycle(kind.requests)
    return ["".join(itertools.islice(turns, kind.chunk)).encode() for _ in kind.requests]


def raw(method: str, path: str, host: str, headers: Mapping[str, str], body: str = "") -> str:
    """A request as it crosses the wire."""
    lines = [f"{method} {path} HTTP/1.1", f"Host: {host}"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    if body:
        lines.append(f"Content-Length: {len(body.encode())}")
    return "\r\n".join([*lines, "", body])


async def run(plan: Plan) -> dict[str, Outcome]:
    """What became of each kind."""
    senders = {kind.name: Sender(plan, kind) for kind in plan.kinds}
    await asyncio.gather(*(sender.open() for sender in senders.values()))
    print("open", flush=True)
    outcomes = await asyncio.gather(*(sender.run() for sender in senders.values()))
    return dict(zip(senders, outcomes, strict=True))


def main() -> None:
    """Run the plan in the first argument; print the outcomes as JSON."""
    plan = msgspec.json.decode(sys.argv[1], type=Plan)
    os.nice(plan.nice)
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    outcomes = uvloop.run(run(plan))
    print(msgspec.json.encode(outcomes).decode())


if __name__ == "__main__":
    main()
