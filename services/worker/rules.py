"""What a shipped line becomes: a row of the log."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

import msgspec

from shared.contracts.worker import LEVELS, Ended, LogLine

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
MICROSECOND = timedelta(microseconds=1)
MOST_REQUEST_ID = 200
TRACE_AT, TRACE_ENDS = 3, 35  # in a traceparent, https://www.w3.org/TR/trace-context/
TRACE = re.compile(r"[0-9a-f]{32}")
_ESCAPED_NUL = re.compile(rb"(?<!\\)((?:\\\\)*)\\u0000")


class Row(NamedTuple):
    """A row of `log_line`; `at` in microseconds since 1970, texts in UTF-8, `fields` a JSON object.

    A `request_id` of no characters is that of the trace: the door gives a request without one its trace id.
    """

    at: int
    trace_id: bytes | None
    level: int
    service: bytes
    event: bytes
    request_id: bytes | None
    fields: bytes | None


class _EndedFields(msgspec.Struct, frozen=True):
    """What else the line about an ended frame says."""

    topic: str
    ending: str
    frame: str
    caller: str
    ms_since_born: int | None


_encode = msgspec.json.Encoder().encode


def row_of(service: str, line: LogLine) -> Row:
    """A line as `service` logged it, without the NUL characters that PostgreSQL does not store."""
    return Row(
        (line.at - EPOCH) // MICROSECOND,
        bytes.fromhex(line.trace_id) or None,
        LEVELS[line.level],
        service.encode(),
        _storable(line.event),
        _request_id(line.request_id, line.trace_id),
        _json(line.fields) if line.fields else None,
    )


def row_of_ended(service: str, ended: Ended) -> Row:
    """The line about a frame that `service` has ended."""
    hexadecimal = ended.frame.hex()
    at_ms = ended.at_us // 1000
    fields = _EndedFields(
        ended.topic,
        ended.ending,
        f"{hexadecimal[:8]}-{hexadecimal[8:12]}-{hexadecimal[12:16]}-{hexadecimal[16:20]}-{hexadecimal[20:]}",
        ended.caller,
        max(0, at_ms - ended.born_ms) if ended.born_ms else None,
    )
    return Row(
        ended.at_us,
        _trace_of(ended.traceparent),
        LEVELS["info"],
        service.encode(),
        f"{ended.kind}_ended".encode(),
        _request_id(ended.request_id[:MOST_REQUEST_ID], ended.traceparent[TRACE_AT:TRACE_ENDS]),
        _json(fields),
    )


def _request_id(text: str, trace_id: str) -> bytes | None:
    if text and text == trace_id and TRACE.fullmatch(trace_id):
        return b""
    return _storable(text) or None


def _trace_of(traceparent: str) -> bytes | None:
    trace = traceparent[TRACE_AT:TRACE_ENDS]
    return bytes.fromhex(trace) if TRACE.fullmatch(trace) else None


def _json(fields: object) -> bytes:
    """As JSON; PostgreSQL stores no NUL in jsonb either, not even as an escape."""
    text = _encode(fields)
    return _ESCAPED_NUL.sub(rb"\1", text) if b"\\u0000" in text else text


def _storable(text: str) -> bytes:
    return text.replace("\0", "").encode()
