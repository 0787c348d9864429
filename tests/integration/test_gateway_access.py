"""Every operation on a dataset, from every kind of caller, through HTTP, the bus and PostgreSQL."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from typing import Any

import pytest

from services.gateway.http.app import TABLES, make_app
from services.gateway.http.gateway import GATEWAY
from services.gateway.http.openapi import document
from services.gateway.http.server import Door
from services.gateway.http.table import Route
from shared.bus import topology
from shared.bus.inbox import PostgresInbox
from shared.bus.memory import MemoryBroker
from shared.bus.requester import BusRequester
from shared.bus.requests import Caller
from shared.contracts.auth import ListSigningKeys
from shared.db import Database
from shared.vault import Vault
from tests.integration.ingest_service import served
from tests.servers import Place, cloned_database
from tests.unit.gateway.door import Answer, House, settings
from tests.unit.gateway.services import Services

ROWS = [row for table in TABLES for row in table.rows if "{dataset_id}" in row.path]
NOWHERE = "0193ffff-0000-7000-8000-000000000000"
READING = {"values": {"t": 1}}
BODIES: dict[str, Any] = {
    "ChangeDataset": {"name": "Cellar"},
    "WriteReadings": READING,
    "CorrectReading": READING,
}


class Asking(BusRequester):
    """The bus, with signing keys from this process instead of auth."""

    people: Services

    async def ask(self, message: Any, caller: Caller) -> Any:
        """Keys from here, the rest from the services."""
        if isinstance(message, ListSigningKeys):
            return await self.people.ask(message, caller)
        return await super().ask(message, caller)


@pytest.fixture(scope="module")
async def open_house(database_template: Place, vault: Vault) -> AsyncIterator[House]:
    """A gateway before a real ingest."""
    broker = MemoryBroker([*topology.service_queues("ingest"), *topology.shared_queues()])
    link = broker.link("gateway")
    requester = Asking(link)
    requester.people = Services(vault)
    await link.open_replies(requester.on_reply)
    chosen = settings()
    app = make_app(requester, vault, chosen)
    door = Door(app, chosen)
    async with cloned_database(database_template) as place, AsyncExitStack() as stack:
        db = Database(place.url("ingest"), size=4, application_name="test")
        await stack.enter_async_context(served(broker.link("ingest"), db, PostgresInbox(db), vault))
        await door.open()
        yield House(door, requester.people, app[GATEWAY])
        await door.stop()
    broker.close()


def token(house: House, name: str = "owner", project: str = "default") -> dict[str, str]:
    """The header of a person."""
    return {"Authorization": f"Bearer {house.services.token(sub=name, project=project, roles=[])}"}


def name(row: Route) -> str:
    return f"{row.method} {row.template}"


async def call(house: House, row: Route, dataset: str, headers: dict[str, str]) -> Answer:
    path = row.template
    for part, value in (("dataset_id", dataset), ("entry", "1"), ("kind", "read"), ("source", "a")):
        path = path.replace(f"{{{part}}}", value)
    assert row.message is not None
    kind = row.message.__name__
    query = "?all=true" if kind == "DeleteReadings" else ""
    return await house.request(row.method, path + query, headers=headers, json=BODIES.get(kind))


async def dataset(house: House, row: Route | None = None) -> dict[str, Any]:
    """The owner's private dataset with one reading; deleted when that is what the operation undoes."""
    owner = token(house)
    new = {"name": "Roof", "variables": [{"tag": "t"}]}
    made = await house.request("POST", "/v1/datasets", headers=owner, json=new)
    assert made.status == 201, made
    path = f"/v1/datasets/{made.json['id']}"
    assert (await house.request("POST", f"{path}/readings", headers=owner, json=READING)).status == 201
    if row is not None and name(row).endswith("/restore"):
        assert (await house.request("DELETE", path, headers=owner)).status == 204
    found: dict[str, Any] = made.json
    return found


def without_id(answer: Answer) -> dict[str, Any]:
    return {part: value for part, value in answer.json.items() if part != "request_id"}


@pytest.mark.parametrize("row", ROWS, ids=name)
async def test_the_owner_may(open_house: House, row: Route) -> None:
    made = await dataset(open_house, row)
    answer = await call(open_house, row, made["id"], token(open_house))
    assert answer.status == row.answers, answer


@pytest.mark.parametrize("row", ROWS, ids=name)
async def test_strangers_learn_not_even_that_it_is_there(open_house: House, row: Route) -> None:
    house = open_house
    mine, theirs = await dataset(house, row), await dataset(house)
    strangers = {
        "another person": token(house, "stranger"),
        "the same name in another project": token(house, "owner", "other"),
        "a read key of another dataset": {"X-API-Key": theirs["read_key"]},
        "a write key of another dataset": {"X-API-Key": theirs["write_key"]},
        "nobody": {},
    }
    for who, headers in strangers.items():
        answer = await call(house, row, mine["id"], headers)
        nothing = await call(house, row, NOWHERE, headers)
        assert answer.status in (401, 403, 404), (who, answer)
        assert without_id(answer) == without_id(nothing), who


CHANGING = [row for row in ROWS if row.method != "GET"]


@pytest.mark.parametrize("row", CHANGING, ids=name)
async def test_a_read_key_changes_nothing(open_house: House, row: Route) -> None:
    made = await dataset(open_house, row)
    answer = await call(open_house, row, made["id"], {"X-API-Key": made["read_key"]})
    assert answer.status in (401, 403, 404), answer


@pytest.mark.parametrize("kind", ["read", "write"])
async def test_a_key_ends_when_there_is_a_new_one(open_house: House, kind: str) -> None:
    house = open_house
    made = await dataset(house)
    path = f"/v1/datasets/{made['id']}"
    await house.request("POST", f"{path}/keys/{kind}", headers=token(house))
    for row in ROWS:
        answer = await call(house, row, made["id"], {"X-API-Key": made[f"{kind}_key"]})
        assert answer.status == 401, name(row)


def test_every_described_operation_on_a_dataset_is_in_the_matrix() -> None:
    described = {
        f"{method.upper()} {path}"
        for path, methods in document(TABLES, settings(), "0")["paths"].items()
        for method in methods
        if "{dataset_id}" in path
    }
    assert described == set(map(name, ROWS))
    assert all(row.message is not None for row in ROWS)
