"""A Posthouse of its own for the journeys: real processes, started as a user starts them."""

from __future__ import annotations

import json
import os
import subprocess
import urllib.error
import urllib.request
from collections.abc import AsyncIterator, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from playwright.async_api import Browser, Page

from deploy.local import rabbitmq4
from tests.journeys.browser import Windows, running_browser, sign_in

ROOT = Path(__file__).parents[2]
START_SECONDS = 240


@dataclass(frozen=True)
class Posthouse:
    """A running instance and the command that talks to it."""

    directory: Path

    @property
    def addresses(self) -> dict[str, str]:
        """What `addresses.env` says."""
        lines = (self.directory / "addresses.env").read_text().splitlines()
        return dict(line.split("=", 1) for line in lines if line and not line.startswith("#"))

    @property
    def url(self) -> str:
        """Where the gateway listens."""
        return self.addresses["POSTHOUSE_URL"]

    @property
    def secret_key(self) -> str:
        """The key of this instance."""
        lines = (self.directory / "posthouse.env").read_text().splitlines()
        return next(line.partition("=")[2] for line in lines if line.startswith("POSTHOUSE_SECRET_KEY="))

    @property
    def environment(self) -> dict[str, str]:
        """That of a user who works with this instance, and nothing of the test run's but which RabbitMQ."""
        plain = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith("POSTHOUSE_") or name == rabbitmq4.NAME
        }
        return plain | {"POSTHOUSE_LOCAL": str(self.directory)}

    def ask(self, path: str, body: Any = None, token: str = "", method: str | None = None) -> Any:
        """One request as an app makes it: POST with a body, else GET; raises when it is refused."""
        data = None if body is None else json.dumps(body).encode()
        headers = {"Content-Type": "application/json"} if data else {}
        if token:
            headers["Authorization"] = f"Bearer {token}"
        request = urllib.request.Request(self.url + path, data, headers, method=method)
        with urllib.request.urlopen(request, timeout=30) as answer:
            said = answer.read()
            return json.loads(said) if said else None

    def run(self, *arguments: str, seconds: float = 60, **more: str) -> subprocess.CompletedProcess[str]:
        """`./posthouse <arguments>`; `more` is added to its environment."""
        return subprocess.run(
            [ROOT / "posthouse", *arguments],
            env=self.environment | more,
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=seconds,
            check=False,
        )


@pytest.fixture(scope="session")
def posthouse(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Posthouse]:
    """Started once for all journeys; each works with names of its own."""
    instance = Posthouse(tmp_path_factory.mktemp("instance"))
    try:
        up = instance.run("up", "--detach", seconds=START_SECONDS)
        assert up.returncode == 0, up.stdout + up.stderr
        yield instance
    finally:
        down = instance.run("down", seconds=START_SECONDS)
        assert down.returncode == 0, down.stdout + down.stderr


@pytest.fixture(scope="session")
def person(posthouse: Posthouse) -> dict[str, str]:
    """The first account of the instance, as the commands take it from their environment."""
    password = "correct horse battery"
    with suppress(urllib.error.HTTPError):  # the session of the README may have made it
        posthouse.ask("/v1/setup", {"name": "ann", "email": "ann@example.org", "password": password})
    return {"POSTHOUSE_NAME": "ann", "POSTHOUSE_PASSWORD": password}


@pytest.fixture(scope="module")
def token(posthouse: Posthouse, person: dict[str, str]) -> str:
    """An access token of that account; it is good for ten minutes, less than all journeys take."""
    named = {"name": person["POSTHOUSE_NAME"], "password": person["POSTHOUSE_PASSWORD"]}
    return str(posthouse.ask("/v1/sessions", named)["access_token"])


@pytest.fixture(scope="session")
async def browser() -> AsyncIterator[Browser]:
    """One Chromium for all tests; each opens windows of its own."""
    async with running_browser() as browser:
        yield browser


@pytest.fixture
async def new_page(browser: Browser, posthouse: Posthouse) -> AsyncIterator[Windows]:
    """`await new_page()` opens a window for a new person; see `Windows` for its options."""
    windows = Windows(browser, posthouse.url)
    yield windows
    await windows.close()


@pytest.fixture
async def page(new_page: Windows) -> Page:
    """A window for somebody who is not signed in."""
    return await new_page()


@pytest.fixture
async def signed_in(page: Page, person: dict[str, str]) -> Page:
    """The same window after the first account, an administrator, has signed in."""
    await sign_in(page, person)
    return page
