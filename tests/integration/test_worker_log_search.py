"""The log is read back by page, by request, by trace and by text; a search too wide is refused in time."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import asyncpg
import pytest

from services.worker.handlers import Deps, list_log_lines
from services.worker.rules import row_of, row_of_ended
from services.worker.searching import search_of
from services.worker.store import _NEWEST_FIRST, Store, _values
from shared.contracts.base import Principal
from shared.contracts.worker import Ended, ListLogLines, LogLine, LogPage, StoredLine
from shared.db import Database
from shared.errors import Refusal
from tests.servers import Place

# The middle of today: the lines of a test are all of one day.
NOON = datetime.now(UTC).replace(hour=12, minute=0, second=0, microsecond=0)
TRACE = "0af7651916cd43dd8448eb211c80319c"
ADMINISTRATOR = Principal(kind="user", id="ann", roles=("administrator",))


@pytest.fixture
async def store(database: Place) -> AsyncIterator[Store]:
    opened = Database(database.url("worker"), size=4, application_name="test")
    await opened.open()
    yield Store(opened.pool)
    await opened.close()


def line(**more: Any) -> LogLine:
    return LogLine(**{"at": NOON, "level": "warning", "service": "ingest", "event": "something", **more})


async def add(store: Store, *lines: LogLine) -> None:
    await store.add_rows([row_of(each.service, each) for each in lines])


async def page(store: Store, **asked: Any) -> LogPage:
    return (await list_log_lines(ListLogLines(**asked), Deps(store, 30, ADMINISTRATOR))).reply


async def events(store: Store, **asked: Any) -> list[str]:
    return [each.event for each in (await page(store, **asked)).items]


async def test_a_line_comes_back_as_it_was_logged(store: Store) -> None:
    fields = {"count": 3, "share": 0.5, "of": None, "text": 'a "b" \\ c\nd', "rows": [{"x": True}]}
    await add(store, line(level="error", request_id="r1", trace_id=TRACE, fields=fields), line(level="debug"))
    grave, calm = (await page(store, order="asc")).items
    assert grave == StoredLine(
        at=NOON,
        level="error",
        service="ingest",
        event="something",
        request_id="r1",
        trace_id=TRACE,
        fields=fields,
    )
    assert (calm.level, calm.request_id, calm.trace_id, calm.fields) == ("debug", "", "", {})


async def test_newest_first_or_oldest_first_and_a_level_is_the_least_grave_one_shown(store: Store) -> None:
    levels = ("debug", "info", "warning", "error", "critical")
    lines = [line(event=name, level=name, at=NOON + timedelta(seconds=n)) for n, name in enumerate(levels)]
    await add(store, *lines)
    assert await events(store) == [*reversed(levels)]
    assert await events(store, order="asc", level="warning") == [*levels[2:]]


@pytest.mark.parametrize("order", ["asc", "desc"])
async def test_pages_have_no_hole_and_no_repeat_though_many_lines_have_one_time(
    store: Store, order: Any
) -> None:
    """Lines come in while somebody reads; those of the past that were there are all read once."""
    times = [NOON, NOON + timedelta(microseconds=1), NOON - timedelta(days=1), NOON + timedelta(days=400)]
    await add(store, *(line(event=f"{n}", at=times[n % 4]) for n in range(200)))
    read: list[str] = []
    after = None
    while True:
        found = await page(store, limit=7, order=order, after=after)
        read += [each.event for each in found.items]
        later = [line(event="later", at=NOON + timedelta(hours=1))] * 5
        await add(store, *later)
        if found.next is None:
            break
        after = found.next
    read = [event for event in read if event != "later"]
    assert sorted(read, key=int) == [f"{n}" for n in range(200)]
    sorted_times = sorted(times, reverse=order == "desc")
    assert [times[int(event) % 4] for event in read] == [t for t in sorted_times for _ in range(50)]


async def test_a_page_that_would_be_too_large_for_a_message_is_shorter_and_goes_on(store: Store) -> None:
    await add(store, *(line(event=f"{n}", fields={"text": "x" * 8_000}) for n in range(300)))
    first = await page(store, limit=1_000, order="asc")
    assert 0 < len(first.items) < 200
    rest = await page(store, limit=1_000, order="asc", after=first.next)
    third = await page(store, limit=1_000, order="asc", after=rest.next)
    assert len(first.items) + len(rest.items) + len(third.items) == 300
    assert third.next is None


async def test_a_request_is_found_by_the_id_it_chose_or_by_that_of_its_trace(store: Store) -> None:
    await add(
        store,
        line(event="chosen", request_id="r-1", trace_id=TRACE),
        line(event="given", request_id=TRACE, trace_id=TRACE),
        line(event="other", request_id="r-2", trace_id=TRACE[::-1]),
        line(event="odd", request_id=TRACE, trace_id=TRACE[::-1]),
    )
    told = Ended(
        int(NOON.timestamp()) * 10**6,
        bytes(16),
        "command",
        "a.b",
        "done",
        "user:ann",
        TRACE,
        f"00-{TRACE}",
        0,
    )
    await store.add_rows([row_of_ended("auth", told)])
    assert await events(store, request_id="r-1") == ["chosen"]
    assert {*await events(store, request_id=TRACE)} == {"given", "odd", "command_ended"}
    assert {*await events(store, trace_id=TRACE)} == {"chosen", "given", "command_ended"}
    assert {each.request_id for each in (await page(store, request_id=TRACE)).items} == {TRACE}
    assert await events(store, request_id="nobody") == []


async def test_a_text_is_found_in_the_event_and_in_the_fields_and_its_signs_mean_themselves(
    store: Store,
) -> None:
    await add(
        store,
        line(event="Disk_full"),
        line(event="diskxfull"),
        line(event="third", fields={"path": r"C:\100%"}),
        line(event="fourth", fields={"reason": "no DISK_FULL here"}),
    )
    assert sorted(await events(store, q="disk_FULL")) == ["Disk_full", "fourth"]
    assert await events(store, q="100%") == ["third"]
    assert await events(store, q="%") == ["third"]
    assert await events(store, q="\\") == ["third"]
    assert await events(store, q="nul\0") == []


async def test_a_range_of_time_and_a_service(store: Store) -> None:
    await add(
        store, *(line(event=f"{n}", at=NOON + timedelta(hours=n), service=f"s{n % 2}") for n in range(5))
    )
    since, until = NOON + timedelta(hours=1), NOON + timedelta(hours=4)
    assert await events(store, since=since, until=until) == ["3", "2", "1"]
    assert await events(store, since=since, until=until, service="s0") == ["2"]


OTHERS = [
    Principal(),
    Principal(kind="user", id="bob"),
    Principal(kind="key", id="d", roles=("administrator",)),
    Principal(kind="user", id="eve", roles=("administrator",), project="other"),
]


@pytest.mark.parametrize("caller", OTHERS)
async def test_the_log_is_for_administrators_of_the_server(store: Store, caller: Principal) -> None:
    with pytest.raises(Refusal) as refused:
        await list_log_lines(ListLogLines(), Deps(store, 30, caller))
    assert refused.value.status == 403


@pytest.mark.parametrize("after", ["x", "AAAA", "é", "f" * 200])
async def test_a_cursor_that_is_none_is_refused(store: Store, after: str) -> None:
    with pytest.raises(Refusal) as refused:
        await page(store, after=after)
    assert (refused.value.status, refused.value.errors[0].path) == (422, "after")


async def test_a_search_that_takes_too_long_is_refused_and_its_connection_goes_on(
    store: Store, database: Place
) -> None:
    """A lock stands for a table that is too large to be looked through."""
    holder = await asyncpg.connect(database.admin_url)
    async with holder.transaction():
        await holder.execute("LOCK TABLE worker.log_line IN ACCESS EXCLUSIVE MODE")
        with pytest.raises(Refusal) as refused:
            await page(Store(store._db, 0.2), q="needle")
    await holder.close()
    assert (refused.value.status, refused.value.code) == (422, "search_too_wide")
    assert await events(store) == []


async def plan(database: Place, **asked: Any) -> str:
    """How PostgreSQL finds these lines, once it knows the table."""
    connection = await asyncpg.connect(database.url("worker"))
    try:
        search = search_of(ListLogLines(**asked))
        assert search is not None
        return "\n".join(
            row[0] for row in await connection.fetch(f"EXPLAIN {_NEWEST_FIRST}", *_values(search))
        )
    finally:
        await connection.close()


async def test_a_page_a_request_and_a_trace_are_found_by_an_index(store: Store, database: Place) -> None:
    lines = [
        line(at=NOON + timedelta(milliseconds=n), level="info", request_id=f"r{n}", trace_id=f"{n:032x}")
        for n in range(20_000)
    ]
    await add(store, *lines)
    administrator = await asyncpg.connect(database.admin_url)
    await administrator.execute("ANALYZE worker.log_line")
    await administrator.close()
    today = f"log_line_{NOON:%Y%m%d}"
    for asked in ({}, {"request_id": "r77"}, {"trace_id": f"{77:032x}"}, {"request_id": f"{77:032x}"}):
        said = await plan(database, **asked)
        assert not re.search(rf"Seq Scan on {today}\b", said), said
    assert await events(store, request_id="r77") == ["something"]
