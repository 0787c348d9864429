"""JSON, NDJSON and CSV give the same readings, and say everything that is wrong with each."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.ingest import tables
from services.ingest.formats import MAX_READINGS, Item, Malformed, hash_of, items_of, read_body
from services.ingest.times import Span
from services.ingest.values import quoted, value_of
from shared.contracts.ingest import BodyFormat, ReadingRejected, WriteReadings
from shared.errors import Invalid, Refusal

DATASET = UUID(int=1)
BORN = datetime(2026, 11, 20, 12, tzinfo=UTC)
SPAN = Span(datetime(2000, 1, 1, tzinfo=UTC), datetime(2026, 11, 21, 12, tzinfo=UTC))


def items(form: BodyFormat, body: bytes | str, **options: Any) -> list[Item | ReadingRejected]:
    raw = body.encode() if isinstance(body, str) else body
    write = WriteReadings(dataset_id=DATASET, format=form, body=raw, **options)
    return items_of(read_body(write, BORN, SPAN))


def only(form: BodyFormat, body: bytes | str, **options: str) -> Item:
    (item,) = items(form, body, **options)
    assert isinstance(item, Item), item
    return item


def rejected(form: BodyFormat, body: bytes | str, **options: str) -> ReadingRejected:
    (item,) = items(form, body, **options)
    assert isinstance(item, ReadingRejected), item
    return item


def values(item: Item | ReadingRejected) -> dict[str, object]:
    assert isinstance(item, Item), item
    return {tag: value_of(*stored) for tag, stored in item.values}


def test_one_reading_with_everything() -> None:
    item = only(
        "json",
        '{"id": "a-1", "at": "2026-01-31T12:00:00+01:00",'
        '"values": {"temp": 22.5, "note": "22.50", "gap": null},'
        '"status": "ok", "latitude": 52, "longitude": 13.4, "elevation": -3}',
    )
    assert item.at == datetime(2026, 1, 31, 11, tzinfo=UTC)
    assert values(item) == {"temp": 22.5, "note": "22.50", "gap": None}
    assert (item.id_hash, item.status, item.place) == (hash_of("a-1"), "ok", (52.0, 13.4, -3.0))


def test_a_reading_without_a_time_is_of_the_time_of_its_request() -> None:
    assert only("json", '{"values": {"temp": 1}}').at == BORN


def test_the_entry_of_an_exported_reading_is_passed_over() -> None:
    assert values(only("ndjson", '{"entry": 7, "values": {"temp": 1}}')) == {"temp": 1}


def test_a_list_keeps_its_order_and_counts_from_0() -> None:
    found = items("json", '[{"values": {"a": 1}}, {"values": {"a": true}}, {"values": {"a": 3}}]')
    assert [item.index for item in found] == [0, 1, 2]
    assert isinstance(found[1], ReadingRejected)


def test_ndjson_counts_lines_from_1_and_skips_empty_ones() -> None:
    found = items("ndjson", '{"values": {"a": 1}}\r\n\n{"values": {"a": 2}}\nnonsense\n')
    assert [item.index for item in found] == [1, 3, 4]
    assert isinstance(found[2], ReadingRejected)
    assert found[2].code == "malformed"


def test_all_mistakes_of_a_reading_are_said_at_once() -> None:
    reject = rejected(
        "json", '{"at": "noon", "colour": 1, "latitude": 91, "values": {"a": true, "b": 1e400, "c": 1}}'
    )
    assert reject.code == "bad_time"
    for part in ("at:", "colour:", "latitude:", "values.a:", "values.b:"):
        assert part in reject.message


@pytest.mark.parametrize(
    ("body", "code"),
    [
        ("{}", "missing"),
        ('{"values": {}}', "empty"),
        ('{"values": 1}', "wrong_type"),
        ('{"values": {"a": 1}, "id": ""}', "bad_id"),
        ('{"values": {"a": 1}, "id": 5}', "wrong_type"),
        ('{"values": {"a": 1}, "status": "\\u0000"}', "nul"),
        ('{"values": {"a": 1}, "longitude": "13"}', "wrong_type"),
        ('{"values": {"a": 1}, "elevation": 1e999}', "out_of_range"),
        ('{"values": {"a": 1}, "extra": 1}', "unknown_field"),
        ("[5]", "wrong_type"),
    ],
)
def test_what_is_wrong_with_a_reading(body: str, code: str) -> None:
    assert rejected("json", body).code == code


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"nonsense",
        b"5",
        b'"text"',
        b"[",
        b'{"values": {"a": NaN}}',
        b'{"values": {"a": Infinity}}',
        b'{"values": {"a": "\xff"}}',
        b'\xef\xbb\xbf{"values": {"a": 1}}',
        b"[" * 200_000,
        b'{"values": {"a": ' + b"[" * 200_000,
        b'{"values": {"a": ' + b"[" * 200_000 + b"]" * 200_000 + b"}}",
        b'[{"values": ' + b'{"a":' * 200_000 + b"1" + b"}" * 200_000 + b"}]",
    ],
)
def test_a_body_that_is_no_json_is_malformed(body: bytes) -> None:
    with pytest.raises(Malformed) as refusal:
        items("json", body)
    assert refusal.value.status == 400
    assert refusal.value.detail


def test_a_line_nested_too_deep_spoils_only_itself() -> None:
    found = items(
        "ndjson", b'{"values": {"a": 1}}\n{"values": ' + b"[" * 200_000 + b"\n" + b'{"values": {"a": 2}}'
    )
    assert [type(item) for item in found] == [Item, ReadingRejected, Item]


def test_too_many_readings_are_refused() -> None:
    with pytest.raises(Refusal) as refusal:
        items("ndjson", b"{}\n" * (MAX_READINGS + 1))
    assert (refusal.value.status, refusal.value.code) == (413, "too_many_readings")


def test_a_csv_with_every_kind_of_column() -> None:
    found = items(
        "csv",
        "\ufeffat,temp,note,id,status,latitude,longitude,elevation\r\n"
        '2026-01-31T12:00:00Z,22.5,"say ""no""",a-1,fine,52.5,13.4,34\r\n'
        '2026-01-31T13:00:00Z,22.50,"22.5",,,,,\r\n',
    )
    assert values(found[0]) == {"temp": 22.5, "note": 'say "no"'}
    assert values(found[1]) == {"temp": "22.50", "note": "22.5"}
    first, second = found
    assert isinstance(first, Item)
    assert isinstance(second, Item)
    assert (first.index, first.status, first.place) == (2, "fine", (52.5, 13.4, 34.0))
    assert (second.index, second.status, second.place) == (3, None, None)


def test_a_csv_without_times_is_of_the_time_of_its_request() -> None:
    assert only("csv", "temp\n1\n").at == BORN


def test_a_row_without_its_time_is_rejected_not_dated_today() -> None:
    assert rejected("csv", "at,temp\n,1").code == "bad_time"


def test_a_row_with_other_columns_is_rejected_by_itself() -> None:
    found = items("csv", "at,temp\n2026-01-31T12:00:00Z,1,2\n2026-01-31T12:00:00Z,1\n")
    assert isinstance(found[0], ReadingRejected)
    assert (found[0].index, found[0].code) == (2, "wrong_columns")
    assert isinstance(found[1], Item)


def test_lines_are_counted_through_line_breaks_in_values() -> None:
    found = items("csv", 'temp,note\n1,"a\nb\nc"\n\n2,"x"\n3,y')
    assert [item.index for item in found] == [2, 6, 7]


@pytest.mark.parametrize(
    ("body", "options"),
    [
        ("", {}),
        ("\n", {}),
        ("at,at\n", {}),
        ("at,\n", {}),
        ("at,temp\n", {"time_column": "date"}),
        ("at,date\n", {"time_column": "date"}),
        ('temp\n"open', {}),
        ('temp\na"b\n', {}),
        ('temp\n"a"b\n', {}),
        ("temp\na\rb\n", {}),
    ],
)
def test_a_csv_that_cannot_be_told_apart_is_malformed(body: str, options: dict[str, str]) -> None:
    with pytest.raises(Malformed):
        items("csv", body, **options)


@pytest.mark.parametrize(("options", "path"), [({"source": "f"}, "position"), ({"position": 5}, "source")])
def test_an_import_says_its_source_and_its_position(options: dict[str, Any], path: str) -> None:
    with pytest.raises(Invalid) as refusal:
        items("json", '{"values": {"a": 1}}', **options)
    assert refusal.value.errors[0].path == path


cells = st.text(st.characters(blacklist_categories=["Cs"]), max_size=20)


@given(
    st.lists(st.lists(cells, min_size=2, max_size=2), min_size=1, max_size=5), st.sampled_from(["\n", "\r\n"])
)
def test_quoted_cells_come_back_as_they_were(table: list[list[str]], end: str) -> None:
    text = end.join(",".join(quoted(cell) for cell in row) for row in table)
    rows = list(tables.rows(text))
    assert [row.cells for row in rows] == table
    assert all(row.quoted == {0, 1} for row in rows)


@given(st.text(max_size=60))
def test_any_text_is_told_apart_or_refused(text: str) -> None:
    try:
        rows = list(tables.rows(text))
    except tables.BadTable:
        return
    assert [row.line for row in rows] == sorted({row.line for row in rows})


@given(st.binary(max_size=80), st.sampled_from(["json", "ndjson", "csv"]))
def test_no_body_is_an_accident(body: bytes, form: BodyFormat) -> None:
    try:
        statuses = {200 for _ in items(form, body)}
    except Refusal as refusal:
        statuses = {refusal.status}
    assert statuses <= {200, 400}
