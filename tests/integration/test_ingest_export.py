"""PostgreSQL prints the lines of an export as Python does, or says that it cannot."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from contextlib import AsyncExitStack, aclosing, contextmanager
from datetime import UTC, datetime
from typing import Any, Literal
from uuid import UUID

import asyncpg
import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.ingest.answers import Cursor, printer
from services.ingest.handlers import routes
from services.ingest.handlers.reading import PART_BYTES
from services.ingest.store import Store
from services.ingest.store.readings import Piece
from shared.contracts.ingest import ExportReadings
from shared.vault import Vault
from tests.integration.ingest_service import NOW, Ingest, process
from tests.servers import Place, cloned_database
from tests.unit.ingest.test_ingest_round_trips import (
    COLUMNS,
    TAGS,
    coordinates,
    known,
    moments,
    stored,
    values,
)

EVERYTHING = (datetime(2000, 1, 1, tzinfo=UTC), datetime(2030, 1, 1, tzinfo=UTC))
BEFORE_ALL = Cursor(datetime(1970, 1, 1, tzinfo=UTC), 0)
Form = Literal["csv", "ndjson"]
FORMS: tuple[Form, ...] = ("csv", "ndjson")

ordinary = st.one_of(
    values,
    st.integers(-(10**6), 10**6),
    st.decimals(-1000, 1000, places=2).map(float),
    st.decimals(-1000, 1000, places=2).map(str),
    st.sampled_from(
        [0.0, -0.0, "-0", "-0.0", "0", "5", "5.0", "05", "+5", " 5", "1e3", "1e15", "1e+15", None]
    ),
    st.sampled_from(
        ["1" * 18, "1" * 19, "9" * 20, "a,b", 'a"b', "a\nb", "a\rb", "\\", "\\.", "\x7f", "ä", "-"]
    ),
    st.sampled_from([1e-4, 9.999e-5, 1e15, 999999999999999.9, 0.1 + 0.2, 5e-324, 1.7976931348623157e308]),
)
readings = st.builds(
    lambda at, found, parts: {"at": at.isoformat(), "values": found, **parts},
    moments,
    st.dictionaries(st.sampled_from(TAGS), ordinary),
    coordinates,
)


class Desk:
    """A connection whose every transaction is undone, and the loop to use it in."""

    def __init__(self, runner: asyncio.Runner, connection: Any) -> None:
        self._runner = runner
        self._connection = connection

    def printed(self, rows: list[dict[str, Any]], form: Form) -> Piece | None:
        """What PostgreSQL makes of these rows."""
        return self._runner.run(self._printed(rows, form))

    async def _printed(self, rows: list[dict[str, Any]], form: Form) -> Piece | None:
        of = msgspec.structs.replace(known(), last_entry=len(rows))
        layout = printer(of, ExportReadings(dataset_id=UUID(int=1), format=form)).layout
        assert layout is not None
        records = [tuple((row | {"dataset": of.number})[name] for name in COLUMNS) for row in rows]
        undone = self._connection.transaction()
        await undone.start()
        try:
            await self._connection.copy_records_to_table(
                "reading", schema_name="ingest", columns=COLUMNS, records=records
            )
            return await Store(self._connection).lines(of, *EVERYTHING, BEFORE_ALL, 100, layout)
        finally:
            await undone.rollback()


@contextmanager
def a_desk(template: Place) -> Iterator[Desk]:
    with asyncio.Runner() as runner:
        stack = AsyncExitStack()

        async def connect() -> Any:
            place = await stack.enter_async_context(cloned_database(template))
            connection = await asyncpg.connect(place.url("ingest"))
            stack.push_async_callback(connection.close)
            return connection

        try:
            yield Desk(runner, runner.run(connect()))
        finally:
            runner.run(stack.aclose())


def in_order(sent: list[dict[str, Any]]) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = stored("json", json.dumps(sent))
    return sorted(rows, key=lambda row: (row["at"], row["entry"]))


def by_us(rows: list[dict[str, Any]], form: Form) -> str:
    row_of = printer(known(), ExportReadings(dataset_id=UUID(int=1), format=form)).row
    return "".join(row_of(row) for row in rows)


def test_postgres_prints_what_python_prints(database_template: Place) -> None:
    with a_desk(database_template) as desk:

        @settings(max_examples=400, deadline=None)
        @given(st.lists(readings, min_size=1, max_size=4))
        def compare(sent: list[dict[str, Any]]) -> None:
            rows = in_order(sent)
            for form in FORMS:
                found = desk.printed(rows, form)
                if found is not None:
                    assert found.text == by_us(rows, form)
                    assert found.rows == len(rows)
                    assert found.last == Cursor(rows[-1]["at"], rows[-1]["entry"])

        compare()


@pytest.mark.parametrize(
    "value", [22.5, -0.25, 7, 7.0, 2**62, "open", "22.50", "22.5", "a,b", "", None, 1e-4]
)
def test_postgres_prints_what_devices_send(database_template: Place, value: Any) -> None:
    rows = in_order(
        [{"at": "2026-01-31T12:00:00Z", "values": {"a": value}, "status": "ok", "latitude": 47.5}]
    )
    with a_desk(database_template) as desk:
        for form in FORMS:
            found = desk.printed(rows, form)
            assert found is not None
            assert found.text == by_us(rows, form)


async def test_an_export_with_what_postgres_does_not_print_is_whole(
    database_template: Place, vault: Vault
) -> None:
    strange = {100: 1e-9, 5_000: 1e300}
    async with cloned_database(database_template) as place, process(place.url("ingest"), vault) as ingest:
        sent = [strange.get(index, index / 8) for index in range(10_000)]
        dataset = await ingest.create("temp")
        lines = [f"{NOW.isoformat()},{msgspec.json.encode(value).decode()}" for value in sent]
        await ingest.write(dataset, "at,temp\n" + "\n".join(lines), "csv")
        text = b"".join(await ingest.export(dataset)).decode()
    assert [float(line.split(",")[1]) for line in text.split("\n")[1:]] == sent


async def test_an_export_is_of_what_there_was_when_it_began(database_template: Place, vault: Vault) -> None:
    async with cloned_database(database_template) as place, process(place.url("ingest"), vault) as ingest:
        dataset = await ingest.create("temp")
        await ingest.write(dataset, _lines(10_000), "csv")
        parts = []
        async with aclosing(_export(ingest, dataset)) as export:
            parts.append(await anext(export))
            await ingest.write(dataset, "at,temp\n2026-01-31T12:00:00Z,1", "csv")
            parts += [part async for part in export]
    assert b"".join(parts).decode().count("\n") == 10_000
    assert max(len(part) for part in parts) <= PART_BYTES


def _lines(count: int) -> str:
    return "at,temp\n" + "\n".join(f"2026-01-31T12:00:00Z,{number}" for number in range(count))


def _export(ingest: Ingest, dataset: Any) -> Any:
    handler = routes.table[ExportReadings.topic].handler
    return handler(ExportReadings(dataset_id=dataset.id, format="csv"), ingest.deps(ingest.pool))
