"""JSON numbers and text survive storage, JSON, NDJSON, CSV and back."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.ingest.answers import Cursor, printer, reading_of, value_fields
from services.ingest.formats import Item, items_of, read_body
from services.ingest.numbering import arrays, row_of
from services.ingest.rules import HAS_ELEVATION, HAS_POSITION, HAS_STATUS, Known
from services.ingest.times import Span
from shared.contracts.ingest import BodyFormat, ExportReadings, Reading, Variable, WriteReadings
from shared.errors import Invalid
from tests.unit.ingest.test_ingest_numbering import dataset, variable

BORN = datetime(2026, 11, 20, 12, tzinfo=UTC)
SPAN = Span(datetime(2000, 1, 1, tzinfo=UTC), datetime(2026, 11, 21, tzinfo=UTC))
TAGS = ("a", "b", "c", "wide")
VARIABLES = tuple(variable(tag, field) for tag, field in zip(TAGS, (1, 2, 3, 64), strict=True))
COLUMNS = ("entry", "at", "whole", "dataset", "numbers", "exact", "status", "place")

doubles = st.floats(allow_nan=False, allow_infinity=False)
integers = st.integers(-(2**63), 2**63 - 1)
texts = st.text(st.characters(blacklist_categories=["Cs"], blacklist_characters="\0"), max_size=30)
values = st.one_of(
    doubles, integers, texts, st.one_of(doubles, integers).map(str), st.sampled_from(["", ",", '"'])
)
moments = st.datetimes(datetime(2000, 1, 1), datetime(2026, 11, 20)).map(lambda at: at.replace(tzinfo=UTC))
coordinates = st.fixed_dictionaries(
    {},
    optional={
        "status": texts,
        "latitude": st.floats(-90, 90),
        "longitude": st.floats(-180, 180),
        "elevation": doubles,
    },
)
readings = st.builds(
    lambda at, found, parts: {"at": at.isoformat(), "values": found, **parts},
    moments,
    st.dictionaries(st.sampled_from(TAGS), values, min_size=1),
    coordinates,
)


def stored(
    form: BodyFormat, body: str, variables: Sequence[Variable] = VARIABLES, **options: str
) -> list[Any]:
    """The rows of a body."""
    write = WriteReadings(dataset_id=UUID(int=1), format=form, body=body.encode(), **options)  # type: ignore[arg-type]
    fields = {one.tag: one.field for one in variables}
    rows = []
    for entry, item in enumerate(items_of(read_body(write, BORN, SPAN)), 1):
        assert isinstance(item, Item), item
        rows.append(dict(zip(COLUMNS, row_of(entry, 1, item, fields), strict=True)))
    return rows


def known(variables: Sequence[Variable] = VARIABLES) -> Known:
    parts = HAS_STATUS | HAS_POSITION | HAS_ELEVATION
    return msgspec.structs.replace(dataset(), variables=tuple(variables), parts=parts)


def exported(rows: Sequence[Mapping[str, Any]], of: Known, **options: Any) -> str:
    """The rows as one text."""
    printed = printer(of, ExportReadings(dataset_id=UUID(int=1), **options))
    return printed.head + "".join(printed.row(row) for row in rows)


def answers(rows: Sequence[Mapping[str, Any]]) -> list[Reading]:
    return [reading_of(row, VARIABLES) for row in rows]


def exact(readings: Sequence[Reading]) -> list[str]:
    """Equal texts mean equal values of equal types, zeros with their signs."""
    return [repr(reading) for reading in readings]


@given(st.lists(readings, min_size=1, max_size=4))
def test_what_was_sent_is_answered(sent: list[dict[str, Any]]) -> None:
    found = answers(stored("json", json.dumps(sent)))
    for one, reading in zip(sent, found, strict=True):
        assert repr(dict(sorted(reading.values.items()))) == repr(dict(sorted(one["values"].items())))
        assert (reading.status, reading.latitude) == (one.get("status"), one.get("latitude"))
        assert reading.at == datetime.fromisoformat(one["at"])


@given(
    st.lists(readings, min_size=1, max_size=4), st.sampled_from(["", "UTC", "+05:45", "America/Los_Angeles"])
)
def test_an_export_imported_again_is_the_same(sent: list[dict[str, Any]], timezone: str) -> None:
    rows = stored("json", json.dumps(sent))
    forms: tuple[BodyFormat, ...] = ("csv", "ndjson")
    for form in forms:
        text = exported(rows, known(), format=form, timezone=timezone)
        again = stored(form, text, timezone=timezone)
        assert exact(answers(again)) == exact(answers(rows))
        assert exported(again, known(), format=form, timezone=timezone) == text


@given(st.lists(readings, min_size=1, max_size=4))
def test_other_programs_read_our_csv(sent: list[dict[str, Any]]) -> None:
    rows = stored("json", json.dumps(sent))
    text = exported(rows, known(), format="csv")
    table = list(csv.reader(io.StringIO(text, newline=""), strict=True))
    assert table[0] == ["at", *TAGS, "status", "latitude", "longitude", "elevation"]
    assert all(len(row) == len(table[0]) for row in table)
    for row, reading in zip(table[1:], answers(rows), strict=True):
        cells = dict(zip(TAGS, row[1:5], strict=True))
        for tag, value in reading.values.items():
            assert value is not None
            assert type(value)(cells[tag]) == value


@given(readings)
def test_a_row_taken_apart_and_put_together_is_the_same(sent: dict[str, Any]) -> None:
    (row,) = stored("json", json.dumps(sent))
    numbers, exact_texts, whole = arrays(value_fields(row))
    assert (numbers, exact_texts, whole) == (row["numbers"], row["exact"], row["whole"])


@pytest.mark.parametrize("timezone", ["UTC", "-08:00"])
def test_the_temperatures_of_seattle_come_out_byte_for_byte(timezone: str, seattle: str) -> None:
    options = {"time_column": "date", "time_format": "%Y/%m/%d %H:%M", "timezone": timezone}
    variables = (variable("temp", 1),)
    rows = stored("csv", seattle, variables, **options)
    assert len(rows) == 8_759
    assert all(row["exact"] is None and not row["whole"] for row in rows)
    of = msgspec.structs.replace(known(variables), parts=0)
    assert exported(rows, of, format="csv", **options) == seattle


@pytest.fixture(scope="module")
def seattle(seattle_file: Path) -> str:
    """Hourly temperatures of 2010, as a file that others made."""
    return seattle_file.read_bytes().decode()


def test_a_daylight_saving_zone_refuses_the_hours_that_were_not(seattle: str) -> None:
    write = WriteReadings(
        dataset_id=UUID(int=1),
        format="csv",
        body=seattle.encode(),
        time_column="date",
        time_format="%Y/%m/%d %H:%M",
        timezone="America/Los_Angeles",
    )
    refused = [item for item in items_of(read_body(write, BORN, SPAN)) if not isinstance(item, Item)]
    assert [one.code for one in refused] == ["no_such_time", "ambiguous_time"]


def test_a_column_of_an_export_has_one_name() -> None:
    with pytest.raises(Invalid) as refusal:
        exported([], known(), format="csv", time_column="a")
    assert refusal.value.errors[0].code == "column_twice"


def test_an_export_of_chosen_variables_has_only_these() -> None:
    rows = stored("json", '{"at": "2026-01-31T12:00:00Z", "values": {"a": 1, "c": 2}, "status": "x"}')
    assert exported(rows, known(), format="csv", variables=("c",)) == "at,c\n2026-01-31T12:00:00.000000Z,2"


@given(moments, st.integers(1, 2**63 - 1))
def test_a_cursor_comes_back_as_it_was(at: datetime, entry: int) -> None:
    assert Cursor.read(Cursor(at, entry).text()) == Cursor(at, entry)
    assert Cursor(at, entry) != Cursor(at + timedelta(microseconds=1), entry)


@pytest.mark.parametrize("text", ["x", "AAAA", "=" * 24, "\0", "ä" * 22, "f" * 22])
def test_a_cursor_that_is_none_of_ours_is_refused(text: str) -> None:
    with pytest.raises(Invalid):
        Cursor.read(text)
