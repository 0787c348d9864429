"""The description of the API is valid, complete, and what the gateway does."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from threading import Event, Thread
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck
from hypothesis import settings as hypothesis_settings
from schemathesis.specs.openapi.checks import negative_data_rejection, positive_data_acceptance

from services.gateway.http.app import TABLES, make_app
from services.gateway.http.openapi import document
from services.gateway.http.server import Door
from shared.vault import Vault
from tests.servers import SECRET_KEY
from tests.unit.gateway.door import settings
from tests.unit.gateway.services import Services

DOCUMENT = document(TABLES, settings(), "0")
# The live log has no end (tests/unit/gateway/test_live_log.py).
SCHEMA = schemathesis.openapi.from_dict(DOCUMENT).exclude(path="/v1/logs/live")
EXAMPLES = 15
# That a time zone exists and a key is new no schema can say; a mistake made of leaving the token away is
# none here, where every request has one (the mistakes themselves: tests/unit/gateway/test_bad_input.py).
NOT_FROM_A_SCHEMA = [positive_data_acceptance, negative_data_rejection]


@schemathesis.serializer("application/ndjson", "application/x-ndjson")
def ndjson(context: Any, value: Any) -> bytes:
    """What a generator of JSON knows about lines."""
    return value if isinstance(value, bytes) else str(value).encode("utf-8", "replace")


class Behind:
    """A gateway in a thread of its own, for a client that blocks."""

    def __init__(self) -> None:
        self.services = Services(Vault(SECRET_KEY))
        self.port = 0
        self._opened = Event()
        self._thread = Thread(target=lambda: asyncio.run(self._run()))
        self._thread.start()
        self._opened.wait()

    async def _run(self) -> None:
        chosen = settings()
        door = Door(make_app(self.services, self.services.vault, chosen), chosen)
        await door.open()
        self.port = door.port
        self._loop, self._stop = asyncio.get_running_loop(), asyncio.Event()
        self._opened.set()
        await self._stop.wait()
        await door.stop()

    def close(self) -> None:
        """Stop, and wait for it."""
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join()


@pytest.fixture(scope="module")
def behind() -> Iterator[Behind]:
    gateway = Behind()
    yield gateway
    gateway.close()


@SCHEMA.parametrize()
@hypothesis_settings(
    max_examples=EXAMPLES,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=list(HealthCheck),
)
def test_every_operation_does_what_it_says(case: Any, behind: Behind) -> None:
    headers = {"Authorization": f"Bearer {behind.services.token()}"}
    case.headers.pop("X-API-Key", None)
    case.call_and_validate(
        base_url=f"http://127.0.0.1:{behind.port}", headers=headers, excluded_checks=NOT_FROM_A_SCHEMA
    )


def operations() -> Iterator[tuple[str, str, dict[str, Any]]]:
    for path, methods in DOCUMENT["paths"].items():
        for method, operation in methods.items():
            yield path, method, operation


def test_every_route_is_described_once() -> None:
    rows = [row for table in TABLES for row in table.rows]
    assert len(rows) == len(list(operations()))
    names = [operation["operationId"] for _, _, operation in operations()]
    assert len(names) == len(set(names))


@pytest.mark.parametrize(("path", "method", "operation"), list(operations()))
def test_every_operation_says_what_it_needs_and_how_it_fails(
    path: str, method: str, operation: dict[str, Any]
) -> None:
    assert operation["summary"]
    named = {parameter["name"] for parameter in operation["parameters"] if parameter["in"] == "path"}
    assert all(f"{{{name}}}" in path for name in named)
    assert path.count("{") == len(named)
    for status, response in operation["responses"].items():
        assert response["description"]
        if int(status) >= 400 and "/readyz" not in path:
            assert "application/problem+json" in response["content"]
    if method != "get" and "Message:" in operation["description"]:
        assert "Idempotency-Key" in {parameter["name"] for parameter in operation["parameters"]}
