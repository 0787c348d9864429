"""What crosses the wire to worker: log lines, and the timers it sends to itself."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, Literal
from uuid import UUID

from msgspec import Meta, Struct

from shared.contracts.base import ANY_ACCOUNT, Command, Nothing, Query

Moment = Annotated[datetime, Meta(tz=True)]
Level = Literal["debug", "info", "warning", "error", "critical"]
LEVELS: dict[Level, int] = {"debug": 10, "info": 20, "warning": 30, "error": 40, "critical": 50}
_TRACE = re.compile(r"[0-9a-f]{32}")


class LogLine(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One line a service shipped: when, how grave, what happened, and during which request.

    `trace_id` is the 32 hexadecimal digits of the W3C trace context; `fields` is whatever else the
    line says, as JSON would hold it.
    """

    at: datetime
    level: Level
    service: Annotated[str, Meta(max_length=64)]
    event: Annotated[str, Meta(max_length=2_000)]
    request_id: Annotated[str, Meta(max_length=200)] = ""
    trace_id: Annotated[str, Meta(pattern=r"^([0-9a-f]{32})?\Z")] = ""
    fields: dict[str, Any] = {}


class Ended(Struct, frozen=True, array_like=True, gc=False):
    """A frame a service has ended, short because there is one of every command.

    Stored as a line `<kind>_ended` of level info. `at_us` is microseconds since 1970, `born_ms`
    milliseconds since 1970 or 0; `caller` is the kind and the id of the principal.
    """

    at_us: int
    frame: Annotated[bytes, Meta(min_length=16, max_length=16)]
    kind: str
    topic: str
    ending: str
    caller: str
    request_id: str
    traceparent: str
    born_ms: int

    def line(self, service: str) -> LogLine:
        """The line about it, as it is stored and shown; `service` is who ended it."""
        at_ms = self.at_us // 1000
        trace_id = self.traceparent[3:35]  # https://www.w3.org/TR/trace-context/
        return LogLine(
            at=datetime.fromtimestamp(self.at_us // 1_000_000, UTC)
            + timedelta(microseconds=self.at_us % 1_000_000),
            level="info",
            service=service,
            event=f"{self.kind}_ended",
            request_id=self.request_id[:200],
            trace_id=trace_id if _TRACE.fullmatch(trace_id) else "",
            fields={
                "topic": self.topic,
                "ending": self.ending,
                "frame": str(UUID(bytes=self.frame)),
                "caller": self.caller,
                "ms_since_born": max(0, at_ms - self.born_ms) if self.born_ms else None,
            },
        )


class KeepLogs(Command[Nothing], topic="worker.keep_logs", senders=frozenset()):
    """Make the partitions of the coming days and drop those past LOG_DAYS; sent by worker to itself."""


class StoreLogLines(Command[Nothing], topic="worker.store_log_lines", senders=frozenset({ANY_ACCOUNT})):
    """Keep log lines; published to the log exchange, a few times a second, by every process.

    Any service may log, in the name of its account. `ended` are frames that the sender has ended. One message
    holds lines of one level, and its routing key is `<service>.<level>`; processes of older versions sent
    lines of all levels together.
    """

    lines: tuple[LogLine, ...] = ()
    ended: tuple[Ended, ...] = ()


class StoredLine(Struct, frozen=True, kw_only=True):
    """A line as it was stored; `fields` is whatever else it says."""

    at: datetime
    level: Level
    service: str
    event: str
    request_id: str
    trace_id: str
    fields: dict[str, Any]


class LogPage(Struct, frozen=True, kw_only=True):
    """One page of log lines, newest first unless asked otherwise; `next` continues it."""

    items: tuple[StoredLine, ...]
    next: str | None


class ListLogLines(Query[LogPage], topic="worker.list_log_lines"):
    """Stored log lines, for administrators of the default project: the log is that of the whole server.

    `level` is the least grave one shown, `q` a text that the event or the fields contain (without case),
    `since` and `until` bound `at` (since <= at < until). A search that takes longer than 5 s is refused.
    """

    service: Annotated[str, Meta(max_length=64)] = ""
    level: Level | None = None
    request_id: Annotated[str, Meta(max_length=200)] = ""
    trace_id: Annotated[str, Meta(pattern=r"^([0-9a-f]{32})?\Z")] = ""
    q: Annotated[str, Meta(max_length=200)] = ""
    since: Moment | None = None
    until: Moment | None = None
    limit: Annotated[int, Meta(ge=1, le=1_000)] = 100
    after: str | None = None
    order: Literal["asc", "desc"] = "desc"
