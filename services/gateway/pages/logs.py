"""The log for administrators: a form, a table, and what is said right now."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import urlencode

import msgspec
from aiohttp import web

from services.gateway.http.answers import time_text, to_json
from services.gateway.http.validate import mistakes as found_in
from services.gateway.http.validate import read_time
from services.gateway.pages.site import Site, Visit
from shared.bus.topology import SERVICES
from shared.contracts.worker import ListLogLines, LogPage, StoredLine
from shared.errors import Invalid, Refusal

site = Site()
ROWS = 100
BRIEF_CHARACTERS = 120
SERVICES_THAT_LOG = ("gateway", *SERVICES)
LEVELS = {"": "All levels", "warning": "Warnings and errors", "error": "Errors"}
BADGES = {"warning": "warn", "error": "bad", "critical": "bad"}
SPANS = {
    "": ("Any time", None),
    "15m": ("Last 15 minutes", timedelta(minutes=15)),
    "1h": ("Last hour", timedelta(hours=1)),
    "24h": ("Last 24 hours", timedelta(hours=24)),
    "7d": ("Last 7 days", timedelta(days=7)),
}
TEXTS = ("service", "level", "request_id", "q", "since")
IDS = ("frame", "frame_id")  # long, and nothing a person compares
WRONG_TIME = "A time is written like 2026-01-31T12:00:00Z."


@dataclass(frozen=True)
class Asked:
    """What the form holds, as it was sent."""

    service: str = ""
    level: str = ""
    request_id: str = ""
    q: str = ""
    since: str = ""

    @classmethod
    def read(cls, query: Mapping[str, str]) -> Asked:
        """The fields of the form, without the spaces that copying brings along."""
        return cls(**{name: query.get(name, "").strip() for name in TEXTS})

    @property
    def is_narrow(self) -> bool:
        """Whether anything is asked for beyond the newest lines."""
        return any(getattr(self, name) for name in TEXTS)

    def path(self, **more: str) -> str:
        """The address of this search; `more` changes or adds to it."""
        fields = {name: getattr(self, name) for name in TEXTS} | more
        given = {name: text for name, text in fields.items() if text}
        return f"/logs?{urlencode(given)}" if given else "/logs"

    def message(self, now: datetime, after: str) -> ListLogLines:
        """As the service takes it; raises Invalid with every mistake."""
        values: dict[str, Any] = {
            "service": self.service,
            "level": self.level or None,
            "request_id": self.request_id,
            "q": self.q,
            "since": _since(self.since, now),
            "limit": ROWS,
            "after": after or None,
        }
        wrong = list(found_in(values, ListLogLines))
        if wrong:
            raise Invalid(f"{wrong[0].path}: {wrong[0].message}.", errors=wrong)
        return msgspec.convert(values, ListLogLines)


def _since(text: str, now: datetime) -> str | None:
    if text in SPANS:
        span = SPANS[text][1]
        return None if span is None else time_text(now - span)
    try:
        return time_text(read_time(text, UTC))
    except ValueError:
        raise Invalid(WRONG_TIME) from None


@site.get("/logs", who="administrator")
async def show(visit: Visit) -> web.Response:
    """The newest lines that fit, a page at a time."""
    asked = Asked.read(visit.query)
    page, wrong, status = LogPage(items=(), next=None), "", 200
    try:
        page = await visit.ask(asked.message(datetime.now(UTC), visit.query.get("after", "")))
    except Refusal as refusal:
        if refusal.status != 422:
            raise
        wrong, status = refusal.detail, 422
    return visit.page(
        "logs.html",
        status,
        asked=asked,
        lines=page.items,
        next=page.next,
        wrong=wrong,
        is_first=not visit.query.get("after"),
        services=SERVICES_THAT_LOG,
        levels=_with(LEVELS, asked.level),
        spans=_with({name: words for name, (words, _) in SPANS.items()}, asked.since),
        badges=BADGES,
        brief=brief,
        facts=facts,
        key=key,
    )


def _with(known: Mapping[str, str], asked: str) -> dict[str, str]:
    """The choices of a list, with what an address asked for that is none of them."""
    return {**known, **({} if asked in known else {asked: asked})}


def brief(line: StoredLine) -> str:
    """The short fields of a line in one, for a look in passing."""
    told = ((name, value) for name, value in line.fields.items() if value is not None and name not in IDS)
    texts = (f"{name}={said(value)}" for name, value in told)
    return "  ".join(text for text in texts if "\n" not in text and len(text) < BRIEF_CHARACTERS)


def key(line: StoredLine) -> str:
    """What tells a line from others, for the script: it must not show one twice."""
    frame = line.fields.get("frame", "")
    return "|".join((time_text(line.at), line.service, line.event, line.request_id, said(frame)))


def facts(line: StoredLine) -> list[tuple[str, str]]:
    """All there is to say about a line, by name."""
    ids = {"time": time_text(line.at), "request_id": line.request_id, "trace_id": line.trace_id}
    return [(name, said(value)) for name, value in (ids | line.fields).items() if value not in ("", None)]


def said(value: Any) -> str:
    """A field as a person reads it: texts without quotation marks."""
    return value if isinstance(value, str) else to_json(value).decode()
