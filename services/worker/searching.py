"""Reading the log: who may, what a search asks for, and what a row becomes again."""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Sequence
from datetime import datetime
from struct import Struct
from struct import error as StructError
from typing import Any, NamedTuple
from uuid import UUID

import msgspec

from services.worker.rules import EPOCH, MICROSECOND, TRACE
from shared.contracts.base import FieldError, Principal
from shared.contracts.worker import LEVELS, Level, ListLogLines, LogPage, StoredLine
from shared.errors import Forbidden, Invalid

_CURSOR = Struct(">qIH")
_NAMES: dict[int, Level] = {number: name for name, number in LEVELS.items()}
_WILD = re.compile(r"([\\%_])")
_read = msgspec.json.Decoder(dict[str, Any]).decode
MOST_PAGE_BYTES = 1 << 20  # of what is sent over the bus as one message


class Cursor(NamedTuple):
    """Where a page ended: the time of its last line, and the block and number of its row there."""

    at: datetime
    block: int
    item: int

    def text(self) -> str:
        """An opaque text for the client."""
        raw = _CURSOR.pack((self.at - EPOCH) // MICROSECOND, self.block, self.item)
        return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()

    @classmethod
    def read(cls, text: str) -> Cursor:
        """The cursor a client sent back; raises Invalid."""
        try:
            at, block, item = _CURSOR.unpack(base64.urlsafe_b64decode(text + "=="))
            return cls(EPOCH + at * MICROSECOND, block, item)
        except (ValueError, binascii.Error, StructError, OverflowError):
            wrong = FieldError(where="query", path="after", code="invalid", message="is no `next` of a page")
            raise Invalid("The request has a mistake.", errors=[wrong]) from None


class Search(NamedTuple):
    """What is looked for, as the statement takes it; None is anything."""

    service: str | None
    level: int
    request_id: str | None
    request_trace: UUID | None
    trace_id: UUID | None
    pattern: str | None
    since: datetime | None
    until: datetime | None
    after: Cursor | None
    is_descending: bool
    limit: int


def may_read_log(caller: Principal) -> None:
    """The log is that of the whole server, so of the project that owns it; raises Forbidden."""
    if caller.kind != "user" or "administrator" not in caller.roles or caller.project != "default":
        raise Forbidden("The log is for administrators.")


def search_of(query: ListLogLines) -> Search | None:
    """The query as the statement takes it; None when no line can be found; raises Invalid."""
    if "\0" in f"{query.service}{query.request_id}{query.q}":
        return None  # no line holds one
    is_trace = TRACE.fullmatch(query.request_id)
    return Search(
        service=query.service or None,
        level=LEVELS[query.level] if query.level else 0,
        request_id=query.request_id or None,
        request_trace=UUID(query.request_id) if is_trace else None,
        trace_id=UUID(query.trace_id) if query.trace_id else None,
        pattern=f"%{_WILD.sub(_ESCAPED, query.q)}%" if query.q else None,
        since=query.since,
        until=query.until,
        after=Cursor.read(query.after) if query.after else None,
        is_descending=query.order == "desc",
        limit=query.limit + 1,  # one more tells whether there is a next page
    )


_ESCAPED = r"\\\1"


def page_of(rows: Sequence[Any], limit: int) -> LogPage:
    """As many of the rows as were asked for and fit into one message, at least one."""
    items: list[StoredLine] = []
    size = 0
    for row in rows[:limit]:
        size += len(row["event"]) + len(row["fields"] or "")
        if items and size > MOST_PAGE_BYTES:
            break
        items.append(line_of(row))
    if len(items) == len(rows):
        return LogPage(items=tuple(items), next=None)
    last = rows[len(items) - 1]
    return LogPage(items=tuple(items), next=Cursor(last["at"], *last["place"]).text())


def line_of(row: Any) -> StoredLine:
    """A row as the line it was."""
    trace_id = row["trace_id"].hex if row["trace_id"] else ""
    request_id = row["request_id"]
    return StoredLine(
        at=row["at"],
        level=_NAMES.get(row["level"], "info"),
        service=row["service"],
        event=row["event"],
        request_id=trace_id if request_id == "" else request_id or "",
        trace_id=trace_id,
        fields=_read(row["fields"]) if row["fields"] else {},
    )
