"""What a person deletes is gone at once, for everybody, and comes back as it was when that is undone."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
from typing import Any

import aiohttp
import pytest

from tests.journeys.conftest import Posthouse

pytestmark = pytest.mark.timeout(300)

PASSWORD = "seven wet umbrellas"
WITHIN_SECONDS = 10.0


@dataclass
class Client:
    """Requests of one person, or with a key."""

    http: aiohttp.ClientSession
    headers: dict[str, str]

    async def ask(self, method: str, path: str, body: Any = None) -> tuple[int, Any]:
        """Status and JSON."""
        async with self.http.request(method, path, json=body, headers=self.headers) as answer:
            is_json = answer.content_type.endswith("json")
            return answer.status, await answer.json() if is_json else await answer.text()

    async def until(self, status: int, path: str) -> float:
        """How long it took until a GET is answered so."""
        began = time.monotonic()
        while (await self.ask("GET", path))[0] != status:
            assert time.monotonic() - began < WITHIN_SECONDS, f"{path} is not answered {status}"
        return time.monotonic() - began


async def signed_in(http: aiohttp.ClientSession, name: str) -> Client:
    status, session = await Client(http, {}).ask("POST", "/v1/sessions", {"name": name, "password": PASSWORD})
    assert status // 100 == 2, session
    return Client(http, {"Authorization": f"Bearer {session['access_token']}"})


async def test_datasets_go_and_come_back_with_their_account(posthouse: Posthouse, token: str) -> None:
    async with aiohttp.ClientSession(posthouse.url) as http:
        admin = Client(http, {"Authorization": f"Bearer {token}"})
        _, invitation = await admin.ask("POST", "/v1/invitations", {"note": "for somebody who leaves"})
        form = {"name": "leaver", "email": "leaver@example.org", "password": PASSWORD}
        made = await Client(http, {}).ask("POST", "/v1/users", form | {"invitation": invitation["secret"]})
        assert made[0] == 201, made
        leaver = await signed_in(http, "leaver")
        made = [await dataset(leaver, name) for name in ("by hand", "kept", "also kept")]
        by_hand, kept, _ = made
        key = Client(http, {"X-API-Key": kept["write_key"]})
        assert (await key.ask("POST", f"{place(kept)}/readings", {"values": {"v": 1}}))[0] == 201
        assert (await leaver.ask("DELETE", place(by_hand)))[0] == 204

        status, said = await leaver.ask("DELETE", "/v1/me", {"password": PASSWORD})
        assert status == 200, said
        took = await Client(http, {}).until(404, place(kept))
        await key.until(401, f"{place(kept)}/readings/latest")
        assert (await key.ask("POST", f"{place(kept)}/readings", {"values": {"v": 2}}))[0] == 401
        assert (await leaver.ask("GET", "/v1/datasets"))[0] == 401
        print(f"gone {took:.3f} s after the answer")

        back = await Client(http, {}).ask("POST", "/v1/me/restore", {"name": "leaver", "password": PASSWORD})
        assert back[0] == 200, back
        leaver = await signed_in(http, "leaver")
        await leaver.until(200, place(kept))
        _, page = await leaver.ask("GET", "/v1/datasets")
        assert {one["name"] for one in page["items"]} == {"kept", "also kept"}
        _, undoable = await leaver.ask("GET", "/v1/datasets?deleted=true")
        assert [one["name"] for one in undoable["items"]] == ["by hand"]
        assert undoable["items"][0]["purge_at"] > undoable["items"][0]["deleted_at"]
        status, written = await key.ask("POST", f"{place(kept)}/readings", {"values": {"v": 2}})
        assert (status, written["entries"][0]["entry"]) == (201, 2)
        assert (await leaver.ask("POST", f"{place(by_hand)}/restore"))[0] == 200
        await asyncio.gather(*(leaver.ask("DELETE", place(one)) for one in made))


async def dataset(client: Client, name: str) -> dict[str, Any]:
    """A public one."""
    form = {"name": name, "public": True, "variables": [{"tag": "v"}]}
    status, made = await client.ask("POST", "/v1/datasets", form)
    assert status == 201, made
    found: dict[str, Any] = made
    return found


def place(made: dict[str, Any]) -> str:
    return f"/v1/datasets/{made['id']}"
