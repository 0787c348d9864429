"""What is being worked on right now in this task: the ids every log line of it carries."""

from __future__ import annotations

import re
from contextvars import ContextVar
from types import TracebackType
from typing import NamedTuple

_TRACEPARENT = re.compile(r"[0-9a-f]{2}-([0-9a-f]{32})-[0-9a-f]{16}-[0-9a-f]{2}")


class Trail(NamedTuple):
    """Ids that lead from a log line to its request: the door's id, the W3C trace context, the frame."""

    request_id: str = ""
    traceparent: str = ""
    frame: object = ""

    @property
    def trace_id(self) -> str:
        """The 32 hexadecimal digits of the trace (https://www.w3.org/TR/trace-context/), or nothing."""
        found = _TRACEPARENT.match(self.traceparent)
        return found[1] if found else ""


NOWHERE = Trail()
_trail: ContextVar[Trail] = ContextVar("trail", default=NOWHERE)


class Bound:
    """Ends a binding at the end of a `with` block."""

    def __init__(self, trail: Trail) -> None:
        self._token = _trail.set(trail)

    def __enter__(self) -> None:
        return None

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        _trail.reset(self._token)


def bind(*, request_id: str = "", traceparent: str = "", frame: object = "") -> Bound:
    """Set the ids for what this task does next: `with bind(request_id=..., frame=...):`."""
    return Bound(Trail(request_id, traceparent, frame))


def enter(request_id: str, traceparent: str, frame: object) -> None:
    """Set the ids for the rest of this task, until the next call; `frame` becomes text when it is read."""
    _trail.set(Trail(request_id, traceparent, frame))


def current() -> Trail:
    """The ids in force here."""
    return _trail.get()
