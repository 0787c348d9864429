"""Rows of a block are the same bytes as each row by itself; integration tests have PostgreSQL read both."""

from __future__ import annotations

import struct
from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from services.ingest.columns import Columns
from services.ingest.copying import HEADER, TRAILER, stream
from services.ingest.formats import Item, items_of
from services.ingest.numbering import Block, row_of
from services.ingest.values import EXACT_INTEGER

AT = datetime(2026, 11, 20, 12, 30, 59, 999_999, tzinfo=UTC)
values = st.one_of(
    st.floats(allow_nan=False, allow_infinity=False), st.integers(-EXACT_INTEGER, EXACT_INTEGER)
)


@given(
    st.lists(st.integers(1, 64), min_size=1, max_size=4, unique=True),
    st.integers(1, 2**62),
    st.data(),
)
def test_a_block_is_its_rows(fields: list[int], first: int, data: st.DataObject) -> None:
    tags = tuple(f"v{field}" for field in fields)
    count = data.draw(st.integers(1, 5))
    columns = [data.draw(st.lists(values, min_size=count, max_size=count)) for _ in fields]
    ats = [AT - timedelta(microseconds=7 * index) for index in range(count)]
    by_tag = dict(zip(tags, fields, strict=True))
    items = items_of(Columns(tags, list(columns), ats))
    rows = [
        row_of(entry, 7, item, by_tag) for entry, item in enumerate(items, first) if isinstance(item, Item)
    ]
    assert stream([Block(7, first, fields, columns, ats)], []) == stream([], rows)


def test_the_stream_is_what_the_manual_says() -> None:
    row = (3, AT, 1, 7, [1.0, None], ["tx", None], "ok", None)
    found = bytes(stream([], [row]))
    assert found.startswith(b"PGCOPY\n\xff\r\n\0\0\0\0\0\0\0\0\0\0\x08")
    assert found.endswith(b"\xff\xff")
    body = found[len(HEADER) : -len(TRAILER)]
    microseconds = 848_493_059_999_999
    expected = struct.pack(">hiqiqiqii", 8, 8, 3, 8, microseconds, 8, 1, 4, 7)
    expected += struct.pack(">iiiiiiidi", 36, 1, 1, 701, 2, 1, 8, 1.0, -1)
    expected += struct.pack(">iiiiiii2si", 30, 1, 1, 25, 2, 1, 2, b"tx", -1)
    expected += struct.pack(">i2si", 2, b"ok", -1)
    assert body == expected
