"""The pages of datasets without a browser: what they read, what they show, what they say of mistakes."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import urlencode
from uuid import UUID

import pytest

from services.gateway.http.app import make_app
from services.gateway.http.gateway import GATEWAY
from services.gateway.http.server import Door
from services.gateway.pages import editing, transfer
from services.gateway.pages.editing import Draft, Row
from services.gateway.pages.ranges import read_range
from services.gateway.pages.table import add_pages
from shared.contracts.base import FieldError
from shared.contracts.ingest import (
    ChangeDataset,
    CreateDataset,
    Dataset,
    GetDataset,
    GetLedger,
    ListDatasets,
    ListReadings,
    Variable,
    WriteReadings,
)
from shared.errors import Forbidden, Invalid, NotFound, Refusal
from shared.vault import Vault
from tests.unit.gateway.door import House, settings
from tests.unit.gateway.services import NOON, Services

HTML = {"Accept": "text/html,application/xhtml+xml"}
EVIL = "<script>alert(1)</script>'\"&"
DATASET = Dataset(
    id=UUID("0193ffff-0000-7000-8000-0000000000da"),
    channel_id=7,
    name="Roof",
    description="",
    public=False,
    variables=(
        Variable(tag="temp", field=1, name="Temperature", unit="°C", retired=False),
        Variable(tag="old", field=2, name="", unit="", retired=True),
    ),
    entries=3,
    created_at=NOON,
    last_entry_at=NOON,
    version=4,
)


@pytest.fixture
async def pages(vault: Vault) -> AsyncIterator[House]:
    """A gateway with its pages."""
    services, chosen = Services(vault), settings()
    app = make_app(services, vault, chosen, add_pages=add_pages)
    door = Door(app, chosen)
    await door.open()
    try:
        yield House(door, services, app[GATEWAY])
    finally:
        await door.stop()


async def get(pages: House, path: str, token: str | None = None) -> tuple[int, str]:
    answer = await pages.request("GET", path, token=token, headers=HTML, allow_redirects=False)
    return answer.status, answer.body.decode()


async def post(pages: House, path: str, form: dict[str, Any], token: str) -> tuple[int, str, str]:
    headers = HTML | {
        "Content-Type": "application/x-www-form-urlencoded",
        "Sec-Fetch-Site": "same-origin",
    }
    answer = await pages.request(
        "POST", path, token=token, data=urlencode(form), headers=headers, allow_redirects=False
    )
    return answer.status, answer.body.decode(), answer.headers.get("Location", "")


# -- who sees what


async def test_programs_find_links_at_the_root_and_people_their_datasets(pages: House) -> None:
    links = await pages.request("GET", "/")
    assert links.json["links"]["openapi"] == "/openapi.json"
    with_old_token = await pages.request("GET", "/", headers={"Authorization": "Bearer ended.long.ago"})
    assert with_old_token.json == links.json
    stranger = await pages.request("GET", "/", headers=HTML, allow_redirects=False)
    assert (stranger.status, stranger.headers["Location"]) == (303, "/login")
    status, body = await get(pages, "/", pages.services.token())
    assert status == 200
    assert "No dataset yet" in body
    assert f"curl {pages.url}/v1/datasets/ID/readings" in body


async def test_names_are_never_markup(pages: House) -> None:
    token = pages.services.token()
    form = {"name": EVIL, "description": EVIL, "rows": "1", "tag-0": "t", "name-0": EVIL, "unit-0": EVIL}
    status, _, place = await post(pages, "/datasets", form, token)
    assert status == 303
    for path in ("/", *(place + more for more in ("", "/edit", "/import", "/export", "/delete"))):
        status, body = await get(pages, path, token)
        assert status == 200
        assert "<script>alert" not in body
        assert "&lt;script&gt;alert(1)" in body


async def test_what_is_not_ones_own_is_not_there(pages: House) -> None:
    made = await pages.dataset(pages.services.token())
    pages.services.failing[GetLedger.topic] = Forbidden("only the owner and holders of a key may see this")
    token = pages.services.token()
    status, body = await get(pages, f"/datasets/{made['id']}", token)
    assert status == 200  # as a public one looks to others
    assert "Edit</a>" not in body
    assert "WRITE_KEY" not in body
    for path in ("/edit", "/import", "/delete", "/keys/write"):
        assert (await get(pages, f"/datasets/{made['id']}{path}", token))[0] == 404
    pages.services.failing[GetDataset.topic] = NotFound("no such dataset")
    status, body = await get(pages, f"/datasets/{made['id']}", token)
    assert (status, "There is no such dataset" in body) == (404, True)
    assert (await get(pages, f"/datasets/{'-' * 36}", token))[0] == 404


async def test_readings_are_asked_for_in_the_range_of_the_page(pages: House) -> None:
    token = pages.services.token()
    made = await pages.dataset(token)
    path = f"/datasets/{made['id']}"
    await get(pages, f"{path}?start=2026-01-01&end=2026-01-02T06:30&timezone=%2B01:00", token)
    asked, _ = pages.services.last(ListReadings)
    assert asked.start == datetime(2025, 12, 31, 23, tzinfo=UTC)
    assert asked.end == datetime(2026, 1, 2, 5, 30, tzinfo=UTC)
    before = len(pages.services.asked)
    status, body = await get(pages, f"{path}?start=yesterday", token)
    assert status == 200
    assert "Write a time like" in body
    assert not any(isinstance(message, ListReadings) for message, _ in pages.services.asked[before:])


async def test_datasets_are_found_by_any_of_their_words(pages: House) -> None:
    token = pages.services.token()
    for name in ("Roof", "Cellar", "roof garden"):
        await pages.request("POST", "/v1/datasets", token=token, json={"name": name})
    _, body = await get(pages, "/?q=ROOF", token)
    assert re.findall(r'<a href="/datasets/[0-9a-f-]{36}">([^<]+)</a>', body) == ["Roof", "roof garden"]
    asked, _ = next(one for one in pages.services.asked if isinstance(one[0], ListDatasets))
    assert asked.limit == 1_000
    _, body = await get(pages, "/?q=attic", token)
    assert "No dataset fits “attic”" in body


async def test_metrics_name_pages_without_patterns(pages: House) -> None:
    made = await pages.dataset(pages.services.token())
    await get(pages, f"/datasets/{made['id']}", pages.services.token())
    await get(pages, f"/datasets/{made['id']}/keys/write", pages.services.token())
    await get(pages, f"/users/{made['id']}/delete", pages.services.token())
    counted = (await pages.request("GET", "/metrics")).body.decode()
    assert 'route="/users/{user_id}/delete"' in counted
    assert 'route="/datasets/{dataset_id}"' in counted
    assert 'route="/datasets/{dataset_id}/keys/{kind}"' in counted


# -- ranges


def test_without_a_wish_the_shortest_range_that_shows_something() -> None:
    def name(ago: timedelta) -> str:
        return read_range({}, NOON - ago, NOON).name

    assert name(timedelta(minutes=5)) == "24h"
    assert name(timedelta(days=3)) == "7d"
    assert name(timedelta(days=20)) == "30d"
    assert name(timedelta(days=200)) == "all"
    assert read_range({}, None, NOON).name == "24h"
    assert read_range({"range": "1h"}, None, NOON).start == NOON - timedelta(hours=1)
    assert read_range({"range": "1h"}, None, NOON).query == "range=1h"


def test_times_that_are_none_are_said_beside_their_field() -> None:
    found = read_range({"start": "2026-02-30", "end": "2026-01-01 12:00"}, None, NOON)
    assert found.wrong == {"start": "Write a time like 2026-01-31 12:00."}
    backwards = read_range({"start": "2026-01-02", "end": "2026-01-01"}, None, NOON)
    assert backwards.wrong == {"end": "The end is not after the start."}
    assert read_range({"start": "2026-01-02T00:00:00+01:00"}, None, NOON).times == {
        "start": "2026-01-01T23:00:00.000000Z"
    }


# -- forms


def test_a_form_is_read_as_the_variables_there_shall_be() -> None:
    draft = editing.read(
        {
            "name": " Roof ",
            "public": "yes",
            "version": "4",
            "rows": "4",
            "tag-0": "temp",
            "known-0": "yes",
            "name-0": "T",
            "tag-1": "old",
            "known-1": "retired",
            "used-1": "yes",
            "tag-3": "new",
        }
    )
    assert draft.values() == {
        "name": "Roof",
        "description": "",
        "public": True,
        "variables": [{"tag": "old", "name": "", "unit": ""}, {"tag": "new", "name": "", "unit": ""}],
    }
    assert draft.version == 4
    assert editing.read({"rows": "9" * 30, "version": "-1"}) == Draft()


def test_every_mistake_stands_beside_its_field() -> None:
    rows = (Row(tag="a", known=True, used=False), Row(tag="b c"), Row(), Row(name="no tag"))
    draft = Draft(name="", rows=rows)
    with pytest.raises(Invalid) as refused:
        editing.checked(CreateDataset, draft.values())
    assert draft.refused(refused.value).wrong == {
        "name": "Give it a name.",
        "tag-1": "Only letters, digits and _ . - are possible, beginning with a letter, a digit or _.",
        "tag-3": "Give the variable a tag: programs send its values under it.",
    }
    later = Invalid(errors=[FieldError(path="variables.1.tag", code="tag_twice", message="b is there")])
    assert draft.refused(later).wrong == {"tag-3": "Another variable has this tag."}
    assert draft.refused(Refusal("Not today.")).wrong == {"": "Not today."}


async def test_what_was_typed_stays_in_the_form(pages: House) -> None:
    token = pages.services.token()
    form = {"name": "", "description": "Here", "public": "yes", "rows": "1", "tag-0": "a b", "unit-0": "°C"}
    status, body, _ = await post(pages, "/datasets", form, token)
    assert status == 422
    assert ">Here</textarea>" in body
    assert 'value="a b"' in body
    assert re.search(r'id="tag-0"[^>]*aria-invalid="true"[^>]*aria-describedby="tag-0-says"', body)
    assert re.search(r'name="public" value="yes" checked', body)
    status, body, _ = await post(pages, "/datasets", form | {"act": "rows"}, token)
    assert (status, body.count("data-row")) == (200, 1 + editing.MORE_ROWS + 1)  # and the empty one


async def test_a_form_that_is_sent_twice_makes_one_dataset(pages: House) -> None:
    token = pages.services.token()
    form = {"name": "Roof", "rows": "0", "_once": "0123456789abcdefghij"}
    places = {(await post(pages, "/datasets", form, token))[2] for _ in range(2)}
    assert len(places) == len(pages.services.datasets) == 1


async def test_who_comes_second_sees_what_is_there_now(pages: House) -> None:
    token = pages.services.token()
    made = await pages.dataset(token)
    form = {"name": "Mine", "rows": "0", "version": "1"}
    path = f"/datasets/{made['id']}/edit"
    assert (await post(pages, path, form | {"name": "Theirs"}, token))[0] == 303
    status, body, _ = await post(pages, path, form, token)
    assert status == 412
    assert "Somebody changed this dataset" in body
    assert "Name: <strong>Mine</strong>" in body
    assert 'value="Theirs"' in body
    assert 'name="version" value="2"' in body
    asked, _ = pages.services.last(ChangeDataset)
    assert asked.if_version == 1


def test_what_somebody_wanted_is_told_in_words() -> None:
    now = editing.of(DATASET)
    typed = Draft(
        name="Roof",
        description="new",
        public=True,
        rows=(Row("temp", "Temperature", "K", known=True), Row("wind", unit="m/s")),
    )
    assert editing.differences(typed, now) == [
        ("Description", "new"),
        ("Who can see it", "everybody"),
        ("Variable", "temp (Temperature, K)"),
        ("Variable", "wind (m/s)"),
    ]
    assert editing.differences(Draft(name="Roof"), now) == [("Retired", "temp")]


# -- files


def test_the_address_of_a_file_says_what_was_chosen() -> None:
    given = {"time_column": " date ", "time_format": "%Y %H", "timezone": "+01:00"}
    base = f"/v1/datasets/{DATASET.id}/readings"
    assert transfer.file_path(DATASET, "csv", given, {"start": "2026-01-01T00:00:00.000000Z"}) == (
        f"{base}.csv?start=2026-01-01T00%3A00%3A00.000000Z&time_column=date"
        "&time_format=%25Y+%25H&timezone=%2B01%3A00"
    )
    assert transfer.file_path(DATASET, "ndjson", given, {}) == f"{base}.ndjson?timezone=%2B01%3A00"
    assert transfer.file_path(DATASET, "csv", {}, {}) == f"{base}.csv"


async def test_an_export_that_cannot_be_is_said_before_it_begins(pages: House) -> None:
    token = pages.services.token()
    made = await pages.dataset(token)
    path = f"/datasets/{made['id']}/export"
    status, body = await get(pages, f"{path}?format=csv&timezone=Nowhere&time_format=%25Q", token)
    assert status == 422
    assert "IANA name" in body
    assert "no form of a time" in body
    answer = await pages.request(
        "GET", f"{path}?format=csv&range=all", token=token, headers=HTML, allow_redirects=False
    )
    assert answer.headers["Location"] == f"/v1/datasets/{made['id']}/readings.csv"


async def test_a_piece_of_text_is_stored_as_it_was_written(pages: House) -> None:
    token = pages.services.token()
    made = await pages.dataset(token)
    path = f"/datasets/{made['id']}/import"
    form = {"format": "csv", "body": "at,temp\r\n2026-01-01T00:00:00Z,22.50\r\n", "timezone": "UTC"}
    status, _, place = await post(pages, path, form, token)
    assert (status, place) == (303, f"/datasets/{made['id']}")
    asked, _ = pages.services.last(WriteReadings)
    assert asked.body == b"at,temp\n2026-01-01T00:00:00Z,22.50"
    status, body, _ = await post(pages, path, {"format": "csv", "body": " \n"}, token)
    assert status == 422
    lines = [FieldError(path="2", code="bad_time", message="never is no time")]
    pages.services.failing[WriteReadings.topic] = Refusal(code="nothing_stored", status=422, errors=lines)
    status, body, _ = await post(pages, path, form, token)
    assert status == 422
    assert "0 readings stored, 1 line refused" in body
    assert "never is no time" in body
    assert "22.50" in body
