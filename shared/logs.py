"""One line per event on standard error, with the ids of its request and without secrets.

JSON for whatever collects it; on a terminal in colours, for whoever looks.
"""

from __future__ import annotations

import logging
import re
import sys
from collections.abc import Callable, Iterator, Mapping, MutableMapping
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import UTC, datetime
from typing import Any, TextIO

import msgspec
import structlog

from shared import context

Line = MutableMapping[str, Any]
Ship = Callable[[Mapping[str, Any]], None]

MASK = "***"
SHIPPED = {"warning", "error", "critical"}
_SECRET_KEY = re.compile(
    r"password|passphrase|token|secret|authorization|cookie|credential"
    r"|^key$|(api|read|write|access|private|signing)[_-]?key$",  # but routing_key is none
    re.IGNORECASE,
)
_URL_PASSWORD = re.compile(r"(\b[a-z][a-z0-9+.-]*://[^\s:/@]*):[^\s/@]+@", re.IGNORECASE)
_CREDENTIAL = re.compile(r"\b(bearer|basic)\s+[\w.~+/=-]{8,}", re.IGNORECASE)
_PARAMETER = re.compile(r"([?&](?:api_key|key|token|access_token)=)[^&\s\"']+", re.IGNORECASE)
# As a mapping, a structure or a command line prints it: 'password': 'x', password='x', password=x
_NAMES = r"(?:password|passphrase|secret|token|authorization|cookie|api[_-]?key)"
_QUOTED = re.compile(rf"({_NAMES}[\"']?\s*[:=]\s*b?)([\"'])(?:\\.|(?!\2).)*\2", re.IGNORECASE | re.DOTALL)
_BARE = re.compile(rf"({_NAMES}=)(?!b?[\"'])[^\"'\s,;)}}&]+", re.IGNORECASE)
# Ours are known without a name: JSON Web Tokens, phr_ and its like, the cookie of a browser.
_OURS = re.compile(r"\beyJ[\w-]{8,}\.[\w-]{8,}\.[\w-]+|\bph[a-z]_[\w.~-]{16,}|(?<=posthouse=)[\w.~-]{16,}")
MOST_INTEGER = 2**63
_encode = msgspec.json.Encoder(enc_hook=str).encode

_ship: Ship | None = None
_local_only: ContextVar[bool] = ContextVar("local_only", default=False)


def configure(service: str, level: str = "info", stream: TextIO | None = None) -> None:
    """Set up structlog and the standard library's logging for this process; lines go to `stream`.

    Without one to standard error, whatever that is now.
    """
    number = logging.getLevelNamesMapping()[level.upper()]
    chain: list[Any] = [
        structlog.stdlib.add_log_level,
        _stamp(service),
        structlog.processors.StackInfoRenderer(),
        structlog.processors.format_exc_info,
        mask_secrets,
    ]
    out = stream or sys.stderr
    render = _for_people() if out.isatty() else _to_json
    structlog.configure(
        processors=[*chain, _hand_over, render],
        wrapper_class=structlog.make_filtering_bound_logger(number),
        logger_factory=structlog.WriteLoggerFactory(file=out),
        cache_logger_on_first_use=stream is None,
    )
    _route_standard_logging(chain, render, number, out)


def on_ship(ship: Ship | None) -> None:
    """Hand every line of level warning and above to `ship`, masked; it must return at once, never raise."""
    global _ship
    _ship = ship


@contextmanager
def local_only(when: bool = True) -> Iterator[None]:
    """Lines of this task are printed but not shipped: storing logs must not make more of them."""
    token = _local_only.set(when or _local_only.get())
    try:
        yield
    finally:
        _local_only.reset(token)


def mask_secrets(logger: Any, method: str, line: Line) -> Line:
    """Processor: hide values whose key names a secret, passwords in addresses, and credentials in text."""
    for key, value in line.items():
        line[key] = _masked(key, value)
    return line


def _masked(key: str, value: Any) -> Any:
    if _SECRET_KEY.search(key):
        return MASK
    if isinstance(value, str):
        return _masked_text(value)
    if isinstance(value, bytes):
        return f"<{len(value)} bytes>"
    if isinstance(value, Mapping):
        return {str(name): _masked(str(name), item) for name, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [_masked("", item) for item in value]
    if value is None or isinstance(value, bool | float):
        return value
    if isinstance(value, int) and -MOST_INTEGER <= value < MOST_INTEGER:
        return value
    return _masked_text(str(value))


def _masked_text(text: str) -> str:
    if not text.isascii():  # header bytes that are no UTF-8 come as half characters, which no wire takes
        text = text.encode("utf-8", "backslashreplace").decode()
    text = _URL_PASSWORD.sub(rf"\1:{MASK}@", text)
    text = _CREDENTIAL.sub(rf"\1 {MASK}", text)
    text = _PARAMETER.sub(rf"\1{MASK}", text)
    text = _QUOTED.sub(rf"\1\2{MASK}\2", text)
    text = _BARE.sub(rf"\1{MASK}", text)
    return _OURS.sub(MASK, text)


def _stamp(service: str) -> Callable[[Any, str, Line], Line]:
    def stamp(logger: Any, method: str, line: Line) -> Line:
        trail = context.current()
        head: Line = {
            "time": datetime.now(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z"),
            "level": line.pop("level", method),
            "service": service,
            "event": line.pop("event", ""),
        }
        for name, value in (
            ("request_id", trail.request_id),
            ("trace_id", trail.trace_id),
            ("frame_id", trail.frame),
        ):
            if value:
                head[name] = str(value)
        return {**head, **line}

    return stamp


def _hand_over(logger: Any, method: str, line: Line) -> Line:
    if _ship is not None and line["level"] in SHIPPED and not _local_only.get():
        _ship(dict(line))
    return line


def _to_json(logger: Any, method: str, line: Line) -> str:
    return _encode(line).decode()


def _for_people() -> Callable[[Any, str, Line], str]:
    """The time of day, the level in its colour, what happened, and the rest as name=value."""
    show = structlog.dev.ConsoleRenderer(
        timestamp_key="time", pad_event_to=0, exception_formatter=structlog.dev.plain_traceback
    )

    def render(logger: Any, method: str, line: Line) -> str:
        line["time"] = str(line["time"])[11:23]
        return show(logger, method, line)

    return render


def _route_standard_logging(
    chain: list[Any], render: Callable[[Any, str, Line], str], number: int, stream: TextIO
) -> None:
    """aiohttp, aio_pika, aiormq, asyncpg and asyncio say their lines in the same form."""
    handler = logging.StreamHandler(stream)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[structlog.stdlib.add_logger_name],
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                *chain,
                _hand_over,
                render,
            ],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(max(number, logging.WARNING))
