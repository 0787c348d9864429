"""Health, documentation, problems, metrics and the list of services."""

from __future__ import annotations

import ast
import hashlib
import re
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

import services.gateway
from services.gateway.http.app import make_app
from services.gateway.http.operations import SWAGGER
from services.gateway.http.problems import PROBLEMS
from services.gateway.http.server import Door
from shared.contracts.registry import messages
from shared.vault import Vault
from tests.unit.gateway.door import House, open_house, settings
from tests.unit.gateway.services import Services

ROOT = Path(services.gateway.__file__).parents[2]


async def test_health_names_version_and_commit(vault: Vault) -> None:
    async with open_house(vault, commit="abc123") as house:
        answer = await house.request("GET", "/healthz")
    assert answer.status == 200
    assert answer.json["status"] == "ok"
    assert answer.json["commit"] == "abc123"
    assert re.fullmatch(r"\d+\.\d+\.\d+", answer.json["version"])


async def test_readiness_names_what_is_missing(vault: Vault) -> None:
    away: dict[str, str] = {}

    async def missing() -> Mapping[str, str]:
        return away

    chosen = settings()
    door = Door(make_app(Services(vault), vault, chosen, missing=missing), chosen)
    await door.open()
    house = House(door, Services(vault), None)  # type: ignore[arg-type]
    ready = await house.request("GET", "/readyz")
    assert (ready.status, ready.json) == (200, {"ready": True, "missing": {}})
    away["broker"] = "connection refused"
    answer = await house.request("GET", "/readyz")
    assert (answer.status, answer.json["missing"]) == (503, {"broker": "connection refused"})
    await door.stop()


async def test_metrics_count_by_route_method_and_status(house: House, token: str) -> None:
    await house.dataset(token)
    await house.request("GET", "/v1/datasets")
    await house.request("GET", "/nothing/at/all")
    await house.request("BREW", "/healthz")
    text = (await house.request("GET", "/metrics")).body.decode()
    for line in (
        'posthouse_http_requests_total{method="POST",route="/v1/datasets",status="201"} 1.0',
        'posthouse_http_requests_total{method="GET",route="/v1/datasets",status="401"} 1.0',
        'posthouse_http_requests_total{method="GET",route="unmatched",status="404"} 1.0',
        'posthouse_gateway_calls_total{outcome="ok",topic="ingest.create_dataset"} 1.0',
        'posthouse_http_seconds_count{method="POST",route="/v1/datasets"} 1.0',
        "posthouse_http_in_flight 1.0",
        "posthouse_limits_alone 0.0",
        "posthouse_ready 1.0",
    ):
        assert line in text


async def test_services_lists_every_message_with_a_sentence(house: House) -> None:
    answer = await house.request("GET", "/v1/services")
    listed = {topic["topic"]: topic for service in answer.json["items"] for topic in service["topics"]}
    assert listed.keys() == messages().keys()
    assert listed["ingest.write_readings"]["kind"] == "command"
    assert all(topic["text"] for topic in listed.values())


async def test_the_door_says_what_is_behind_it(house: House) -> None:
    links = (await house.request("GET", "/")).json["links"]
    for path in links.values():
        assert (await house.request("GET", path)).status == 200


async def test_the_documentation_asks_no_other_host(house: House) -> None:
    page = await house.request("GET", "/docs")
    assert page.headers["Content-Type"].startswith("text/html")
    assert "default-src 'none'" in page.headers["Content-Security-Policy"]
    for address in re.findall(r'(?:src|href)="([^"]+)"', page.body.decode()):
        assert address.startswith("/")
        assert (await house.request("GET", address)).status == 200, address
    assert b"http" not in (await house.request("GET", "/docs/start.js")).body
    assert (await house.request("GET", "/docs/SHA256SUMS")).status == 404
    assert (await house.request("GET", "/docs/..%2fdocs.html")).status == 404


def test_swagger_ui_is_what_was_published() -> None:
    sums = dict(line.split()[::-1] for line in (SWAGGER / "SHA256SUMS").read_text().splitlines())
    files = {path.name: path for path in SWAGGER.iterdir()}
    assert files.keys() - sums.keys() == {"SHA256SUMS", "README.md"}
    for name, digest in sums.items():
        assert hashlib.sha256(files[name].read_bytes()).hexdigest() == digest, name
    assert "Apache License" in files["LICENSE"].read_text()


@pytest.mark.parametrize("code", PROBLEMS)
async def test_every_problem_has_a_page_that_says_what_to_do(house: House, code: str) -> None:
    text = await house.request("GET", f"/problems/{code}")
    assert PROBLEMS[code].advice in text.body.decode()
    page = await house.request("GET", f"/problems/{code}", headers={"Accept": "text/html"})
    assert page.headers["Content-Type"].startswith("text/html")
    assert page.body.startswith(b"<!doctype html>")


async def test_an_unknown_problem_has_no_page(house: House) -> None:
    assert (await house.request("GET", "/problems/nonsense")).status == 404


def test_every_code_that_is_raised_is_in_the_table() -> None:
    raised = {code: name for path in sources() for code, name in codes(path)}
    assert {"already_set_up", "changed_meanwhile", "too_large"} <= raised.keys()
    assert raised.keys() - PROBLEMS.keys() == set(), raised


def sources() -> Iterator[Path]:
    yield from (ROOT / "services").rglob("*.py")
    yield from (ROOT / "shared").rglob("*.py")


REFUSING = {
    "Refusal",
    "Invalid",
    "Unauthorized",
    "Forbidden",
    "NotFound",
    "Conflict",
    "TooMany",
    "RefusalBody",
}


def codes(path: Path) -> Iterator[tuple[str, str]]:
    """The codes a file raises, written as `code="..."`, as `Turned("...")` or as a class attribute."""
    for node in ast.walk(ast.parse(path.read_text())):
        values: list[ast.expr] = []
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            if node.func.id in REFUSING:
                values = [word.value for word in node.keywords if word.arg == "code"]
            elif node.func.id == "Turned":
                values = node.args[:1]
        elif isinstance(node, ast.ClassDef) and node.name in REFUSING:
            values = [each.value for each in node.body if isinstance(each, ast.Assign) and named_code(each)]
        for value in values:
            if isinstance(value, ast.Constant) and value.value:
                yield str(value.value), path.name


def named_code(node: ast.Assign) -> bool:
    return isinstance(node.targets[0], ast.Name) and node.targets[0].id == "code"
