"""Log lines on their way to the log exchange: batched, unconfirmed, bounded, what is dropped is counted."""

from __future__ import annotations

import asyncio
import random
import time
from collections import deque
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from shared.bus import codec
from shared.bus.codec import Frame
from shared.bus.ids import uuid7
from shared.bus.link import Link, Outgoing
from shared.bus.topology import LOGS
from shared.bus.verdict import Ending
from shared.context import Trail
from shared.contracts.base import Principal
from shared.contracts.worker import LogLine, StoreLogLines

EVERY_SECONDS = 0.2
MOST_LINES = 1_000
QUERY_SAMPLE = 0.01
KNOWN = ("time", "level", "service", "event", "request_id", "trace_id")


class Shipper:
    """Collects lines and sends them five times a second; never waits and never raises."""

    def __init__(self, link: Link, service: str) -> None:
        self._link = link
        self._service = service
        self._lines: deque[LogLine] = deque()
        self._ended: deque[tuple[float, Frame, str]] = deque()
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
        if frame.kind == "log" or (frame.kind == "query" and random.random() >= QUERY_SAMPLE):
            return
        if len(self._ended) >= MOST_LINES:
            self.dropped += 1
            return
        self._ended.append((time.time(), frame, ending.value))

    def _line_of(self, at: float, frame: Frame, ending: str) -> LogLine:
        caller = frame.principal
        return LogLine(
            at=datetime.fromtimestamp(at, UTC),
            level="info",
            service=self._service,
            event=f"{frame.kind}_ended",
            request_id=frame.request_id[:200],
            trace_id=Trail(traceparent=frame.traceparent).trace_id,
            fields={
                "topic": frame.topic,
                "ending": ending,
                "frame": str(frame.id),
                "caller": f"{caller.kind}:{caller.id}",
                "ms_since_born": max(0, int(at * 1000) - frame.born) if frame.born else None,
            },
        )

    async def run(self) -> None:
        """Send for ever what was added."""
        while True:
            await asyncio.sleep(EVERY_SECONDS)
            self.flush()

    def flush(self) -> None:
        """Send what was added; lines that cannot be sent are dropped and counted."""
        lines, self._lines = self._lines, deque()
        ended, self._ended = self._ended, deque()
        lines.extend(self._line_of(*each) for each in ended)
        if not lines:
            return
        frame = Frame(
            id=(made := uuid7()),
            topic=StoreLogLines.topic,
            kind="log",
            body=codec.body_of(StoreLogLines(lines=tuple(lines))),
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
            self.dropped += len(lines)


def _plain(value: Any) -> Any:
    return value if isinstance(value, str | int | float | bool | None) else str(value)
