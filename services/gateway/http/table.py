"""Routes as rows of a table; validation, execution, documentation and tests all read the same rows."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from enum import Enum
from functools import cache
from types import UnionType
from typing import Annotated, Any, Protocol, Union, get_args, get_origin, get_type_hints

import msgspec
from aiohttp import web

from services.gateway.http.gateway import Gateway
from services.gateway.http.incoming import Incoming
from services.gateway.http.validate import WholeNumber
from shared.contracts.base import Command, Message, Nothing, Query, reply_type
from shared.vault import Vault

JSON = ("application/json",)


class Who(Enum):
    """Who may call a route at all; what they may do there the service decides.

    Of a public one nobody asks who calls: health and documentation are there while auth is away.
    """

    PUBLIC = "public"
    ANYONE = "anyone"
    USER = "user"
    KEY_OR_USER = "key or user"


PUBLIC, ANYONE, USER, KEY_OR_USER = Who.PUBLIC, Who.ANYONE, Who.USER, Who.KEY_OR_USER

Make = Callable[[Incoming, Vault], Message]
Show = Callable[[Any, Vault], Any]
Handle = Callable[[Incoming, Gateway], Awaitable["Answering"]]


class Answering(Protocol):
    """An answer, or what goes on answering."""

    def response(self) -> web.StreamResponse:
        """As aiohttp sends it."""


class Empty(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A place where nothing may be given."""


@dataclass(frozen=True, kw_only=True)
class Route:
    """One row.

    `path_form`, `query_form` and `form` are what the three places may hold; `message` is made of them, by
    name or by `make`. `reads` documents a body only the service decodes, `takes` names headers `make`
    reads. `show` turns the reply into what JSON answers with (type `shows`), `prints` knows a quicker way
    to the same bytes for some replies, `fields` gives the headers that go with it. `limit` names the setting
    with the largest body, `refuses` the codes of problems beyond those every route has. `queued` routes know
    `Prefer: respond-async`, `strict` ones `handling=strict`. With `proves_later` the service itself looks at
    a dataset key that nobody could be asked about. A route with a `part_type` streams; one with
    `handle` asks no service. `name` is what the description calls it when another row has its message.
    """

    method: str
    path: str
    summary: str
    who: Who
    answers: int
    shows: Any
    message: type[Message] | None = None
    path_form: type[msgspec.Struct] = Empty
    query_form: type[msgspec.Struct] = Empty
    form: type[msgspec.Struct] | None = None
    accepts: tuple[str, ...] = ()
    reads: Any = None
    takes: tuple[str, ...] = ()
    make: Make | None = None
    show: Show | None = None
    prints: Callable[[Any], bytes | None] | None = None
    fields: Callable[[Any], Mapping[str, str]] | None = None
    limit: str = "body_bytes"
    queued: bool = False
    strict: bool = False
    proves_later: bool = False
    part_type: str = ""
    handle: Handle | None = None
    refuses: tuple[str, ...] = ()
    name: str = ""

    @property
    def template(self) -> str:
        """The path as documentation and metrics show it."""
        return _NAME.sub(r"{\1}", self.path)


_NAME = re.compile(r"\{(\w+)(?::[^}]+)?\}")


@dataclass
class Routes:
    """A module's rows, under one tag."""

    tag: str
    rows: list[Route] = field(default_factory=list)

    def get(self, path: str, message: type[Query[Any]] | type[Command[Any]], **more: Any) -> None:
        """Ask for something."""
        self._add("GET", path, message, more)

    def post(self, path: str, message: type[Command[Any]], **more: Any) -> None:
        """Make or do something."""
        self._add("POST", path, message, more)

    def patch(self, path: str, message: type[Command[Any]], **more: Any) -> None:
        """Change what is given."""
        self._add("PATCH", path, message, more)

    def delete(self, path: str, message: type[Command[Any]], **more: Any) -> None:
        """Take something away."""
        self._add("DELETE", path, message, more)

    def stream(self, path: str, message: type[Query[Any]], part_type: str, **more: Any) -> None:
        """Answer with a stream of any size."""
        self._add("GET", path, message, {"part_type": part_type, "shows": bytes, **more})

    def page(self, path: str, summary: str, shows: Any = None, **more: Any) -> Callable[[Handle], Handle]:
        """Answer a GET without asking a service."""

        def register(handle: Handle) -> Handle:
            row = {"path_form": _path_of_texts(path), "answers": 200, "who": PUBLIC, **more}
            self.rows.append(
                Route(method="GET", path=path, summary=summary, shows=shows, handle=handle, **row)
            )
            return handle

        return register

    def _add(self, method: str, path: str, message: type[Message], more: dict[str, Any]) -> None:
        shows = more.pop("shows", reply_type(message))
        row = {
            "summary": (message.__doc__ or "").partition("\n")[0],
            "answers": 204 if shows is Nothing else 200,
            **_forms(method, path, message, more),
            **more,
        }
        if row.get("form") is not None:
            row.setdefault("accepts", JSON)
        self.rows.append(Route(method=method, path=path, message=message, shows=shows, **row))


def _forms(method: str, path: str, message: type[Message], more: Mapping[str, Any]) -> dict[str, Any]:
    """A contract's fields over path, query and body: what the path names, the rest in one of the others."""
    name = message.__name__
    in_path = _NAME.findall(path)
    rest = [item.name for item in msgspec.structs.fields(message) if item.name not in in_path]
    forms: dict[str, Any] = {}
    if "path_form" not in more:
        forms["path_form"] = form_of(message, f"{name}Path", *in_path)
    if "make" in more:
        return forms
    if method in ("GET", "DELETE"):
        forms["query_form"] = form_of(message, f"{name}Query", *rest)
    elif rest:
        forms["form"] = form_of(message, name, *rest)
    return forms


def form_of(message: type[Message], name: str, *fields: str) -> type[msgspec.Struct]:
    """A structure with some fields of a contract, which knows no others."""
    if not fields:
        return Empty
    hints = get_type_hints(message, include_extras=True)
    known = {item.name: item for item in msgspec.structs.fields(message)}
    columns = [
        (field, _checked(hints[field]), *(() if known[field].required else (known[field].default,)))
        for field in fields
    ]
    return msgspec.defstruct(name, columns, frozen=True, kw_only=True, forbid_unknown_fields=True)


def _checked(hint: Any) -> Any:
    """A contract's type as the door checks it.

    Inside, unknown fields are ignored so that versions can differ; a client is told about them. A bare int
    has 64 bits: msgpack and Postgres hold no other.
    """
    if hint is int:
        return WholeNumber
    if isinstance(hint, type) and issubclass(hint, msgspec.Struct):
        return _refusing_unknown(hint)
    inner = get_args(hint)
    if get_origin(hint) is Annotated:
        plain = inner[0] if inner[0] is int else _checked(inner[0])
        return Annotated[plain, *inner[1:]]
    if get_origin(hint) in (Union, UnionType):
        return Union[tuple(map(_checked, inner))]  # noqa: UP007 (made from a list)
    if get_origin(hint) in (tuple, list, dict):
        return get_origin(hint)[tuple(map(_checked, inner))]
    return hint


@cache
def _refusing_unknown(kind: type[msgspec.Struct]) -> type[msgspec.Struct]:
    return msgspec.defstruct(
        kind.__name__,
        [],
        bases=(kind,),
        frozen=True,
        kw_only=True,
        forbid_unknown_fields=True,
        namespace={"__doc__": kind.__doc__},
    )


def _path_of_texts(path: str) -> type[msgspec.Struct]:
    names = [(name, str) for name in _NAME.findall(path)]
    return msgspec.defstruct("Path", names, frozen=True) if names else Empty
