"""Answers as bytes."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from services.gateway.http.answers import renderer, to_json
from services.gateway.http.readings import MANY, print_written
from shared.contracts.ingest import EntryStored, ReadingRejected, ReadingsWritten

NOON = datetime(2026, 1, 31, 12, tzinfo=UTC)
ENTRY = st.builds(
    EntryStored,
    entry=st.integers(1, 2**40),
    at=st.integers(-(10**15), 10**15).map(lambda number: NOON + timedelta(microseconds=number))
    | st.integers(-(10**9), 10**9).map(lambda number: NOON + timedelta(seconds=number)),
    duplicate=st.booleans(),
)


@given(st.lists(ENTRY, min_size=MANY, max_size=60))
def test_many_entries_are_printed_as_few_are(entries: list[EntryStored]) -> None:
    written = ReadingsWritten(entries=tuple(entries))
    render = renderer(ReadingsWritten)
    assert render is not None
    assert print_written(written) == to_json(render(written))


def test_what_holds_words_of_others_is_printed_the_careful_way() -> None:
    entries = tuple(EntryStored(entry=number, at=NOON) for number in range(MANY))
    rejected = (ReadingRejected(index=0, code="x", message='at 10:00Z"'),)
    assert print_written(ReadingsWritten(entries=entries, rejected=rejected)) is None
    assert print_written(ReadingsWritten(entries=entries[1:])) is None
