"""A value between its JSON or CSV text and its row: what goes in comes out the same, or is refused."""

from __future__ import annotations

import math
import re
from decimal import Decimal, InvalidOperation

import msgspec

# Its double, whether it is an integer, the exact value where the double does not tell it: 0002_readings.sql
Stored = tuple[float | None, bool, str | None]
Value = int | float | str | None

MAX_TEXT = 8_000
EXACT_INTEGER = 2**53
INT64 = range(-(2**63), 2**63)
MAX_INTEGER_DIGITS = 20  # more cannot be within 64 bits
MAX_NUMBER_CHARACTERS = 400  # the shortest text of any double is shorter by far
NULL: Stored = (None, False, "n")

INTEGER = re.compile(r"-?(?:0|[1-9][0-9]*)\Z")
NUMBER = re.compile(r"-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?\Z")
READS_AS_NUMBER = re.compile(r"\s*([+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?)\s*\Z", re.ASCII)

_text = msgspec.json.Decoder(str)


class Fault(Exception):
    """One mistake of one reading."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message


def from_json(raw: str) -> Stored:
    """The value of a JSON text that is known to be well-formed; raises Fault."""
    first = raw[0]
    if first == '"':
        return from_text(json_text(raw))
    if first == "-" or first.isdigit():
        return _number(raw)
    if first == "n":
        return NULL
    kind = {"t": "a boolean", "f": "a boolean", "[": "an array", "{": "an object"}[first]
    raise Fault("wrong_type", f"{kind} is not a value: send a number, a text or null")


def json_text(raw: str) -> str:
    """The text of a JSON string; raises Fault."""
    try:
        return _text.decode(raw)
    except msgspec.ValidationError:
        raise Fault("wrong_type", "must be a text") from None
    except msgspec.DecodeError:
        raise Fault("malformed", "not a Unicode text") from None


def from_text(text: str) -> Stored:
    """A text, with its number beside it when it reads as one; raises Fault."""
    return as_number(check_text(text)), False, "t" + text


def check_text(text: str) -> str:
    """The text, if it can be stored; raises Fault."""
    if len(text) > MAX_TEXT:
        raise Fault("too_long", f"longer than {MAX_TEXT} characters")
    if "\0" in text:
        raise Fault("nul", "a text cannot have a NUL character")
    return text


def as_number(text: str) -> float | None:
    """The finite number that a text shows (`22.50`, ` +7 `), if it shows one."""
    if len(text) > MAX_NUMBER_CHARACTERS:
        return None
    match = READS_AS_NUMBER.match(text)
    number = float(match[1]) if match else math.inf
    return number if math.isfinite(number) else None


def _number(raw: str) -> Stored:
    if INTEGER.match(raw):
        return _integer(raw)
    if len(raw) > MAX_NUMBER_CHARACTERS:
        raise Fault("not_exact", "more digits than a 64-bit double can keep: send it as text")
    double = float(raw)
    if math.isinf(double):
        raise Fault("out_of_range", "beyond the range of a 64-bit double")
    if repr(double) != raw and not _same(raw, double):
        raise Fault("not_exact", f"would be answered as {print_double(double)}: round it, or send it as text")
    return double, False, None


def _same(raw: str, double: float) -> bool:
    try:
        return Decimal(raw) == Decimal(repr(double))
    except InvalidOperation:  # an exponent beyond what Decimal takes
        return False


def _integer(raw: str) -> Stored:
    if len(raw) > MAX_INTEGER_DIGITS or (number := int(raw)) not in INT64:
        raise Fault("out_of_range", "an integer beyond 64 bits: send it as text")
    if -EXACT_INTEGER <= number <= EXACT_INTEGER:
        return float(number), True, None
    return float(number), True, f"i{number}"


def from_csv(cell: str) -> Stored | None:
    """The value of an unquoted cell: nothing, a number printed as we print it, else text; raises Fault."""
    if not cell:
        return None
    if NUMBER.match(cell) and len(cell) <= MAX_NUMBER_CHARACTERS and (number := _canonical(cell)) is not None:
        return number
    return from_text(cell)


def _canonical(cell: str) -> Stored | None:
    """The number that is printed exactly like this, if there is one."""
    if INTEGER.match(cell):
        fits = len(cell) <= MAX_INTEGER_DIGITS and cell != "-0" and int(cell) in INT64
        return _integer(cell) if fits else None
    double = float(cell)
    return (double, False, None) if math.isfinite(double) and print_double(double) == cell else None


def value_of(number: float | None, whole: bool, exact: str | None) -> Value:
    """The value as JSON answers it."""
    if exact is None:
        return int(number) if whole and number is not None else number
    if exact[0] == "t":
        return exact[1:]
    return int(exact[1:]) if exact[0] == "i" else None


def print_double(double: float) -> str:
    """The shortest text that reads back the same, as our JSON has it."""
    text = repr(double)
    return msgspec.json.encode(double).decode() if "e" in text else text


def to_csv(value: Value) -> str:
    """The cell of a value; a text is quoted only when it would be read back as something else."""
    if isinstance(value, str):
        return text_to_csv(value)
    if value is None:
        return ""
    return print_double(value) if isinstance(value, float) else str(value)


def text_to_csv(text: str) -> str:
    """A text that reads back as this text."""
    if _SPECIAL.search(text) or not text or (NUMBER.match(text) and _canonical(text) is not None):
        return quoted(text)
    return text


def quoted(text: str) -> str:
    """A cell in quotation marks (RFC 4180)."""
    return '"' + text.replace('"', '""') + '"'


_SPECIAL = re.compile('[",\r\n]')
