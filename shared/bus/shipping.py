"""Log lines on their way to the log exchange: batched, unconfirmed, bounded, what is dropped is counted."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from shared.bus import codec
from shared.bus.codec import Frame
from shared.bus.ids import uuid7
from shared.bus.link import Link, Outgoing
from shared.bus.topology import LOGS
from shared.bus.verdict import Ending
from shared.contracts.base import Principal
from shared.contracts.worker import Ended, LogLine, StoreLogLines

EVERY_SECONDS = 0.2
MOST_LINES = 1_000  # in one message, and the most warnings that wait
MOST_ENDED = 4_000  # 20,000 commands a second
QUERY_SAMPLE = 0.01
KNOWN = ("time", "level", "service", "event", "request_id", "trace_id")


class Shipper:
    """Collects lines and sends them five times a second; never waits and never raises."""

    def __init__(self, link: Link, service: str) -> None:
        self._link = link
        self._service = service
        self._lines: list[LogLine] = []
        self._ended: list[tuple[float, Frame, Ending]] = []
        self.dropped = 0

    def add(self, line: Mapping[str, Any]) -> None:
        """Take one line as `shared.logs` makes them."""
        if len(self._lines) >= MOST_LINES:
            self.dropped += 1
            return
        self._lines.append(
            LogLine(
                at=datetime.now(UTC),
                level=line.get("level", "info"),
                service=self._service,
                event=str(line.get("event", ""))[:2_000],
                request_id=str(line.get("request_id", ""))[:200],
                trace_id=str(line.get("trace_id", "")),
                fields={name: _plain(value) for name, value in line.items() if name not in KNOWN},
            )
        )

    def ended(self, frame: Frame, ending: Ending) -> None:
        """One line per command, and a sample of the queries; never about the storing of lines."""
        kind = frame.kind
        if kind == "log" or (kind == "query" and random.random() >= QUERY_SAMPLE):
            return
        if len(self._ended) >= MOST_ENDED:
            self.dropped += 1
            return
        self._ended.append((time.time(), frame, ending))

    async def run(self) -> None:
        """Send for ever what was added."""
        while True:
            await asyncio.sleep(EVERY_SECONDS)
            self.flush()

    def flush(self) -> None:
        """Send what was added; lines that cannot be sent are dropped and counted."""
        lines, self._lines = self._lines, []
        ended, self._ended = self._ended, []
        if lines:
            self._send(StoreLogLines(lines=tuple(lines)), len(lines))
        for start in range(0, len(ended), MOST_LINES):
            some = ended[start : start + MOST_LINES]
            self._send(StoreLogLines(ended=tuple(_ended(*each) for each in some)), len(some))

    def _send(self, shipment: StoreLogLines, count: int) -> None:
        frame = Frame(
            id=(made := uuid7()),
            topic=StoreLogLines.topic,
            kind="log",
            body=codec.body_of(shipment),
            principal=Principal(kind="service", id=self._service),
            born=made.int >> 80,
        )
        message = Outgoing(
            LOGS,
            f"{self._service}.lines",
            codec.join([codec.encode(frame)]),
            persistent=False,
            mandatory=False,
        )
        if not self._link.send(message):
            self.dropped += count


def _ended(at: float, frame: Frame, ending: Ending) -> Ended:
    caller = frame.principal
    return Ended(
        int(at * 1_000_000),
        frame.id.bytes,
        frame.kind,
        frame.topic,
        ending.value,
        f"{caller.kind}:{caller.id}",
        frame.request_id,
        frame.traceparent,
        frame.born,
    )


def _plain(value: Any) -> Any:
    return value if isinstance(value, str | int | float | bool | None) else str(value)
