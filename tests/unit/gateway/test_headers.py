"""Ids, CORS and the other headers of every answer."""

from __future__ import annotations

import re

import pytest

from services.gateway.http.proxies import networks
from shared.contracts.ingest import ListDatasets
from shared.settings import BadSettings
from shared.vault import Vault
from tests.unit.gateway.door import House, open_house

TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


async def test_the_ids_that_were_sent_go_through(house: House, token: str) -> None:
    answer = await house.request(
        "GET", "/v1/datasets", token=token, headers={"X-Request-Id": "mine-7", "traceparent": TRACE}
    )
    _, caller = house.services.last(ListDatasets)
    assert answer.headers["X-Request-Id"] == caller.request_id == "mine-7"
    assert answer.headers["traceparent"] == caller.traceparent
    assert caller.traceparent.split("-")[1] == TRACE.split("-")[1]
    assert caller.traceparent.split("-")[2] != TRACE.split("-")[2]
    assert caller.client == "127.0.0.1"


@pytest.mark.parametrize(
    "bad",
    ["", "00-" + "0" * 32 + "-b7ad6b7169203331-01", TRACE.upper(), TRACE + "-x", "01" + TRACE[2:], "rubbish"],
)
async def test_ids_that_are_none_are_made(house: House, bad: str) -> None:
    answer = await house.request("GET", "/healthz", headers={"X-Request-Id": "a b", "traceparent": bad})
    assert re.fullmatch(r"00-[0-9a-f]{32}-[0-9a-f]{16}-01", answer.headers["traceparent"])
    assert answer.headers["traceparent"] != bad
    assert answer.headers["X-Request-Id"] == answer.headers["traceparent"].split("-")[1]


async def test_a_forwarded_address_is_believed_from_our_proxy_only(vault: Vault) -> None:
    async def client(trusted: str, forwarded: str) -> str:
        async with open_house(vault, trusted_proxies=trusted) as house:
            headers = {"X-Forwarded-For": forwarded}
            await house.request("GET", "/v1/datasets", token=house.services.token(), headers=headers)
            return house.services.last(ListDatasets)[1].client

    assert await client("", "203.0.113.7") == "127.0.0.1"
    assert await client("10.0.0.0/8", "203.0.113.7") == "127.0.0.1"
    assert await client("127.0.0.1 10.0.0.0/8", "1.2.3.4, 203.0.113.7, 10.0.0.9") == "203.0.113.7"
    assert await client("127.0.0.0/8", "1.2.3.4, rubbish") == "127.0.0.1"
    assert await client("127.0.0.0/8 ::1", "2001:db8::1") == "2001:db8::1"
    assert await client("127.0.0.0/8", ",,") == "127.0.0.1"


def test_a_proxy_that_is_no_address_is_a_bad_setting() -> None:
    with pytest.raises(BadSettings, match="POSTHOUSE_TRUSTED_PROXIES"):
        networks("127.0.0.1 proxy.example")


async def test_a_problem_names_the_request(house: House) -> None:
    answer = await house.request("GET", "/nowhere", headers={"X-Request-Id": "mine-8"})
    assert answer.json["request_id"] == answer.headers["X-Request-Id"] == "mine-8"


async def test_any_page_may_read_answers_but_not_with_cookies(house: House) -> None:
    for path in ("/healthz", "/nowhere"):
        answer = await house.request("GET", path, headers={"Origin": "https://app.example"})
        assert answer.headers["Access-Control-Allow-Origin"] == "*"
        assert "Access-Control-Allow-Credentials" not in answer.headers
        assert "Retry-After" in answer.headers["Access-Control-Expose-Headers"]


async def test_a_preflight_lists_the_methods_of_its_path(house: House) -> None:
    asks = {"Origin": "https://app.example", "Access-Control-Request-Method": "POST"}
    answer = await house.request("OPTIONS", "/v1/datasets", headers=asks)
    assert answer.status == 204
    assert answer.headers["Access-Control-Allow-Methods"] == "GET, HEAD, OPTIONS, POST"
    assert "Idempotency-Key" in answer.headers["Access-Control-Allow-Headers"]
    assert (await house.request("OPTIONS", "/nowhere", headers=asks)).status == 404


async def test_only_the_origins_of_the_setting_may_read(vault: Vault) -> None:
    async with open_house(vault, cors_origins="https://a.example https://b.example") as house:
        mine = await house.request("GET", "/healthz", headers={"Origin": "https://b.example"})
        other = await house.request("GET", "/healthz", headers={"Origin": "https://evil.example"})
    assert mine.headers["Access-Control-Allow-Origin"] == "https://b.example"
    assert "Access-Control-Allow-Origin" not in other.headers
    assert mine.headers["Vary"] == other.headers["Vary"] == "Origin"


async def test_what_the_server_is_made_of_is_not_told(house: House) -> None:
    answer = await house.request("GET", "/healthz")
    assert answer.headers["Server"] == "posthouse"
    assert answer.headers["X-Content-Type-Options"] == "nosniff"


async def test_a_client_that_closed_its_side_is_answered(house: House) -> None:
    answer = await house.raw(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n", finish=True)
    assert answer.status == 200


async def test_head_answers_like_get_without_a_body(house: House) -> None:
    got = await house.request("GET", "/healthz")
    head = await house.request("HEAD", "/healthz")
    assert (head.status, head.body) == (200, b"")
    assert head.headers["Content-Length"] == got.headers["Content-Length"]
