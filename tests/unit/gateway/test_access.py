"""Who is let in, for every row of the tables."""

from __future__ import annotations

import pytest

from services.gateway.http.app import TABLES
from services.gateway.http.table import ANYONE, KEY_OR_USER, PUBLIC, USER, Route
from shared.bus.requests import Unavailable
from shared.contracts.auth import ListSigningKeys
from tests.unit.gateway.door import Answer, House

EVERY_ROW = [row for table in TABLES for row in table.rows]
ROWS = [row for row in EVERY_ROW if row.who is not PUBLIC]
NOWHERE = "0193ffff-0000-7000-8000-000000000000"
EXPIRED = {"exp": 1, "iat": 0}


def path_of(row: Route, dataset: str = NOWHERE) -> str:
    filled = row.template
    for name, value in (
        ("dataset_id", dataset),
        ("entry", "1"),
        ("kind", "read"),
        ("service", "chat"),
        ("source", "a"),
        ("name", "x"),
        ("user_id", NOWHERE),
        ("session_id", NOWHERE),
        ("invitation_id", NOWHERE),
    ):
        filled = filled.replace(f"{{{name}}}", value)
    return filled


async def call(house: House, row: Route, dataset: str = NOWHERE, **headers: str) -> Answer:
    return await house.request(row.method, path_of(row, dataset), headers=headers)


def name(row: Route) -> str:
    return f"{row.method} {row.template}"


@pytest.mark.parametrize("row", ROWS, ids=name)
async def test_a_bad_secret_is_worse_than_none(house: House, row: Route) -> None:
    expired = house.services.token(**EXPIRED)
    assert (await call(house, row, Authorization=f"Bearer {expired}")).status == 401
    assert (await call(house, row, **{"X-API-Key": "ZZZZZZZZZZZZZZZZ"})).status == 401


@pytest.mark.parametrize("row", [row for row in ROWS if row.who is not ANYONE], ids=name)
async def test_nobody_is_sent_away_before_any_service_hears_of_it(house: House, row: Route) -> None:
    assert (await call(house, row)).status == 401
    assert house.services.asked == []


@pytest.mark.parametrize("row", [row for row in ROWS if row.who is USER], ids=name)
async def test_a_key_does_not_stand_for_a_person(house: House, row: Route) -> None:
    made = await house.dataset(house.services.token())
    for key in (made["read_key"], made["write_key"]):
        assert (await call(house, row, made["id"], **{"X-API-Key": key})).status == 403
    assert {type(message).__name__ for message, _ in house.services.asked} <= {
        "ListSigningKeys",
        "CreateDataset",
        "ResolveKey",
    }


@pytest.mark.parametrize("row", [row for row in ROWS if row.who is KEY_OR_USER], ids=name)
async def test_a_key_reaches_the_service_as_what_it_is(house: House, row: Route) -> None:
    made = await house.dataset(house.services.token())
    query = "?all=true" if row.method == "DELETE" and "entry" not in row.path else ""
    await house.request(
        row.method,
        path_of(row, made["id"]) + query,
        headers={"X-API-Key": made["read_key"]},
        json={"values": {"t": 1}} if row.accepts else None,
    )
    assert row.message is not None
    _, caller = house.services.last(row.message)
    assert (caller.principal.kind, caller.principal.id) == ("key", made["id"])
    assert caller.principal.scopes == (f"dataset:{made['id']}:read",)


@pytest.mark.parametrize(
    "row", [row for row in EVERY_ROW if row.who is PUBLIC and row.method == "GET"], ids=name
)
async def test_health_and_documentation_do_not_need_auth(house: House, row: Route) -> None:
    house.services.failing[ListSigningKeys.topic] = Unavailable("auth is away")
    token = house.services.token()
    path = row.template.replace("{code}", "invalid").replace("{file}", "start.js")
    assert (await house.request("GET", path, token=token)).status == 200


def test_what_anybody_may_ask_is_a_short_list() -> None:
    changing = {name(row) for row in EVERY_ROW if row.who in (ANYONE, PUBLIC) and row.method != "GET"}
    assert changing == {
        "POST /v1/setup",
        "POST /v1/users",
        "POST /v1/sessions",
        "POST /v1/sessions/refresh",
        "POST /v1/me/restore",
    }
