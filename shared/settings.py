"""Environment variables to a frozen structure, naming every bad one at once."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, TypeVar, get_args, get_origin, get_type_hints

import msgspec

S = TypeVar("S", bound=msgspec.Struct)
PREFIX = "POSTHOUSE_"


@dataclass(frozen=True)
class Note:
    """What a settings field is for, and whether its value must never be shown."""

    text: str
    secret: bool = False


@dataclass(frozen=True)
class Setting:
    """One environment variable as documentation shows it; `default` is None when it is required."""

    name: str
    default: str | None
    text: str
    secret: bool


class BadSettings(Exception):
    """Some variables are missing or wrong; the message names each with its reason, never its value."""


def load(kind: type[S], environment: Mapping[str, str] = os.environ) -> S:
    """Read one field per variable: field `amqp_url` from `POSTHOUSE_AMQP_URL`; raises BadSettings."""
    hints = get_type_hints(kind, include_extras=True)
    values: dict[str, Any] = {}
    wrong: list[str] = []
    for item in msgspec.structs.fields(kind):
        name = PREFIX + item.name.upper()
        text = environment.get(name, "")
        if text == "":
            if item.required:
                wrong.append(f"{name} is missing")
            continue
        try:
            values[item.name] = msgspec.convert(text, hints[item.name], strict=False)
        except msgspec.ValidationError as error:
            wrong.append(f"{name}: {error}")
    if wrong:
        raise BadSettings("; ".join(wrong))
    return kind(**values)


def describe(kind: type[msgspec.Struct]) -> list[Setting]:
    """Every variable of a settings structure, in order of its fields."""
    hints = get_type_hints(kind, include_extras=True)
    settings = []
    for item in msgspec.structs.fields(kind):
        note = _note(hints[item.name])
        default = None if item.required else _shown(item.default)
        settings.append(Setting(PREFIX + item.name.upper(), default, note.text, note.secret))
    return settings


def _shown(default: Any) -> str:
    if isinstance(default, bool):
        return "1" if default else "0"
    return str(default)


def _note(hint: Any) -> Note:
    if get_origin(hint) is Annotated:
        for extra in get_args(hint)[1:]:
            if isinstance(extra, msgspec.Meta) and extra.extra and "note" in extra.extra:
                note: Note = extra.extra["note"]
                return note
    return Note("")


def note(text: str, *, secret: bool = False, **limits: Any) -> msgspec.Meta:
    """`port: Annotated[int, note("web port", ge=0, le=65535)] = 8080`."""
    return msgspec.Meta(extra={"note": Note(text, secret)}, **limits)
