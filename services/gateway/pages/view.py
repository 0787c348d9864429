"""Templates, what they can call, and the static files they name."""

from __future__ import annotations

import re
import secrets
from datetime import UTC, datetime
from functools import cache, lru_cache
from hashlib import sha256
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined, pass_context
from jinja2.runtime import Context
from markupsafe import Markup, escape

from services.gateway.http.answers import time_text
from shared.http import VERSION

HERE = Path(__file__).parent
STATIC = HERE / "static"
KINDS = {
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
    ".txt": "text/plain; charset=utf-8",
}


def render(template: str, **values: Any) -> bytes:
    """A template of this package as UTF-8; everything in it is escaped."""
    return _environment().get_template(template).render(values).encode()


@lru_cache(256)  # names come from anybody
def static_file(name: str) -> tuple[bytes, str, str] | None:
    """A file under static/: its bytes, its content type and a short hash; None when there is none."""
    path = STATIC / name
    if not path.is_relative_to(STATIC) or ".." in Path(name).parts or path.suffix not in KINDS:
        return None
    if not path.is_file():
        return None
    content = path.read_bytes()
    if path.suffix == ".js":
        content = _IMPORT.sub(_with_version, content)
    return content, KINDS[path.suffix], sha256(content).hexdigest()[:12]


# A module that is imported under two addresses runs twice: scripts name each other as the pages do.
_IMPORT = re.compile(rb"""((?:from|import) ")\./([\w-]+\.js)(?=";)""")


def _with_version(found: re.Match[bytes]) -> bytes:
    return found[1] + static(found[2].decode()).encode()


def static(name: str) -> str:
    """The address of a static file, new with each version of it."""
    found = static_file(name)
    if found is None:
        raise LookupError(f"there is no static file {name}")
    return f"/static/{name}?v={found[2]}"


def when(moment: datetime | None, otherwise: str = "never") -> Markup:
    """A time as words, exact on hover; a script keeps the words true while the page stays open."""
    if moment is None:
        return escape(otherwise)
    exact = time_text(moment)
    words = ago(moment, datetime.now(UTC))
    return Markup('<time datetime="{0}" title="{0}">{1}</time>').format(exact, words)


def local(moment: datetime | None) -> str:
    """A time in UTC as a field of a form holds it."""
    return "" if moment is None else moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S")


_STEPS = ((60, 1, "second"), (3600, 60, "minute"), (86_400, 3600, "hour"), (2_592_000, 86_400, "day"))


def ago(moment: datetime, now: datetime) -> str:
    """`3 minutes ago`, `in 2 days`; beyond 30 days the date. What is to come is rounded, what was is over."""
    seconds = int((now - moment).total_seconds())
    size = abs(seconds)
    if size < 5:
        return "just now"
    for below, unit, name in _STEPS:
        if size < below:
            count = size // unit if seconds > 0 else (size + unit // 2) // unit
            text = f"{count} {name}{'' if count == 1 else 's'}"
            return f"{text} ago" if seconds > 0 else f"in {text}"
    return moment.astimezone(UTC).strftime("%-d %b %Y")


def count(number: int, one: str, many: str = "") -> str:
    """`1 reading`, `12,345 readings`."""
    return f"{number:,} {one if number == 1 else many or one + 's'}"


@pass_context
def once(known: Context) -> Markup:
    """A hidden field that makes a form do its work once, however often it is sent.

    A page that asks to try the same again says so with `again`: the value that was sent.
    """
    value = known.get("again") or secrets.token_urlsafe(18)
    return Markup('<input type="hidden" name="_once" value="{}">').format(value)


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(HERE / "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        auto_reload=False,
    )
    environment.globals.update(
        static=static, when=when, exact=time_text, local=local, count=count, once=once, version=VERSION
    )
    return environment
