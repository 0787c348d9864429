"""Debian's Prometheus scrapes a running Posthouse: every target, every rule, every query of the dashboard."""

from __future__ import annotations

import asyncio
import json
import re
import shutil
import subprocess
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4

import aiohttp
import pytest

from deploy.local.prometheus import variable
from tests.journeys.conftest import ROOT, Posthouse
from tests.journeys.instance import free_port, make_dataset, until_it_is
from tests.servers import required

pytestmark = pytest.mark.timeout(90)

HERE = ROOT / "deploy/prometheus"
DASHBOARD = ROOT / "deploy/grafana/dashboard.json"
# What Grafana puts in: as much as two of the broker's own looks at itself, and everything.
FILLED = {"$__rate_interval": "15s", "$service": ".*", "$route": ".*"}
# Of a healthy system without TLS these have nothing to show; their figures have to be known nevertheless.
EMPTY_WHEN_WELL = {"Messages tried again or given up", "Certificate in use"}
LABEL_VALUES = r"label_values\((?P<figure>\w+), (?P<label>\w+)\)"
OURS = re.compile(r"\b(?:posthouse|rabbitmq|process)_[a-z_]+\b(?!=)")


def promtool(*arguments: str, directory: Path = HERE) -> subprocess.CompletedProcess[str]:
    """Run it to its end."""
    program = required(variable("promtool"))
    return subprocess.run(
        [program, *arguments], cwd=directory, capture_output=True, text=True, timeout=60, check=False
    )


def test_every_rule_is_valid_fires_when_it_should_and_is_silent_when_it_should_be() -> None:
    for words in (("check", "rules", "alerts.yml"), ("test", "rules", "alerts_test.yml")):
        done = promtool(*words)
        assert done.returncode == 0, done.stdout + done.stderr
        assert "SUCCESS" in done.stdout


def test_every_rule_is_tested_firing_and_silent() -> None:
    names = re.findall(r"- alert: (\w+)", (HERE / "alerts.yml").read_text())
    tested = (HERE / "alerts_test.yml").read_text().splitlines()
    for name in names:
        lines = [line for line in tested if f'alertname="{name}"' in line]
        assert any("exp_samples: []" in line for line in lines), name
        assert any("value: 1" in line for line in lines), name


def test_what_scrapes_from_another_machine_sends_the_token(tmp_path: Path) -> None:
    for name in ("elsewhere.yml", "alerts.yml"):
        shutil.copy(HERE / name, tmp_path)
    (tmp_path / "token").write_text("figures")
    done = promtool("check", "config", "elsewhere.yml", directory=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    text = (tmp_path / "elsewhere.yml").read_text()
    assert "type: Bearer" in text
    assert "credentials_file: token" in text


class Prometheus:
    """One that runs, asked over its API."""

    def __init__(self, port: int, log: Path, http: aiohttp.ClientSession) -> None:
        self._url = f"http://127.0.0.1:{port}/api/v1/"
        self._http = http
        self.log = log

    async def get(self, path: str, **parameters: str) -> Any:
        """The data of an answer; a mistake in a query fails the test with its reason."""
        async with self._http.get(self._url + path, params=parameters) as answer:
            said = await answer.json()
        assert said["status"] == "success", (parameters, said)
        return said["data"]

    async def series(self, expression: str) -> list[Any]:
        """What an expression has now."""
        found: list[Any] = (await self.get("query", query=expression))["result"]
        return found


@asynccontextmanager
async def load(posthouse: Posthouse, token: str) -> AsyncIterator[None]:
    """A little of everything, until the end of the block."""
    made = make_dataset(posthouse, token, f"watched {uuid4().hex[:6]}", "n")
    readings = f"/v1/datasets/{made['id']}/readings"
    bearer = {"Authorization": f"Bearer {token}"}

    async def ask() -> None:
        async with aiohttp.ClientSession(posthouse.url, headers=bearer) as http:
            while True:
                key = {"Idempotency-Key": uuid4().hex}
                for _ in range(2):  # the second is answered from the inbox
                    async with http.post(readings, json={"values": {"n": 1}}, headers=key) as answer:
                        assert answer.status == 201, await answer.text()
                unknown = f"/v1/datasets/{uuid4()}"
                for path, status in ((f"{readings}/latest", 200), (f"{readings}.csv", 200), (unknown, 404)):
                    async with http.get(path) as answer:
                        assert answer.status == status, await answer.text()
                        await answer.read()
                await asyncio.sleep(0.05)

    asking = asyncio.create_task(ask())
    try:
        yield
    finally:
        assert not asking.done() or asking.exception() is None, asking
        asking.cancel()
        await asyncio.gather(asking, return_exceptions=True)


@asynccontextmanager
async def running(directory: Path) -> AsyncIterator[Prometheus]:
    """Prometheus over a directory as `./posthouse prometheus` makes it, until the end of the block."""
    port, log = free_port(), directory / "prometheus.log"
    with log.open("wb") as output:
        child = await asyncio.create_subprocess_exec(
            required(variable("prometheus")),
            f"--config.file={directory / 'prometheus.yml'}",
            f"--storage.tsdb.path={directory / 'data'}",
            f"--web.listen-address=127.0.0.1:{port}",
            stdout=output,
            stderr=output,
        )
    try:
        async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=10)) as http:
            yield Prometheus(port, log, http)
    finally:
        if child.returncode is None:
            child.terminate()
        await child.wait()


@pytest.fixture(scope="module")
async def prometheus(
    posthouse: Posthouse, token: str, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Prometheus]:
    """Looks every second instead of every fifteen, while there is a little load."""
    directory = tmp_path_factory.mktemp("prometheus")
    said = await asyncio.to_thread(posthouse.run, "prometheus", str(directory))
    assert said.returncode == 0, said.stdout + said.stderr
    assert f"--config.file={directory}/prometheus.yml" in said.stdout
    file = directory / "prometheus.yml"
    file.write_text(re.sub(r"(interval|timeout): 1.s", r"\1: 1s", file.read_text()))
    async with load(posthouse, token), running(directory) as one:

        async def scraped() -> bool:
            targets = (await one.get("targets"))["activeTargets"]
            return len(targets) >= 7 and all(target["health"] == "up" for target in targets)

        await until_it_is(scraped, f"every target is scraped, see {one.log}", 30)
        yield one


async def test_every_process_and_the_broker_are_scraped(prometheus: Prometheus) -> None:
    targets = (await prometheus.get("targets"))["activeTargets"]
    by_job: dict[str, set[str]] = {}
    for target in targets:
        by_job.setdefault(target["labels"]["job"], set()).add(target["labels"]["process"])
    assert by_job == {
        "posthouse": {"gateway", "auth", "chat", "ingest", "worker"},
        "rabbitmq": {"rabbitmq"},
        "rabbitmq_queues": {"rabbitmq"},
    }


async def test_rules_ask_for_figures_that_there_are_and_say_what_to_do(prometheus: Prometheus) -> None:
    async def evaluated() -> bool:
        groups = (await prometheus.get("rules"))["groups"]
        return all(rule["health"] != "unknown" for group in groups for rule in group["rules"])

    await until_it_is(evaluated, "every rule was evaluated", 30)
    groups = (await prometheus.get("rules"))["groups"]
    rules = [rule for group in groups for rule in group["rules"]]
    assert len(rules) >= 20
    known = await names(prometheus)
    for rule in rules:
        assert rule["health"] == "ok", rule
        assert rule["duration"] >= 15, rule["name"]
        assert rule["labels"]["severity"] in ("critical", "warning"), rule["name"]
        assert rule["annotations"].keys() == {"summary", "runbook"}, rule["name"]
        assert all(text.endswith(".") for text in rule["annotations"].values()), rule["name"]
        assert asked_for(rule["query"]) <= known, rule["name"]


async def test_every_query_of_the_dashboard_returns_series(prometheus: Prometheus) -> None:
    left = dict(queries())
    assert len(left) >= 45

    async def all_returned() -> bool:
        for name, expression in list(left.items()):
            if await prometheus.series(expression):
                del left[name]
        return {title for title, _ in left} <= EMPTY_WHEN_WELL

    try:
        await until_it_is(all_returned, "every query returned series", 35)
    except AssertionError:
        pytest.fail(f"nothing came for {left}")
    known = await names(prometheus)
    for expression in left.values():
        assert asked_for(expression)
        assert asked_for(expression) <= known


def queries() -> Iterator[tuple[tuple[str, str], str]]:
    """Title and letter of each query of the dashboard, and the query as Grafana would send it."""
    for panel in json.loads(DASHBOARD.read_text())["panels"]:
        for target in panel.get("targets", ()):
            expression = target["expr"]
            for name, value in FILLED.items():
                expression = expression.replace(name, value)
            assert "$" not in expression, f"{panel['title']} uses a variable this test does not know"
            yield (f"{panel['title']}", f"{panel['id']}{target['refId']}"), expression


async def names(prometheus: Prometheus) -> set[str]:
    """Every figure that some target offers, with or without a value now."""
    return {*await prometheus.get("metadata"), *await prometheus.get("label/__name__/values")}


def asked_for(expression: str) -> set[str]:
    """The figures an expression names; a histogram has three series under its own."""
    return {re.sub(r"_(bucket|count|sum)$", "", name) for name in OURS.findall(expression)}


async def test_figures_say_what_the_load_did(prometheus: Prometheus) -> None:
    for expression in (
        'posthouse_repeats_total{service="ingest"} > 2',
        'posthouse_frames_total{topic="ingest.write_readings", ending="done"} > 2',
        'sum(posthouse_database_connections{service="ingest", state=~"busy|idle"}) > 0',
        'posthouse_gateway_calls_total{topic="ingest.get_dataset", outcome="refused"} > 2',
        "min(posthouse_ready) == 1",
    ):

        async def is_so(asked: str = expression) -> bool:
            return bool(await prometheus.series(asked))

        await until_it_is(is_so, expression, 20)


async def test_variables_of_the_dashboard_have_values(prometheus: Prometheus) -> None:
    variables = json.loads(DASHBOARD.read_text())["templating"]["list"]
    asked = [found for one in variables if (found := re.fullmatch(LABEL_VALUES, one.get("definition", "")))]
    assert {f"${found['label']}" for found in asked} == FILLED.keys() - {"$__rate_interval"}
    for found in asked:
        assert await prometheus.get(f"label/{found['label']}/values", **{"match[]": found["figure"]})
