"""A value is answered as it was sent, or refused with a word that says why."""

from __future__ import annotations

import json
import math
from decimal import Decimal

import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from services.ingest.values import (
    Fault,
    Stored,
    as_number,
    from_csv,
    from_json,
    from_text,
    print_double,
    to_csv,
    value_of,
)

doubles = st.floats(allow_nan=False, allow_infinity=False)
integers = st.integers(-(2**63), 2**63 - 1)
texts = st.text(st.characters(blacklist_categories=["Cs"], blacklist_characters="\0"), max_size=200)
numeric_texts = st.one_of(
    doubles.map(repr), integers.map(str), st.from_regex(r"[+-]?[0-9]+\.[0-9]*", fullmatch=True)
)
values = st.one_of(doubles, integers, texts, numeric_texts)


def same(one: object, other: object) -> bool:
    """Equal, of the same type, and with the same sign where both are zero."""
    if isinstance(one, float) and isinstance(other, float):
        return one == other and math.copysign(1, one) == math.copysign(1, other)
    return type(one) is type(other) and one == other


@given(values)
@example(-0.0)
@example(2**53 + 1)
@example(-(2**63))
@example(5e-324)
@example("22.50")
def test_a_value_survives_json(value: float | int | str) -> None:
    stored = from_json(json.dumps(value))
    assert same(value_of(*stored), value)
    assert msgspec.json.decode(msgspec.json.encode(value_of(*stored))) == value


@given(values)
@example("")
@example('say "no", or\r\nyes')
@example("1e5")
@example("-0")
@example("39.0")
def test_a_value_survives_csv(value: float | int | str) -> None:
    cell = to_csv(value)
    back = from_text(unquoted(cell)) if cell.startswith('"') else from_csv(cell)
    assert back is not None
    assert same(value_of(*back), value)


def unquoted(cell: str) -> str:
    """What is inside the quotation marks."""
    return cell[1:-1].replace('""', '"')


@given(texts)
def test_an_unquoted_cell_is_printed_as_it_was_read(text: str) -> None:
    stored = from_csv(text)
    if stored is not None and not any(character in text for character in ',"\r\n'):
        assert to_csv(value_of(*stored)) == text


@given(doubles)
def test_doubles_are_printed_as_our_json_prints_them(number: float) -> None:
    assert print_double(number) == msgspec.json.encode(number).decode()


def read(raw: str) -> Stored | str:
    """What is stored, or the code of the refusal."""
    try:
        return from_json(raw)
    except Fault as fault:
        return fault.code


@given(st.integers(-(2**80), 2**80))
def test_an_integer_is_kept_or_refused_never_rounded(number: int) -> None:
    stored = read(str(number))
    if isinstance(stored, str):
        assert stored == "out_of_range"
        assert not -(2**63) <= number < 2**63
    else:
        assert same(value_of(*stored), number)


@given(st.decimals(allow_nan=False, allow_infinity=False))
def test_a_decimal_is_kept_or_refused_never_rounded(number: Decimal) -> None:
    stored = read(str(number))
    if isinstance(stored, str):
        assert stored in ("not_exact", "out_of_range")
    else:
        assert Decimal(str(value_of(*stored))) == number


@pytest.mark.parametrize(
    ("raw", "code"),
    [
        ("true", "wrong_type"),
        ("false", "wrong_type"),
        ("[1]", "wrong_type"),
        ('{"a":1}', "wrong_type"),
        ("9223372036854775808", "out_of_range"),
        ("-9223372036854775809", "out_of_range"),
        ("1" * 5000, "out_of_range"),
        ("1e400", "out_of_range"),
        ("1e-400", "not_exact"),
        ("0.1000000000000000055511151231257827021181583404541015625", "not_exact"),
        ("9007199254740993.0", "not_exact"),
        ("1." + "0" * 500, "not_exact"),
        ("0e99999999999999999999", "not_exact"),
        (r'"a\u0000b"', "nul"),
        (r'"\ud800"', "malformed"),
        ('"' + "x" * 8001 + '"', "too_long"),
    ],
)
def test_what_cannot_be_answered_as_it_was_sent_is_refused(raw: str, code: str) -> None:
    with pytest.raises(Fault) as refused:
        from_json(raw)
    assert refused.value.code == code


@pytest.mark.parametrize(
    ("raw", "stored"),
    [
        ("1", (1.0, True, None)),
        ("1.0", (1.0, False, None)),
        ("1e5", (100000.0, False, None)),
        ("22.50", (22.5, False, None)),
        ('"22.50"', (22.5, False, "t22.50")),
        ('"nan"', (None, False, "tnan")),
        ('"1e999"', (None, False, "t1e999")),
        ("null", (None, False, "n")),
        ("9007199254740993", (9007199254740992.0, True, "i9007199254740993")),
    ],
)
def test_how_a_value_is_stored(raw: str, stored: Stored) -> None:
    assert from_json(raw) == stored


@pytest.mark.parametrize(
    ("text", "number"),
    [
        (" 22.50 ", 22.5),
        ("+7", 7.0),
        (".5", 0.5),
        ("5.", 5.0),
        ("1_000", None),
        ("0x10", None),
        ("inf", None),
        ("٣", None),
    ],
)
def test_which_texts_read_as_numbers(text: str, number: float | None) -> None:
    assert as_number(text) == number


@pytest.mark.parametrize(
    "cell", ["22.50", "+1", "007", "1e5", "1E5", "-0", "1e+16", "18446744073709551616", "NaN"]
)
def test_a_cell_not_printed_as_we_print_numbers_stays_text(cell: str) -> None:
    stored = from_csv(cell)
    assert stored is not None
    assert value_of(*stored) == cell
