"""Log lines on their way to the log exchange: batched, unconfirmed, bounded, what is dropped is counted."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, TypeVar

import structlog
from prometheus_client import CollectorRegistry, Counter

from shared import logs
from shared.bus import codec
from shared.bus.codec import Frame
from shared.bus.ids import uuid7
from shared.bus.link import Link, Outgoing
from shared.bus.topology import LOGS
from shared.bus.verdict import Ending
from shared.contracts.base import Principal
from shared.contracts.worker import Ended, LogLine, StoreLogLines

log = structlog.get_logger()
T = TypeVar("T")
Moment = tuple[float, Frame, Ending]  # seconds since 1970, what ended, and how

EVERY_SECONDS = 0.2
MOST_LINES = 1_000  # the most warnings that wait
MOST_ENDED = 4_000  # 20,000 commands a second
LINES_TOGETHER, ENDED_TOGETHER = 100, 1_000  # in one message
MOST_CHARACTERS = 8_000  # of one field; of a traceback the end says more
QUERY_SAMPLE = 0.01
SAY_EVERY_SECONDS = 10.0
ENDED_LEVEL = "info"
KNOWN = ("time", "level", "service", "event", "request_id", "trace_id")


class Shipper:
    """Collects lines and sends them five times a second; never waits and never raises.

    A message holds lines of one level, under the routing key `<service>.<level>`: whoever binds a queue to
    `ingest.error` gets these and no others.
    """

    def __init__(
        self,
        link: Link,
        service: str,
        *,
        query_sample: float = QUERY_SAMPLE,
        registry: CollectorRegistry | None = None,
    ) -> None:
        self._link = link
        self._service = service
        self._query_sample = query_sample
        self._lines: list[LogLine] = []
        self._ended: list[Moment] = []
        self._counter = Counter(
            "posthouse_log_lines_dropped",
            "Log lines that were not shipped: too many at once, or no broker",
            registry=registry or CollectorRegistry(),
        )
        self._unsaid = 0
        self._said_at = float("-inf")
        self.dropped = 0

    def add(self, line: Mapping[str, Any]) -> None:
        """Take one line as `shared.logs` makes them."""
        if len(self._lines) >= MOST_LINES:
            self._drop(1)
            return
        self._lines.append(
            LogLine(
                at=_moment(line.get("time")),
                level=line.get("level", "info"),
                service=self._service,
                event=str(line.get("event", ""))[:2_000],
                request_id=str(line.get("request_id", ""))[:200],
                trace_id=str(line.get("trace_id", "")),
                fields={name: _short(value) for name, value in line.items() if name not in KNOWN},
            )
        )

    def ended(self, frame: Frame, ending: Ending) -> None:
        """One line per command, and a sample of the queries; never about the storing of lines.

        Nor about a timer that did its work, as some do every few seconds: that is a metric.
        """
        kind = frame.kind
        if (
            ending is Ending.DONE
            and frame.principal.id == self._service
            and frame.principal.kind == "service"
        ):
            return
        if kind == "log" or (kind == "query" and random.random() >= self._query_sample):
            return
        if len(self._ended) >= MOST_ENDED:
            self._drop(1)
            return
        self._ended.append((time.time(), frame, ending))

    async def run(self) -> None:
        """Send for ever what was added."""
        while True:
            await asyncio.sleep(EVERY_SECONDS)
            if self._link.can_send:  # what is said about a lost connection waits for the next one
                self.flush()

    def flush(self) -> None:
        """Send what was added; lines that cannot be sent are dropped and counted."""
        lines, self._lines = self._lines, []
        ended, self._ended = self._ended, []
        for level in dict.fromkeys(line.level for line in lines):
            of_level = [line for line in lines if line.level == level]
            for some in _parts(of_level, LINES_TOGETHER):
                self._send(level, lines=some)
        for few in _parts(ended, ENDED_TOGETHER):
            self._send(ENDED_LEVEL, ended=few)
        if self._unsaid and time.monotonic() - self._said_at > SAY_EVERY_SECONDS:
            self._say()

    def stop(self) -> None:
        """Send what is left, and say at home what could not be sent."""
        with logs.local_only():
            self.flush()
            if self._unsaid:
                self._say()

    def _say(self) -> None:
        count, self._unsaid, self._said_at = self._unsaid, 0, time.monotonic()
        log.warning("log_lines_dropped", count=count)

    def _drop(self, count: int) -> None:
        self.dropped += count
        self._unsaid += count
        self._counter.inc(count)

    def _send(self, level: str, lines: tuple[LogLine, ...] = (), ended: tuple[Moment, ...] = ()) -> None:
        try:
            told = tuple(_ended(*each) for each in ended)
            sent = self._link.send(self._message(level, StoreLogLines(lines=lines, ended=told)))
        except Exception:  # a line nobody can encode must not end the shipping of all others
            sent = False
            with logs.local_only():
                log.exception("log_lines_not_sent")
        if not sent:
            self._drop(len(lines) + len(ended))

    def _message(self, level: str, shipment: StoreLogLines) -> Outgoing:
        frame = Frame(
            id=(made := uuid7()),
            topic=StoreLogLines.topic,
            kind="log",
            body=codec.body_of(shipment),
            principal=Principal(kind="service", id=self._service),
            born=made.int >> 80,
        )
        body = codec.join([codec.encode(frame)])
        return Outgoing(LOGS, f"{self._service}.{level}", body, persistent=False, mandatory=False)


def _parts(items: Sequence[T], size: int) -> Iterator[tuple[T, ...]]:
    return (tuple(items[start : start + size]) for start in range(0, len(items), size))


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


def _moment(printed: Any) -> datetime:
    try:
        return datetime.fromisoformat(printed)
    except (TypeError, ValueError):
        return datetime.now(UTC)


def _short(value: Any) -> Any:
    if isinstance(value, str):
        return value if len(value) <= MOST_CHARACTERS else f"...{value[-MOST_CHARACTERS:]}"
    if isinstance(value, int | float | bool | None):
        return value
    return value if len(text := str(value)) <= MOST_CHARACTERS else text[:MOST_CHARACTERS]
