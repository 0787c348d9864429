"""OpenAPI 3.1 from the tables: what is documented is what is checked."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from types import NoneType
from typing import Any, get_args, get_type_hints

import msgspec

from services.gateway.http.answers import PROBLEM
from services.gateway.http.problems import PROBLEMS
from services.gateway.http.submissions import Accepted, ProblemBody
from services.gateway.http.table import JSON, PUBLIC, Route, Routes, Who
from services.gateway.http.validate import members
from services.gateway.settings import Settings
from shared.contracts.base import Command, Message

Schema = dict[str, Any]
_REF = "#/components/schemas/{name}"
_EVERYWHERE = (
    "bad_request",
    "bad_header",
    "method_not_allowed",
    "headers_too_large",
    "uri_too_long",
    "internal",
)
_WITH_BODY = ("malformed_json", "not_utf8", "too_deep", "slow_request", "too_large", "unsupported_media_type")
_ASKING = ("unavailable", "outcome_unknown", "unknown_topic", "too_many_requests")
_CHANGING = ("conflict", "still_running", "key_reused", "refused")
_HEADERS = {
    "X-Request-Id": "Names this request in every log; the one that was sent, or a new one.",
    "traceparent": "W3C trace context of this request.",
}
_ABOUT = """\
Requests are messages: the gateway hands each one to the service that owns it.

- `2xx` means it is on disk. `503` means it did not happen and will not; repeat after `Retry-After` seconds.
  `504` with `outcome: unknown` means it may have happened: repeat with the same `Idempotency-Key`.
- `Prefer: wait=N` (1 to 30 seconds, 10 by default) says how long to wait; `Prefer: respond-async` does
  not wait: `202` names a submission, `GET /v1/submissions/{name}` says what became of it.
- Where a limit applies, `RateLimit` and `RateLimit-Policy` say what is left; `Retry-After` when to go on.
- Errors are problems (RFC 9457); each code has a page under `/problems`."""


def document(tables: Sequence[Routes], settings: Settings, version: str) -> Schema:
    """The whole description; JSON can hold it as it is."""
    rows = [(table.tag, row) for table in tables for row in table.rows]
    types = list({id(kind): kind for _, row in rows for kind in _types(row)}.values())
    schemas, components = msgspec.json.schema_components([*types, Accepted, ProblemBody], ref_template=_REF)
    known = {id(kind): schema for kind, schema in zip([*types, Accepted, ProblemBody], schemas, strict=True)}
    paths: dict[str, Schema] = {}
    for tag, row in rows:
        operation = _operation(row, tag, known, settings)
        paths.setdefault(row.template, {})[row.method.lower()] = operation
    for kind in {kind for each in types for kind in _structures(each)}:
        _say_times(kind, components.get(kind.__name__, {}))
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Posthouse",
            "version": version,
            "description": _ABOUT,
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "servers": [{"url": settings.public_url or "/"}],
        "tags": [{"name": table.tag} for table in tables],
        "paths": paths,
        "components": {"schemas": dict(components), "securitySchemes": _SECURITY},
    }


_SECURITY = {
    "token": {
        "type": "http",
        "scheme": "bearer",
        "bearerFormat": "JWT",
        "description": "From POST /v1/sessions.",
    },
    "key": {
        "type": "apiKey",
        "in": "header",
        "name": "X-API-Key",
        "description": "A read or write key of a dataset.",
    },
    "browser": {
        "type": "apiKey",
        "in": "cookie",
        "name": "posthouse",
        "description": "From the sign-in page; over HTTPS `__Host-posthouse`. Changes things from pages of "
        "this server only.",
    },
}


def _structures(hint: Any) -> Iterable[type[msgspec.Struct]]:
    """Every structure a type is made of."""
    for kind in members(hint):
        if isinstance(kind, type) and issubclass(kind, msgspec.Struct):
            yield kind
            for inner in get_type_hints(kind).values():
                yield from _structures(inner)
        else:
            for inner in get_args(kind):
                yield from _structures(inner)


def _say_times(kind: type[msgspec.Struct], component: Schema) -> None:
    """msgspec calls a time with an offset `date-time`, but any other only a string."""
    for name, hint in get_type_hints(kind).items():
        if datetime in members(hint) and name in component.get("properties", {}):
            schema = component["properties"][name]
            for each in [schema, *schema.get("anyOf", ())]:
                if each.get("type") == "string":
                    each["format"] = "date-time"


_SECURITY_OF: dict[Who, list[dict[str, list[str]]]] = {
    Who.ANYONE: [{}, {"token": []}, {"key": []}, {"browser": []}],
    Who.USER: [{"token": []}, {"browser": []}],
    Who.KEY_OR_USER: [{"token": []}, {"key": []}, {"browser": []}],
}


def _types(row: Route) -> Iterable[Any]:
    if row.answers != 204 and row.shows is not None:
        yield row.shows
    if row.reads is not None or row.form is not None:
        yield row.reads if row.reads is not None else row.form


def _operation(row: Route, tag: str, known: Mapping[int, Schema], settings: Settings) -> Schema:
    operation: Schema = {
        "tags": [tag],
        "operationId": _operation_id(row),
        "summary": row.summary,
        "parameters": [*_parameters(row)],
        "responses": _responses(row, known),
    }
    if row.message is not None:
        operation["description"] = f"{_text(row.message)}\n\nMessage: `{_topic(row.message)}`."
    if row.who is not PUBLIC:
        operation["security"] = _SECURITY_OF[row.who]
    if row.accepts:
        operation["requestBody"] = _request_body(row, known, getattr(settings, row.limit))
    return operation


def _operation_id(row: Route) -> str:
    if row.name:
        return row.name
    name = row.message.__name__ if row.message is not None else getattr(row.handle, "__name__", "page")
    name = name[0].lower() + name[1:]
    return name + row.path.rpartition(".")[2].title() if row.part_type else name


def _topic(message: type[Message]) -> str:
    """Its topic; a message that every service has is named after the service in the path."""
    name = re.sub(r"(?<!^)(?=[A-Z])", "_", message.__name__).lower()
    return message.topic or f"<service>.{name}"


def _text(kind: type[Any]) -> str:
    return " ".join(line.strip() for line in (kind.__doc__ or "").strip().splitlines())


def _request_body(row: Route, known: Mapping[int, Schema], limit: int) -> Schema:
    kind = row.reads if row.reads is not None else row.form
    content: Schema = {}
    for accepted in row.accepts:
        schema = known[id(kind)] if accepted in JSON else {"type": "string"}
        content[accepted] = {"schema": schema}
    return {"required": True, "content": content, "description": f"At most {limit:,} bytes, UTF-8."}


def _parameters(row: Route) -> Iterable[Schema]:
    for place, form in (("path", row.path_form), ("query", row.query_form)):
        hints = get_type_hints(form, include_extras=True)
        for item in msgspec.structs.fields(form):
            yield _parameter(place, item, hints[item.name])
    if row.method not in ("GET", "HEAD") and row.message is not None:
        text = (
            "Names this request: repeated with the same key, it is done once and answered the same for 24 h."
        )
        yield _header("Idempotency-Key", text, {"type": "string", "pattern": "^[!-~]{1,255}$"})
    if row.message is not None:
        wishes = ["`wait=N`"] + ["`respond-async`"] * row.queued + ["`handling=strict`"] * row.strict
        yield _header(
            "Prefer", f"Any of {', '.join(wishes)}, separated by commas (RFC 7240).", {"type": "string"}
        )
    if "If-Match" in row.takes:
        pattern = r'^(\*|"[0-9]{1,18}")$'
        yield _header("If-Match", "Only when it still has this ETag.", {"type": "string", "pattern": pattern})


def _parameter(place: str, item: msgspec.structs.FieldInfo, hint: Any) -> Schema:
    schema = _schema(hint)
    parameter = {"name": item.encode_name, "in": place, "required": place == "path" or item.required}
    if schema.get("type") == "array":
        parameter |= {"style": "form", "explode": False}
    if item.default not in (msgspec.NODEFAULT, None, "", (), False):
        schema["default"] = item.default
    if "description" in schema:
        parameter["description"] = schema.pop("description")
    return parameter | {"schema": schema}


def _schema(hint: Any) -> Schema:
    """The schema of a text in a path or query, where there is no null."""
    (schema,), _ = msgspec.json.schema_components([hint], ref_template=_REF)
    schema.pop("default", None)
    if NoneType in members(hint):
        kinds = [kind for kind in schema.pop("anyOf") if kind != {"type": "null"}]
        schema |= kinds[0]
    if datetime in members(hint):
        schema["format"] = "date-time"
    return schema


def _header(name: str, text: str, schema: Schema) -> Schema:
    return {"name": name, "in": "header", "required": False, "description": text, "schema": schema}


def _responses(row: Route, known: Mapping[int, Schema]) -> Schema:
    headers = {name: {"description": text, "schema": {"type": "string"}} for name, text in _HEADERS.items()}
    answer: Schema = {
        "description": "Done." if row.method != "GET" else "What was asked for.",
        "headers": headers,
    }
    if row.answers != 204:
        answer["content"] = _content(row, known)
    responses: Schema = {str(row.answers): answer}
    if row.queued:
        schema = known[id(Accepted)]
        content = {JSON[0]: {"schema": schema}}
        responses["202"] = {
            "description": "On disk, to be done; with `Prefer: respond-async`.",
            "content": content,
        }
    by_status: dict[int, list[str]] = {}
    for code in _codes(row):
        by_status.setdefault(PROBLEMS[code].status, []).append(code)
    for status, codes in sorted(by_status.items()):
        text = "; ".join(f"`{code}`: {PROBLEMS[code].title}" for code in codes)
        schema = known[id(ProblemBody)]
        responses.setdefault(str(status), {"description": text, "content": {PROBLEM: {"schema": schema}}})
    return responses


def _content(row: Route, known: Mapping[int, Schema]) -> Schema:
    if row.part_type:
        return {row.part_type.partition(";")[0]: {"schema": {"type": "string"}}}
    if row.shows is str:
        return {kind: {"schema": {"type": "string"}} for kind in ("text/plain", "text/html")}
    if row.shows is bytes:
        return {"*/*": {"schema": {}}}
    return {JSON[0]: {"schema": known[id(row.shows)] if row.shows is not None else {}}}


def _codes(row: Route) -> Iterable[str]:
    yield from _EVERYWHERE
    yield from ("invalid", "not_found")
    if row.who is not PUBLIC:
        yield "unauthorized"
    if row.message is not None:
        yield from ("forbidden", *_ASKING)
    if row.message is not None and issubclass(row.message, Command):
        yield from _CHANGING
        if row.method != "GET":
            yield "cross_site"
    if row.accepts:
        yield from _WITH_BODY
    if row.template == "/readyz" or row.handle is not None:
        yield "unavailable"
    yield from row.refuses
