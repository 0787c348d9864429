"""Answers as bytes: JSON with times in UTC to the microsecond, and the headers every answer has."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from functools import cache
from types import NoneType
from typing import Any, get_args, get_origin, get_type_hints

import msgspec
from aiohttp import web
from aiohttp.hdrs import CONTENT_TYPE
from multidict import CIMultiDict

from services.gateway.http.problems import problem_body
from services.gateway.http.validate import members

JSON = "application/json"
PROBLEM = "application/problem+json"
Render = Callable[[Any], Any]

to_json = msgspec.json.Encoder().encode


class Answer(msgspec.Struct):
    """An answer whose body is complete; `close` ends its connection."""

    status: int
    body: bytes = b""
    content_type: str = JSON
    headers: dict[str, str] = {}
    close: bool = False

    def response(self) -> web.Response:
        """As aiohttp sends it."""
        fields: CIMultiDict[str] = CIMultiDict(self.headers)
        if self.body:
            fields[CONTENT_TYPE] = self.content_type
        response = web.Response(status=self.status, body=self.body or None, headers=fields)
        if self.close:
            response.force_close()
        return response


def problem(
    code: str,
    status: int,
    detail: str,
    request_id: str,
    headers: dict[str, str] | None = None,
    **more: Any,
) -> Answer:
    """A problem (RFC 9457); `errors` and extension members in `more`."""
    body = to_json(problem_body(code, status, detail, request_id, **more))
    return Answer(status, body, PROBLEM, headers or {})


def time_text(moment: datetime) -> str:
    """RFC 3339 in UTC with six digits, so that texts sort as times do."""
    if moment.tzinfo is not UTC:
        moment = moment.astimezone(UTC)
    return moment.isoformat(timespec="microseconds")[:-6] + "Z"


@cache
def renderer(hint: Any) -> Render | None:
    """What turns a reply of this type into something JSON has; None when msgspec can do it alone.

    Only times need it: msgspec leaves out microseconds that are zero.
    """
    kinds = [kind for kind in members(hint) if kind is not NoneType]
    if len(kinds) != 1:
        return None
    make = _of(kinds[0])
    if make is None or len(members(hint)) == 1:
        return make
    return lambda value: None if value is None else make(value)


def _of(kind: Any) -> Render | None:
    if kind is datetime:
        return time_text
    if get_origin(kind) in (tuple, list):
        return _of_items(get_args(kind)[0])
    if isinstance(kind, type) and issubclass(kind, msgspec.Struct):
        return _of_struct(kind)
    return None


def _of_items(hint: Any) -> Render | None:
    make = renderer(hint)
    if make is None:
        return None
    return lambda items: [make(item) for item in items]


def _of_struct(kind: type[msgspec.Struct]) -> Render | None:
    hints = get_type_hints(kind)
    made = {field.name: renderer(hints[field.name]) for field in msgspec.structs.fields(kind)}
    if not any(made.values()):
        return None
    omit = kind.__struct_config__.omit_defaults
    columns = [
        (field.name, field.encode_name, made[field.name], field.default if omit else msgspec.NODEFAULT)
        for field in msgspec.structs.fields(kind)
    ]

    def render(value: Any) -> dict[str, Any]:
        shown = {}
        for name, label, make, default in columns:
            part = getattr(value, name)
            if part != default:
                shown[label] = part if make is None else make(part)
        return shown

    return render
