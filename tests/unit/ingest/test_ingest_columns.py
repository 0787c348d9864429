"""The quick ways in give what the exact one gives, whatever is sent."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from services.ingest.columns import FEW, Columns
from services.ingest.formats import Items, items_of, read_body, read_exactly
from services.ingest.times import Span
from shared.contracts.ingest import BodyFormat, WriteReadings
from shared.errors import Refusal

BORN = datetime(2026, 11, 20, 12, tzinfo=UTC)
SPAN = Span(datetime(2000, 1, 1, tzinfo=UTC), datetime(2026, 11, 21, tzinfo=UTC))
MANY = FEW + 4

numbers = st.one_of(
    st.floats(allow_nan=False, allow_infinity=False).map(repr),
    st.floats(-100, 100).map(lambda number: f"{number:.2f}"),
    st.integers(-100, 100).map(str),
    st.integers(-(2**70), 2**70).map(str),
    st.sampled_from(
        ["-0", "-0.0", "1e3", "1E+22", "1e999", "9007199254740993", "0.10", "22.50", "100.00", "01", "NaN"]
    ),
)
texts = st.text(st.characters(blacklist_categories=["Cs"]), max_size=5)
values = st.one_of(
    numbers,
    texts.map(json.dumps),
    st.sampled_from(
        [
            "null",
            "true",
            "[]",
            "{}",
            '"\\u00e9"',
            '"é"',
            '"a\\/b"',
            '"1.50,"',
            '"a\\": "',
            '"x, "',
            '"\\ud800"',
            '"\\u0000"',
        ]
    ),
)
times = st.one_of(
    st.datetimes(datetime(1999, 12, 31), datetime(2026, 11, 22)).map(lambda at: at.isoformat() + "Z"),
    st.sampled_from(
        [
            "2026-01-31T12:00:00+01:00",
            "2026-01-31T12:00:00.500Z",
            "2026-01-31 12:00:00Z",
            "2026-03-08T02:30:00",
            "2026-06-01T12:00:00",
            "nonsense",
            "",
        ]
    ),
)
parts = st.one_of(
    st.tuples(st.just("at"), times.map(json.dumps)),
    st.tuples(st.just("at"), st.sampled_from(["null", "5", "true"])),
    st.tuples(st.just("id"), st.sampled_from(['"a"', '""', "null", "7", '"' + "x" * 201 + '"'])),
    st.tuples(st.just("status"), st.sampled_from(['"ok"', "null", "1", '"\\u0000"'])),
    st.tuples(st.just("entry"), st.sampled_from(["7", "[1]"])),
    st.tuples(
        st.sampled_from(["latitude", "longitude", "elevation"]),
        st.one_of(numbers, st.sampled_from(["null", '"5"', "true"])),
    ),
    st.tuples(st.just("other"), values),
)


def printed(pairs: list[tuple[str, str]], loose: bool) -> str:
    comma, colon = (", ", ": ") if loose else (",", ":")
    return "{" + comma.join(json.dumps(name) + colon + text for name, text in pairs) + "}"


@st.composite
def readings(draw: st.DrawFn) -> str:
    """A reading, well-formed or not."""
    loose = draw(st.booleans())
    tags = st.sampled_from(["a", "b", "a.b"])
    found = printed(draw(st.lists(st.tuples(tags, values), max_size=3)), loose)
    pairs = [("values", draw(st.sampled_from([found, found, found, "null", "[]", "5"])))]
    pairs += draw(st.lists(parts, max_size=3))
    return printed(draw(st.permutations(pairs)), loose)


@st.composite
def alike(draw: st.DrawFn) -> list[str]:
    """Readings as devices send them, and perhaps one that is not as the others."""
    tags = draw(st.lists(st.sampled_from(["a", "b", "c"]), min_size=1, max_size=3, unique=True))
    plain = st.one_of(
        st.floats(-1e6, 1e6).map(repr),
        st.floats(-1e6, 1e6).map(lambda number: f"{number:.2f}"),
        st.integers(-(2**60), 2**60).map(str),
        st.sampled_from(["1.5" + "0" * 15, "1.5" + "0" * 30, "1." + "0" * 500]),
    )
    start = draw(st.datetimes(datetime(2000, 1, 1), datetime(2026, 11, 19)))
    offset = draw(st.sampled_from(["Z", "+00:00", "+05:45", ".25Z", ""]))
    timed, first = draw(st.booleans()), draw(st.booleans())
    found = []
    for index in range(draw(st.integers(MANY - 6, MANY))):
        pairs = [("values", printed([(tag, draw(plain)) for tag in tags], False))]
        at = (start + timedelta(seconds=index)).replace(microsecond=0).isoformat() + offset
        pairs.insert(0 if first else 1, ("at", json.dumps(at))) if timed else None
        found.append(printed(pairs, False))
    return draw(st.one_of(st.just(found), readings().map(lambda one: [*found, one])))


def told(form: BodyFormat, body: str | bytes, **options: Any) -> tuple[Any, Any]:
    """What both ways say: the readings, or the refusal."""
    raw = body.encode() if isinstance(body, str) else body
    write = WriteReadings(dataset_id=UUID(int=1), format=form, body=raw, **options)
    quick = answer(lambda: items_of(read_body(write, BORN, SPAN)))
    return quick, answer(lambda: read_exactly(write, BORN, SPAN))


def answer(read: Callable[[], Items]) -> Any:
    try:
        return repr(read())
    except Refusal as refusal:
        return type(refusal), refusal.status, refusal.code, refusal.detail


zones = st.sampled_from(["", "UTC", "America/Los_Angeles", "+05:45"])


@given(st.one_of(alike(), st.lists(readings(), max_size=MANY)), st.booleans(), zones)
@example(["1"] * MANY, False, "")
@example(['{"values":{"a":1}}'] * MANY, True, "")
@example(['{"values":{"a":1,"a":1}}'] * MANY, False, "")
def test_json_is_read_the_same(found: list[str], loose: bool, timezone: str) -> None:
    quick, exact = told("json", "[" + (" ,\n" if loose else ",").join(found) + "]", timezone=timezone)
    assert quick == exact
    for one in found:
        quick, exact = told("json", one, timezone=timezone)
        assert quick == exact


@given(
    st.one_of(alike(), st.lists(readings(), max_size=MANY)), st.sampled_from(["\n", "\r\n", "\n\n"]), zones
)
def test_lines_are_read_the_same(found: list[str], end: str, timezone: str) -> None:
    quick, exact = told("ndjson", end.join(found), timezone=timezone)
    assert quick == exact
    quick, exact = told("ndjson", end.join(found) + end, timezone=timezone)
    assert quick == exact


cells = st.one_of(numbers, numbers, texts, times, st.sampled_from(["", '"1"', " 1", "1\r"]))
lines = st.lists(st.lists(cells, min_size=2, max_size=3).map(",".join), max_size=MANY)
plain_cell = st.one_of(
    st.floats(-100, 100).map(lambda number: repr(round(number, 2))), st.integers().map(str)
)
plain_lines = st.lists(st.tuples(times, plain_cell, plain_cell).map(",".join), min_size=FEW, max_size=MANY)
heads = st.sampled_from(["at,a,b", "date,a,b", "a,b", "entry,at,a", "at,a,status", "a,a,b", "", "a,b,"])


@given(heads, st.one_of(lines, plain_lines), st.sampled_from(["\n", "\r\n"]), st.booleans(), zones)
def test_tables_are_read_the_same(head: str, found: list[str], end: str, ends: bool, timezone: str) -> None:
    body = end.join([head, *found]) + (end if ends else "")
    for time_column in ("", "date"):
        quick, exact = told("csv", body, timezone=timezone, time_column=time_column)
        assert quick == exact
    quick, exact = told("csv", "\ufeff" + body)
    assert quick == exact


@given(st.binary(max_size=60))
def test_bytes_are_read_the_same(body: bytes) -> None:
    forms: tuple[BodyFormat, ...] = ("json", "ndjson", "csv")
    for form in forms:
        quick, exact = told(form, body)
        assert quick == exact


AT = '"at":"2026-11-20T00:00:{:02}Z",'
BODIES: list[tuple[BodyFormat, str]] = [
    ("json", "[" + ",".join(f'{{{AT.format(n)}"values":{{"a":{n},"b":{n}.5}}}}' for n in range(60)) + "]"),
    ("json", "[" + ", ".join(f'{{"values": {{"a": {n}, "b": {n}.5}}}}' for n in range(60)) + "]"),
    ("ndjson", "".join(f'{{"values":{{"a":{n}}},{AT.format(n)[:-1]}}}\n' for n in range(60))),
    ("json", "[" + ", ".join(f'{{"values": {{"a": {n}.50}}}}' for n in range(60)) + "]"),
    ("ndjson", "".join(f'{{"values": {{"a": {n}.50, "b": 1}}}}\n' for n in range(60))),
    ("csv", "at,a,b\n" + "\n".join(f"2026-11-20T00:00:{n:02}Z,{n},{n}.5" for n in range(60))),
    ("csv", "a,b\r\n" + "".join(f"{n},{n % 7 / 4}\r\n" for n in range(60))),
]


@pytest.mark.parametrize(("form", "body"), BODIES)
def test_what_devices_send_goes_the_quick_way(form: BodyFormat, body: str) -> None:
    write = WriteReadings(dataset_id=UUID(int=1), format=form, body=body.encode())
    assert isinstance(read_body(write, BORN, SPAN), Columns)
    quick, exact = told(form, body)
    assert quick == exact
