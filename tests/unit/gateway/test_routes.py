"""What each route asks its service and answers its client."""

from __future__ import annotations

import msgspec
import pytest

from shared.contracts.auth import OpenSession, SetUp
from shared.contracts.ingest import ChangeDataset, DeleteReadings, ExportReadings, ListReadings, WriteReadings
from tests.unit.gateway.door import House

ANN = {"name": "ann", "email": "ann@example.org", "password": "correct horse battery"}


async def test_the_first_account_opens_a_session_and_its_token_opens_the_rest(house: House) -> None:
    answer = await house.request("POST", "/v1/setup", json=ANN)
    assert answer.status == 201
    assert answer.json["roles"] == ["administrator"]
    assert answer.json["created_at"] == "2026-01-31T12:00:00.000000Z"
    assert "password" not in answer.json

    answer = await house.request("POST", "/v1/sessions", json={"name": "ann", "password": ANN["password"]})
    assert answer.status == 201
    assert answer.json["token_type"] == "Bearer"
    assert answer.headers["Cache-Control"] == "no-store"

    answer = await house.request("GET", "/v1/datasets", token=answer.json["access_token"])
    assert answer.json == {"items": [], "next": None}


async def test_passwords_leave_the_gateway_sealed(house: House) -> None:
    await house.request("POST", "/v1/setup", json=ANN)
    await house.request("POST", "/v1/sessions", json={"name": "ann", "password": ANN["password"]})
    for kind in (SetUp, OpenSession):
        message, _ = house.services.last(kind)
        assert ANN["password"].encode() not in msgspec.msgpack.encode(message)


async def test_a_dataset_is_made_with_its_keys_beside_it(house: House, token: str) -> None:
    made = await house.dataset(token)
    assert made["name"] == "Roof"
    assert len(made["read_key"]) == len(made["write_key"]) == 16
    keys = await house.request("GET", f"/v1/datasets/{made['id']}/keys", token=token)
    assert keys.json == {"read_key": made["read_key"], "write_key": made["write_key"]}
    rotated = await house.request("POST", f"/v1/datasets/{made['id']}/keys/write", token=token)
    assert rotated.status == 200
    assert rotated.json["write_key"] != made["write_key"]


async def test_a_change_meant_for_an_older_version_is_refused(house: House, token: str) -> None:
    made = await house.dataset(token)
    path = f"/v1/datasets/{made['id']}"
    read = await house.request("GET", path, token=token)
    assert read.headers["ETag"] == '"1"'
    first = await house.request(
        "PATCH", path, token=token, json={"name": "Cellar"}, headers={"If-Match": '"1"'}
    )
    assert (first.status, first.headers["ETag"], first.json["name"]) == (200, '"2"', "Cellar")
    assert house.services.last(ChangeDataset)[0].if_version == 1
    second = await house.request(
        "PATCH", path, token=token, json={"name": "Attic"}, headers={"If-Match": '"1"'}
    )
    assert (second.status, second.json["code"]) == (412, "changed_meanwhile")
    bad = await house.request("PATCH", path, token=token, json={}, headers={"If-Match": "W/1"})
    assert (bad.status, bad.json["code"]) == (400, "bad_header")


async def test_a_deleted_dataset_answers_204_and_can_come_back(house: House, token: str) -> None:
    path = f"/v1/datasets/{(await house.dataset(token))['id']}"
    gone = await house.request("DELETE", path, token=token)
    assert (gone.status, gone.body) == (204, b"")
    assert (await house.request("GET", path, token=token)).status == 404
    assert (await house.request("POST", f"{path}/restore", token=token)).status == 200


@pytest.mark.parametrize(
    ("content_type", "format"),
    [
        ("application/json", "json"),
        ("application/json; charset=UTF-8", "json"),
        ("application/x-ndjson", "ndjson"),
        ("application/ndjson", "ndjson"),
        ("text/csv; header=present", "csv"),
    ],
)
async def test_readings_go_on_as_they_came(house: House, token: str, content_type: str, format: str) -> None:
    made = await house.dataset(token)
    body = b'{"values": {"t": 22.50}}'
    answer = await house.request(
        "POST",
        f"/v1/datasets/{made['id']}/readings?timezone=Europe/Berlin&source=a&position=7",
        data=body,
        headers={"X-API-Key": made["write_key"], "Content-Type": content_type, "Prefer": "handling=strict"},
    )
    assert answer.status == 201, answer
    assert answer.json == {"entries": [{"entry": 1, "at": "2026-01-31T12:00:00.000000Z"}]}
    assert answer.headers["Preference-Applied"] == "handling=strict"
    message, caller = house.services.last(WriteReadings)
    assert (message.format, message.body, message.strict) == (format, body, True)
    assert (message.timezone, message.source, message.position) == ("Europe/Berlin", "a", 7)
    assert (caller.principal.kind, caller.principal.id) == ("key", made["id"])
    assert caller.principal.scopes == (f"dataset:{made['id']}:write",)


async def test_a_read_key_does_not_write(house: House, token: str) -> None:
    made = await house.dataset(token)
    answer = await house.request(
        "POST", f"/v1/datasets/{made['id']}/readings", json={}, headers={"X-API-Key": made["read_key"]}
    )
    assert (answer.status, answer.json["code"]) == (403, "forbidden")


async def test_a_range_of_readings_is_asked_in_utc(house: House, token: str) -> None:
    made = await house.dataset(token)
    answer = await house.request(
        "GET",
        f"/v1/datasets/{made['id']}/readings?start=2026-01-01T00:00:00&end=2026-02-01T00:00:00%2B01:00"
        "&timezone=Europe/Berlin&variables=t,h&limit=5&order=asc&after=x",
        token=token,
    )
    assert answer.status == 200, answer
    asked, _ = house.services.last(ListReadings)
    assert asked.start.isoformat() == "2025-12-31T23:00:00+00:00"
    assert asked.end.isoformat() == "2026-01-31T23:00:00+00:00"
    assert (asked.variables, asked.limit, asked.order, asked.after) == (("t", "h"), 5, "asc", "x")


async def test_one_reading_is_read_corrected_and_deleted(house: House, token: str) -> None:
    made = await house.dataset(token)
    path = f"/v1/datasets/{made['id']}/readings"
    await house.request("POST", path, token=token, json={"values": {"t": 1}})
    assert (await house.request("GET", f"{path}/1", token=token)).json["entry"] == 1
    assert (await house.request("GET", f"{path}/latest", token=token)).json["entry"] == 1
    corrected = await house.request(
        "PATCH",
        f"{path}/1",
        token=token,
        data=b'{"values": {"t": 22.50}}',
        headers={"Content-Type": "application/json"},
    )
    assert corrected.json["values"] == {"raw": '{"t": 22.50}'}
    assert (await house.request("DELETE", f"{path}/1", token=token)).json == {"deleted": 1}
    assert (await house.request("PATCH", f"{path}/latest", token=token, json={})).status == 405


async def test_clearing_a_dataset_has_to_be_said(house: House, token: str) -> None:
    made = await house.dataset(token)
    path = f"/v1/datasets/{made['id']}/readings"
    unsaid = await house.request("DELETE", path, token=token)
    assert (unsaid.status, unsaid.json["errors"][0]["path"]) == (422, "all")
    both = await house.request("DELETE", f"{path}?all=true&start=2026-01-01T00:00:00Z", token=token)
    assert both.status == 422
    assert (await house.request("DELETE", f"{path}?all=true", token=token)).json == {"deleted": 0}
    assert (await house.request("DELETE", f"{path}?start=2026-01-01T00:00:00Z", token=token)).status == 200
    assert house.services.last(DeleteReadings)[0].end is None


@pytest.mark.parametrize(
    ("name", "kind"), [("csv", "text/csv; charset=utf-8"), ("ndjson", "application/x-ndjson")]
)
async def test_a_file_is_streamed(house: House, token: str, name: str, kind: str) -> None:
    made = await house.dataset(token)
    answer = await house.request(
        "GET", f"/v1/datasets/{made['id']}/readings.{name}?timezone=+01:00", token=token
    )
    assert (answer.status, answer.headers["Content-Type"]) == (200, kind)
    assert answer.headers["Transfer-Encoding"] == "chunked"
    assert answer.body == b"at,t\n2026-01-31T12:00:00.000000Z,1\n"
    message, _ = house.services.last(ExportReadings)
    assert (message.format, message.timezone) == (name, "+01:00")


async def test_what_is_left_to_ask_about_a_dataset(house: House, token: str) -> None:
    made = await house.dataset(token)
    path = f"/v1/datasets/{made['id']}"
    assert (await house.request("GET", f"{path}/ledger", token=token)).json["stored"] == 0
    position = await house.request("GET", f"{path}/imports/sha256:ab", token=token)
    assert position.json == {"source": "sha256:ab", "position": 0}
