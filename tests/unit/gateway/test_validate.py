"""From texts and JSON to structures, with every mistake named."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Any, Literal

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Meta, Struct

from services.gateway.http.answers import renderer, time_text
from services.gateway.http.problems import Turned
from services.gateway.http.validate import QueryReader, mistakes, read_form, read_time, zone_of
from shared.contracts.ingest import Dataset, Reading, ReadingPage
from shared.errors import Invalid, Refusal


class Inner(Struct, forbid_unknown_fields=True):
    tag: Annotated[str, Meta(min_length=1, max_length=3)]
    size: Annotated[int, Meta(ge=0, le=9)] | None = None


class Outer(Struct, forbid_unknown_fields=True):
    name: str
    kind: Literal["a", "b"] = "a"
    parts: Annotated[tuple[Inner, ...], Meta(max_length=2)] = ()
    numbers: dict[str, int] = {}


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ({"name": "x"}, set()),
        ({}, {("name", "required")}),
        ({"name": None}, {("name", "wrong_type")}),
        ({"name": "x", "kind": "c"}, {("kind", "not_allowed")}),
        ({"name": "x", "parts": [{"tag": "a"}] * 3}, {("parts", "too_long")}),
        (
            {"name": 1, "parts": [{"tag": "four"}, {"size": 10}]},
            {
                ("name", "wrong_type"),
                ("parts[0].tag", "too_long"),
                ("parts[1].tag", "required"),
                ("parts[1].size", "too_large"),
            },
        ),
        ({"name": "x", "numbers": {"a": 1, "b": "2"}}, {("numbers.b", "wrong_type")}),
        ([], {("", "wrong_type")}),
        ({"name": "x", "y": 1, "z": 2}, {("y", "unknown_field"), ("z", "unknown_field")}),
    ],
)
def test_each_mistake_is_named_where_it_is(value: Any, expected: set[tuple[str, str]]) -> None:
    assert {(error.path, error.code) for error in mistakes(value, Outer)} == expected


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=12,
)
FIELDS = st.fixed_dictionaries({}, optional={"name": JSON, "kind": JSON, "parts": JSON, "numbers": JSON})


@given(JSON | FIELDS)
def test_what_is_refused_has_a_mistake_and_what_is_accepted_has_none(value: Any) -> None:
    body = msgspec.json.encode(value)
    decoder = msgspec.json.Decoder(Outer)
    if "\\u0000" not in body.decode() and not list(mistakes(value, Outer)):
        read_form(decoder, body)
        return
    with pytest.raises(Refusal) as refused:
        read_form(decoder, body)
    assert refused.value.errors


@given(st.binary(max_size=60))
def test_no_bytes_are_too_strange(body: bytes) -> None:
    with pytest.raises((Invalid, Turned)):
        read_form(msgspec.json.Decoder(Outer), b"\xff" + body)


NOON = datetime(2026, 1, 31, 12, tzinfo=UTC)


@pytest.mark.parametrize(
    ("text", "zone"),
    [
        ("2026-01-31T12:00:00Z", ""),
        ("2026-01-31t12:00:00.000z", ""),
        ("2026-01-31T13:00:00+01:00", ""),
        ("2026-01-31T13:00:00 01:00", ""),
        ("2026-01-31 07:00:00-05:00", "Europe/Berlin"),
        ("2026-01-31T13:00:00.0000001", "Europe/Berlin"),
        ("2026-01-31T17:30:00", "+05:30"),
        ("2026-01-31T17:30:00", " 05:30"),
    ],
)
def test_a_time_is_read_in_utc(text: str, zone: str) -> None:
    assert read_time(text, zone_of(zone)) == NOON


@pytest.mark.parametrize(
    "text",
    [
        "",
        "now",
        "2026-01-31",
        "2026-01-31T12:00:00",
        "2026-13-01T00:00:00Z",
        "2026-02-30T00:00:00Z",
        "2026-01-01T24:00:00Z",
        "0001-01-01T00:00:00+23:00",
        "2026-01-01T00:00:00+99:99",
        "1769860800",
    ],
)
def test_anything_else_is_no_time(text: str) -> None:
    with pytest.raises(ValueError, match=r"\w"):
        read_time(text, None)


@pytest.mark.parametrize(
    "text", ["Mars/Olympus", "../etc/passwd", "/etc/passwd", "\0", "+25:99", "Europe/", "x" * 500]
)
def test_anything_else_is_no_time_zone(text: str) -> None:
    with pytest.raises(ValueError, match="no time zone"):
        zone_of(text)


class Asked(Struct, frozen=True, forbid_unknown_fields=True):
    start: datetime | None = None
    limit: Annotated[int, Meta(ge=1)] = 100
    variables: tuple[str, ...] = ()
    after: str | None = None


def test_a_query_fills_its_structure() -> None:
    reader = QueryReader(Asked)
    assert reader.read([]) == Asked()
    pairs = [("variables", "a,b"), ("variables", "c"), ("limit", "7"), ("start", "2026-01-31T12:00:00Z")]
    assert reader.read(pairs) == Asked(start=NOON, limit=7, variables=("a", "b", "c"))


@pytest.mark.parametrize(
    ("pairs", "expected"),
    [
        ([("limit", "x"), ("start", "y")], {("limit", "wrong_type"), ("start", "invalid_time")}),
        ([("limit", "0"), ("q", "")], {("limit", "too_small"), ("q", "unknown_field")}),
        ([("after", "a"), ("after", "b")], {("after", "repeated")}),
        ([("after", "a\0")], {("", "nul_character")}),
        ([("limit", "9" * 40)], {("limit", "too_large")}),
    ],
)
def test_every_mistake_of_a_query_is_named(
    pairs: list[tuple[str, str]], expected: set[tuple[str, str]]
) -> None:
    class Bounded(Asked, frozen=True):
        limit: Annotated[int, Meta(ge=1, le=2**63 - 1)] = 100

    with pytest.raises(Invalid) as refused:
        QueryReader(Bounded).read(pairs)
    assert {(error.path, error.code) for error in refused.value.errors} == expected


@given(st.datetimes(timezones=st.timezones()))
def test_times_sort_as_texts(moment: datetime) -> None:
    try:
        text = time_text(moment)
    except OverflowError:
        return
    assert len(text) == len("2026-01-31T12:00:00.000000Z")
    assert read_time(text, None) == moment.astimezone(UTC)


def test_an_answer_has_its_times_with_microseconds_and_leaves_the_rest_alone() -> None:
    page = ReadingPage(items=(Reading(entry=1, at=NOON, values={"t": "2026-01-31T12:00:00Z"}),), next=None)
    render = renderer(ReadingPage)
    assert render is not None
    assert render(page) == {
        "items": [{"entry": 1, "at": "2026-01-31T12:00:00.000000Z", "values": {"t": "2026-01-31T12:00:00Z"}}],
        "next": None,
    }
    assert renderer(Dataset) is not None
    assert renderer(Inner) is None
