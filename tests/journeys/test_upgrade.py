"""What an earlier version kept goes on in this one.

`upgrade/<commit>.backup.xz` is what `./posthouse backup` wrote beside an instance of that commit, filled
with readings of every kind, and `<commit>.expected.json.xz` what its API had answered. Made with
`.venv/bin/python -m tests.journeys.make_upgrade` in a checkout of it; the token of the first lasts long.
"""

from __future__ import annotations

import asyncio
import json
import lzma
import urllib.error
import urllib.request
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import aio_pika
import pytest

from tests.journeys.conftest import START_SECONDS
from tests.journeys.instance import OwnPosthouse, own_posthouse

pytestmark = pytest.mark.timeout(300)

KEPT = Path(__file__).parent / "upgrade"
COMMITS = sorted(path.name.partition(".")[0] for path in KEPT.glob("*.backup.xz"))


@dataclass(frozen=True)
class Upgraded:
    """An instance that runs this version on what an earlier one kept, and what that had answered."""

    posthouse: OwnPosthouse
    before: dict[str, Any]

    def ask(self, path: str, body: Any = None, **headers: str) -> Any:
        """POST with a body, else GET; text of what is not JSON."""
        data = None if body is None else json.dumps(body).encode()
        head = {"Content-Type": "application/json"} if data else {}
        head |= {name.replace("_", "-"): value for name, value in headers.items()}
        request = urllib.request.Request(self.posthouse.url + path, data, head)
        with urllib.request.urlopen(request, timeout=30) as answer:
            text = answer.read().decode()
        return json.loads(text) if "json" in answer.headers["Content-Type"] else text

    def me(self) -> dict[str, str]:
        """The header of somebody who signs in now, with the password of before."""
        named = {"name": self.before["name"], "password": self.before["password"]}
        return {"Authorization": f"Bearer {self.ask('/v1/sessions', named)['access_token']}"}


@pytest.fixture(scope="module", params=COMMITS)
async def upgraded(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Upgraded]:
    place = tmp_path_factory.mktemp("upgraded")
    file = place / "kept.backup"
    file.write_bytes(lzma.decompress((KEPT / f"{request.param}.backup.xz").read_bytes()))
    before = json.loads(lzma.decompress((KEPT / f"{request.param}.expected.json.xz").read_bytes()))
    empty = OwnPosthouse(place / "instance")
    restored = await asyncio.to_thread(empty.run, "restore", str(file), seconds=START_SECONDS)
    assert restored.returncode == 0, restored.stdout + restored.stderr
    assert request.param in restored.stdout
    async with own_posthouse(place / "instance") as posthouse:
        yield Upgraded(posthouse, before)


def test_passwords_are_known_and_whoever_was_signed_in_still_is(upgraded: Upgraded) -> None:
    headers = [upgraded.me()]
    if token := upgraded.before.get("token"):
        headers.append({"Authorization": f"Bearer {token}"})
    for header in headers:
        items = upgraded.ask("/v1/datasets", **header)["items"]
        assert {one["name"] for one in items} == set(upgraded.before["datasets"])


def test_every_dataset_is_as_it_was(upgraded: Upgraded) -> None:
    me = upgraded.me()
    for facts in upgraded.before["datasets"].values():
        path = f"/v1/datasets/{facts['dataset']['id']}"
        found = upgraded.ask(path, **me)
        assert found == found | facts["dataset"]
        assert upgraded.ask(f"{path}/keys", **me) == facts["keys"]
        ledger = upgraded.ask(f"{path}/ledger", **me)
        assert ledger == ledger | facts["ledger"]
        assert upgraded.ask(f"{path}/readings.csv", **me) == facts["csv"]


def test_keys_open_and_entry_numbers_go_on(upgraded: Upgraded) -> None:
    for facts in upgraded.before["datasets"].values():
        path = f"/v1/datasets/{facts['dataset']['id']}/readings"
        tag = next(one["tag"] for one in facts["dataset"]["variables"] if not one["retired"])
        written = upgraded.ask(path, {"values": {tag: 1.5}}, X_API_Key=facts["keys"]["write_key"])
        [entry] = [one["entry"] for one in written["entries"]]
        assert entry == facts["ledger"]["last_entry"] + 1
        read = upgraded.ask(f"{path}/{entry}", X_API_Key=facts["keys"]["read_key"])
        assert read["values"] == {tag: 1.5}


def test_what_was_deleted_does_not_come_back(upgraded: Upgraded) -> None:
    me = upgraded.me()
    with pytest.raises(urllib.error.HTTPError) as refused:
        upgraded.ask(f"/v1/datasets/{upgraded.before['deleted']}", **me)
    refused.value.close()
    assert refused.value.code == 404


async def test_services_of_others_connect_with_the_password_they_have(upgraded: Upgraded) -> None:
    theirs = upgraded.before["weather"]
    login = urlsplit(theirs["url"])
    now = urlsplit(upgraded.posthouse.addresses["POSTHOUSE_AMQP_URL"])
    connection = await aio_pika.connect(
        host=now.hostname or "",
        port=now.port or 5672,
        login=theirs["name"],
        password=unquote(login.password or ""),
        timeout=10,
    )
    async with connection:
        queue = await (await connection.channel()).get_queue(theirs["name"])
        assert queue.declaration_result.message_count == 0
    assert (await asyncio.to_thread(upgraded.posthouse.run, "account", "list")).stdout.split() == ["weather"]


async def test_nothing_died_of_it(upgraded: Upgraded) -> None:
    done = await asyncio.to_thread(upgraded.posthouse.run, "doctor")
    assert done.returncode == 0, done.stdout
