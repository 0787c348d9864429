"""From bytes and strings to structures; when that fails, every mistake of the request at once."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, datetime, timedelta, timezone, tzinfo
from types import NoneType, UnionType
from typing import Annotated, Any, TypeVar, Union, get_args, get_origin, get_type_hints
from zoneinfo import ZoneInfo

import msgspec

from services.gateway.http.problems import Turned
from shared.contracts.base import FieldError
from shared.errors import Invalid

S = TypeVar("S", bound=msgspec.Struct)
MOST_ERRORS = 100
SMALLEST, LARGEST = -(2**63), 2**63 - 1
WholeNumber = Annotated[int, msgspec.Meta(ge=SMALLEST, le=LARGEST)]

_NUL = "text may not hold the character NUL"
_CODES = (
    ("missing required", "required"),
    ("unknown field", "unknown_field"),
    ("of length <=", "too_long"),
    ("of length >=", "too_short"),
    (" <= ", "too_large"),
    (" >= ", "too_small"),
    ("matching regex", "pattern"),
    ("Invalid enum", "not_allowed"),
    ("Invalid UUID", "invalid_uuid"),
    ("RFC3339", "invalid_time"),
    ("out of range", "out_of_range"),
    ("Expected", "wrong_type"),
)


def read_form(decoder: msgspec.json.Decoder[S], body: bytes) -> S:
    """Decode a JSON body; raises Turned (400) when it is no JSON, Invalid (422) with every mistake."""
    try:
        form = decoder.decode(body)
    except (ValueError, RecursionError):
        raise _why(decoder.type, body) from None
    if b"\\u0000" in body:
        _refuse_nul(msgspec.json.decode(body))
    return form


def read_strings(kind: type[S], values: Mapping[str, Any], where: str) -> S:
    """Fill a structure from texts (path or query); raises Invalid with every mistake."""
    try:
        form = msgspec.convert(values, kind, strict=False)
    except msgspec.ValidationError:
        raise Invalid(errors=_first(mistakes(values, kind, where=where, strict=False))) from None
    if "\0" in "".join(map(str, values.values())):
        raise Invalid(errors=[FieldError(where=where, code="nul_character", message=_NUL)])
    return form


class QueryReader:
    """Reads the query string into one structure: lists by comma, times with an offset or in `timezone`."""

    def __init__(self, kind: type[msgspec.Struct]) -> None:
        self.kind = kind
        self._names = {field.encode_name for field in msgspec.structs.fields(kind)}
        hints = get_type_hints(kind)
        self._times = [name for name, hint in hints.items() if datetime in members(hint)]
        self._lists = [name for name, hint in hints.items() if get_origin(hint) is tuple]
        self._empty = _or_none(kind)

    def read(self, pairs: Iterable[tuple[str, str]]) -> msgspec.Struct:
        """The filled structure; raises Invalid with every mistake."""
        values: dict[str, Any] = {}
        wrong: list[FieldError] = []
        for name, text in pairs:
            if name in self._lists:
                values.setdefault(name, []).extend(part for part in text.split(",") if part)
            elif name in values:
                wrong.append(_mistake("query", name, "repeated", "may be given once"))
            else:
                values[name] = text
        if not values and self._empty is not None:
            return self._empty
        wrong += self._read_times(values)
        bad = {error.path for error in wrong}
        rest = {name: value for name, value in values.items() if name not in bad}
        found = mistakes(rest, self.kind, where="query", strict=False)
        wrong += [error for error in found if error.path not in bad]
        if wrong:
            raise Invalid(errors=_first(wrong))
        return read_strings(self.kind, rest, "query")

    def _read_times(self, values: dict[str, Any]) -> Iterator[FieldError]:
        given = [name for name in self._times if name in values]
        if not given:
            return
        zone = None
        try:
            zone = zone_of(values.get("timezone", "")) if "timezone" in self._names else None
        except ValueError as error:
            yield _mistake("query", "timezone", "unknown_timezone", str(error))
        for name in given:
            try:
                values[name] = read_time(values[name], zone)
            except ValueError as error:
                yield _mistake("query", name, "invalid_time", str(error))


# RFC 3339, 5.6; a "+" that nobody encoded arrives as a space.
_TIME = re.compile(
    r"(\d{4}-\d\d-\d\d)[Tt ](\d\d:\d\d:\d\d)(?:\.(\d{1,6})\d*)?(?:([Zz])|([+ -])(\d\d):(\d\d))?", re.ASCII
)


def read_time(text: str, zone: tzinfo | None) -> datetime:
    """A time in UTC; one without an offset is read in `zone`; raises ValueError with a sentence."""
    found = _TIME.fullmatch(text)
    if found is None:
        raise ValueError("a time is written like 2026-01-31T12:00:00Z or with an offset like +01:00")
    day, clock, fraction, utc, sign, hours, minutes = found.groups()
    try:
        moment = datetime.fromisoformat(f"{day}T{clock}.{(fraction or '0').ljust(6, '0')}")
        if utc:
            return moment.replace(tzinfo=UTC)
        if sign:
            return moment.replace(tzinfo=_offset(sign, hours, minutes)).astimezone(UTC)
        if zone is None:
            raise ValueError("the time has no offset: add Z or +hh:mm, or say timezone=Europe/Berlin")
        return moment.replace(tzinfo=zone).astimezone(UTC)
    except OverflowError:
        raise ValueError("the time is outside the years 1 to 9999") from None


_OFFSET = re.compile(r"([+ -])(\d\d):?(\d\d)", re.ASCII)


def zone_of(text: str) -> tzinfo | None:
    """An IANA name or +hh:mm as a time zone, None for no text; raises ValueError with a sentence."""
    if not text:
        return None
    try:
        if found := _OFFSET.fullmatch(text):
            return _offset(*found.groups())
        return ZoneInfo(text)
    except (OSError, ValueError, KeyError):
        raise ValueError("is no time zone: give an IANA name like Europe/Berlin, or +hh:mm") from None


def _offset(sign: str, hours: str, minutes: str) -> timezone:
    offset = timedelta(hours=int(hours), minutes=int(minutes))
    return timezone(-offset if sign == "-" else offset)


def mistakes(
    value: Any, hint: Any, path: str = "", *, where: str = "body", strict: bool = True
) -> Iterator[FieldError]:
    """Every mistake of a decoded value against a type, the deepest one that explains it."""
    if hint is msgspec.Raw:
        return
    try:
        msgspec.convert(value, hint, strict=strict)
        return
    except msgspec.ValidationError as error:
        message = _sentence(error)
    below = False
    for part, inner, name in _children(value, hint, path):
        if inner is None:
            below = True
            yield _mistake(where, name, *part)
            continue
        for mistake in mistakes(part, inner, name, where=where, strict=strict):
            below = True
            yield mistake
    if not below:
        yield _mistake(where, path, _code(message), message)


def _children(value: Any, hint: Any, path: str) -> Iterator[tuple[Any, Any, str]]:
    """The parts of a value with their types; a part that should not be or is missing comes with None."""
    kind = _concrete(hint)
    origin = get_origin(kind) or kind
    if isinstance(kind, type) and issubclass(kind, msgspec.Struct) and isinstance(value, dict):
        yield from _fields(value, kind, path)
    elif origin in (tuple, list) and isinstance(value, list):
        for index, part in enumerate(value):
            yield part, get_args(kind)[0], f"{path}[{index}]"
    elif origin is dict and isinstance(value, dict):
        for key, part in value.items():
            yield part, get_args(kind)[1], _join(path, str(key))


def _fields(value: dict[str, Any], kind: type[msgspec.Struct], path: str) -> Iterator[tuple[Any, Any, str]]:
    hints = get_type_hints(kind, include_extras=True)
    fields = {field.encode_name: field for field in msgspec.structs.fields(kind)}
    for name, field in fields.items():
        if name in value:
            yield value[name], hints[field.name], _join(path, name)
        elif field.required:
            yield ("required", "is missing"), None, _join(path, name)
    if kind.__struct_config__.forbid_unknown_fields:
        for name in value.keys() - fields.keys():
            yield ("unknown_field", "is not known here"), None, _join(path, str(name))


def members(hint: Any) -> tuple[Any, ...]:
    """The members of a union, or the type itself."""
    if get_origin(hint) is Annotated:
        return members(get_args(hint)[0])
    if get_origin(hint) in (Union, UnionType):
        return tuple(inner for member in get_args(hint) for inner in members(member))
    return (hint,)


def _concrete(hint: Any) -> Any:
    kinds = [kind for kind in members(hint) if kind is not NoneType]
    return kinds[0] if len(kinds) == 1 else None


def _why(kind: Any, body: bytes) -> Exception:
    """Why a body could not be decoded, looked at slowly."""
    if not body.strip():
        return Turned("malformed_json", "The request has no body; this path needs a JSON object.")
    try:
        value = msgspec.json.decode(body)
    except UnicodeDecodeError as error:
        return Turned("not_utf8", f"Byte {error.start} of the text is not UTF-8.")
    except RecursionError:
        return Turned("too_deep")
    except msgspec.ValidationError as error:
        return Invalid(errors=[_mistake("body", "", _code(str(error)), _sentence(error))])
    except msgspec.DecodeError as error:
        return Turned("malformed_json", f"{error}.")
    return Invalid(errors=_first(mistakes(value, kind)))


def _refuse_nul(value: Any) -> None:
    wrong = [_mistake("body", path, "nul_character", _NUL) for path in _with_nul(value, "")]
    if wrong:
        raise Invalid(errors=_first(wrong))


def _with_nul(value: Any, path: str) -> Iterator[str]:
    if isinstance(value, str) and "\0" in value:
        yield path
    elif isinstance(value, list):
        for index, part in enumerate(value):
            yield from _with_nul(part, f"{path}[{index}]")
    elif isinstance(value, dict):
        for key, part in value.items():
            name = _join(path, key.replace("\0", "\\u0000"))
            if "\0" in key:
                yield name
            yield from _with_nul(part, name)


def _first(errors: Iterable[FieldError]) -> list[FieldError]:
    """As many mistakes as anybody reads."""
    return [error for error, _ in zip(errors, range(MOST_ERRORS), strict=False)]


def _mistake(where: str, path: str, code: str, message: str) -> FieldError:
    return FieldError(where=where, path=path[:200], code=code, message=message)


def _sentence(error: Exception) -> str:
    return str(error).partition(" - at `")[0].replace("`", "")


def _code(message: str) -> str:
    return next((code for part, code in _CODES if part in message), "invalid")


def _join(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name


def _or_none(kind: type[msgspec.Struct]) -> msgspec.Struct | None:
    try:
        return kind()
    except TypeError:
        return None
