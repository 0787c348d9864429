"""The short way answers what aiohttp's way answers, byte for byte but for ids and dates."""

from __future__ import annotations

import asyncio
import gc
import re

import pytest

from services.gateway.http.connection import cut
from services.gateway.http.short_way import MOST_PATHS, Exchange, KnownPaths
from shared.bus.requests import OutcomeUnknown, ServiceFailed, Unavailable
from shared.errors import Conflict, TooMany
from shared.vault import Vault
from tests.unit.gateway.door import House, open_house, read_answer, watched_short_way

BODY = b'{"values": {"t": 22.5}}'
JSON = "Content-Type: application/json"
_CHANGING = re.compile(
    rb"(X-Request-Id|traceparent|Date|Connection|Content-Length): [^\r]*\r\n|\"request_id\":\"\w+\""
    rb"|[0-9a-z]+-[0-9a-f]{32}-[0-9a-f]{16}|\"entry\":\d+",
    re.IGNORECASE,
)


@pytest.fixture
def taken(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """For each request that was looked at, whether it went the short way."""
    return watched_short_way(monkeypatch)


async def both(house: House, method: str, path: str, *headers: str, body: bytes = b"") -> tuple[bytes, bytes]:
    """The whole answers of both ways, without what differs from request to request."""
    lines = [
        f"{method} {path} HTTP/1.1",
        "Host: x",
        *headers,
        *([f"Content-Length: {len(body)}"] if body else []),
    ]
    plain = "\r\n".join(lines).encode() + b"\r\n\r\n" + body
    longer = plain.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n", 1)
    answers = []
    for data in (longer, plain):
        reader, writer = await asyncio.open_connection("127.0.0.1", house.door.port)
        writer.write(data)
        head = await reader.readuntil(b"\r\n\r\n")
        length = re.search(rb"Content-Length: (\d+)", head)
        answers.append(head + await reader.readexactly(int(length[1]) if length else 0))
        writer.close()
    long, short = (_sorted(_CHANGING.sub(b"", answer)) for answer in answers)
    return long, short


def _sorted(answer: bytes) -> bytes:
    head, _, body = answer.partition(b"\r\n\r\n")
    status, *lines = head.split(b"\r\n")
    return b"\r\n".join([status, *sorted(lines)]) + b"\r\n\r\n" + body


async def known(house: House) -> tuple[str, str]:
    """A token the gateway knows, and the path of a dataset's readings it has seen."""
    token = f"Authorization: Bearer {house.services.token()}"
    made = await house.dataset(token.rpartition(" ")[2])
    path = f"/v1/datasets/{made['id']}/readings"
    await both(house, "POST", path, token, JSON, body=BODY)
    await both(house, "GET", path, token)
    return token, path


CASES = [
    ("POST", "", (), BODY),
    ("POST", "?source=a&position=3", (), BODY),
    ("POST", "?position=-1&strange=1", (), BODY),
    ("POST", "", ("Prefer: respond-async",), BODY),
    ("POST", "", ("Prefer: wait=2, handling=strict",), BODY),
    ("POST", "", ("Idempotency-Key: " + "x" * 256,), BODY),
    ("GET", "?limit=2", (), b""),
    ("GET", "?limit=0&start=yesterday&nope=1", (), b""),
    ("GET", "?limit=%ff", (), b""),
    ("GET", "", ("Origin: https://example.org",), b""),
    ("GET", "", ("X-Request-Id: mine",), b""),
]


async def test_nothing_stays_of_an_answered_request(house: House, taken: list[bool]) -> None:
    """Without a search for cycles: a gateway held the bodies of its last thousands of requests, 400 MB."""
    token, path = await known(house)
    reader, writer = await asyncio.open_connection("127.0.0.1", house.door.port)
    gc.collect()
    gc.disable()
    try:
        for headers in ((), ("Prefer: respond-async",), ("Idempotency-Key: " + "x" * 256,)):
            lines = (
                f"POST {path} HTTP/1.1",
                "Host: x",
                token,
                JSON,
                *headers,
                f"Content-Length: {len(BODY)}",
            )
            taken.clear()
            writer.write("\r\n".join(lines).encode() + b"\r\n\r\n" + BODY)
            await read_answer(reader)
            assert taken == [True]
        await asyncio.sleep(0.01)
        assert [one for one in gc.get_objects() if isinstance(one, Exchange)] == []
    finally:
        gc.enable()
        writer.close()


@pytest.mark.parametrize(("method", "query", "headers", "body"), CASES)
async def test_both_ways_answer_the_same(
    house: House, taken: list[bool], method: str, query: str, headers: tuple[str, ...], body: bytes
) -> None:
    token, path = await known(house)
    kind = (JSON,) if body else ()
    long, short = await both(house, method, path + query, token, *kind, *headers, body=body)
    assert taken[-2:] == [False, True]
    assert long == short


@pytest.mark.parametrize(
    "failure",
    [
        Unavailable("away"),
        OutcomeUnknown(),
        ServiceFailed("bug"),
        Conflict("twice"),
        TooMany("slower", retry_after=7),
        ValueError("a bug in the gateway"),
    ],
)
async def test_failures_are_told_the_same(house: House, taken: list[bool], failure: Exception) -> None:
    token, path = await known(house)
    house.services.failing["ingest.write_readings"] = failure
    long, short = await both(house, "POST", path, token, JSON, "Idempotency-Key: k", body=BODY)
    assert taken[-2:] == [False, True]
    assert long == short


@pytest.mark.parametrize("origins", ["*", "https://example.org https://b.example", ""])
@pytest.mark.parametrize("origin", ["https://example.org", "https://evil.example"])
async def test_origins_are_told_the_same(vault: Vault, taken: list[bool], origins: str, origin: str) -> None:
    async with open_house(vault, cors_origins=origins) as house:
        token, path = await known(house)
        long, short = await both(house, "GET", path, token, f"Origin: {origin}")
        assert taken[-2:] == [False, True]
        assert long == short


async def test_an_answer_without_a_body_is_the_same(house: House, taken: list[bool]) -> None:
    token, _ = await known(house)
    made = await house.dataset(token.rpartition(" ")[2])
    target = f"/v1/datasets/{made['id']}"
    await both(house, "DELETE", target, token)
    long, short = await both(house, "DELETE", target, token)
    assert taken[-1] is True
    assert long == short
    assert long.startswith(b"HTTP/1.1 404")


@pytest.mark.parametrize(
    ("change", "body"),
    [
        ("Expect: 100-continue", b""),
        ("Content-Encoding: gzip", BODY),
        ("Authorization: Bearer unknown", b""),
        ("Content-Type: text/plain", BODY),
    ],
)
async def test_what_is_unusual_goes_the_long_way(
    house: House, taken: list[bool], change: str, body: bytes
) -> None:
    token, path = await known(house)
    own = () if change.startswith("Authorization") else (token,)
    kind = () if change.startswith("Content-Type") or not body else (JSON,)
    await both(house, "POST" if body else "GET", path, *own, *kind, change, body=body)
    assert taken[-2:] == [False, False]


async def test_streams_and_pages_never_go_the_short_way(house: House, token: str, taken: list[bool]) -> None:
    made = await house.dataset(token)
    for path in (f"/v1/datasets/{made['id']}/readings.csv", "/v1/services"):
        first, second = [await house.request("GET", path, token=token) for _ in range(2)]
        assert first.body == second.body
    assert not any(taken[-4:])


async def test_pipelined_requests_are_answered_in_order(house: House, taken: list[bool]) -> None:
    token, path = await known(house)
    reader, writer = await asyncio.open_connection("127.0.0.1", house.door.port)
    for name in ("a", "b", "c"):
        writer.write(f"GET {path} HTTP/1.1\r\nHost: x\r\n{token}\r\nX-Request-Id: {name}\r\n\r\n".encode())
        await writer.drain()
    answers = [await read_answer(reader) for _ in range(3)]
    assert [answer.headers["X-Request-Id"] for answer in answers] == ["a", "b", "c"]
    assert taken[-3:] == [True, True, True]
    writer.close()


async def test_a_thousand_mistakes_in_one_write_are_all_answered(house: House, taken: list[bool]) -> None:
    token, path = await known(house)
    reader, writer = await asyncio.open_connection("127.0.0.1", house.door.port)
    writer.write(f"GET {path}?limit=x HTTP/1.1\r\nHost: x\r\n{token}\r\n\r\n".encode() * 1_000)
    answers = [await read_answer(reader) for _ in range(1_000)]
    assert {answer.status for answer in answers} == {422}
    assert sum(taken) > 500
    writer.close()


async def test_a_second_request_waits_for_the_first(house: House, taken: list[bool]) -> None:
    token, path = await known(house)
    house.services.hold = asyncio.Event()
    reader, writer = await asyncio.open_connection("127.0.0.1", house.door.port)
    head = f"POST {path} HTTP/1.1\r\nHost: x\r\n{token}\r\n{JSON}\r\nContent-Length: {len(BODY)}\r\n"
    writer.write(f"{head}X-Request-Id: first\r\n\r\n".encode() + BODY)
    await house.services.holding.wait()
    assert taken[-1] is True
    writer.write(f"GET {path} HTTP/1.1\r\nHost: x\r\n{token}\r\nX-Request-Id: second\r\n\r\n".encode())
    await asyncio.sleep(0.05)
    house.services.hold.set()
    answers = [await read_answer(reader) for _ in range(2)]
    assert [answer.headers["X-Request-Id"] for answer in answers] == ["first", "second"]
    writer.close()


async def test_a_client_that_closes_its_side_still_hears_the_answer(house: House, taken: list[bool]) -> None:
    token, path = await known(house)
    answer = await house.raw(f"GET {path} HTTP/1.1\r\nHost: x\r\n{token}\r\n\r\n".encode(), finish=True)
    assert (answer.status, taken[-1]) == (200, True)


async def test_a_client_that_goes_is_counted_and_its_call_cancelled(house: House, taken: list[bool]) -> None:
    token, path = await known(house)
    house.services.hold = asyncio.Event()
    _, writer = await asyncio.open_connection("127.0.0.1", house.door.port)
    head = f"POST {path} HTTP/1.1\r\nHost: x\r\n{token}\r\n{JSON}\r\nContent-Length: {len(BODY)}\r\n\r\n"
    writer.write(head.encode() + BODY)
    await house.services.holding.wait()
    assert (taken[-1], house.gateway.meter.in_flight) == (True, 1)
    cut(writer.transport)
    await house.request("GET", "/healthz")  # the loop has turned: the end of the connection was seen
    assert house.gateway.meter.in_flight == 0
    text = (await house.request("GET", "/metrics")).body.decode()
    gone = [line for line in text.splitlines() if 'outcome="gone"' in line or 'status="499"' in line]
    assert [line.rpartition(" ")[2] for line in gone] == ["1.0", "1.0"]


async def test_a_request_under_way_at_the_stop_is_answered_and_told_to_close(
    house: House, taken: list[bool]
) -> None:
    token, path = await known(house)
    house.services.hold = asyncio.Event()
    reader, writer = await asyncio.open_connection("127.0.0.1", house.door.port)
    head = f"POST {path} HTTP/1.1\r\nHost: x\r\n{token}\r\n{JSON}\r\nContent-Length: {len(BODY)}\r\n\r\n"
    writer.write(head.encode() + BODY)
    await house.services.holding.wait()
    assert taken[-1] is True
    stopping = asyncio.create_task(house.door.stop())
    await house.gateway.stopping.wait()
    house.services.hold.set()
    answer = await read_answer(reader)
    assert (answer.status, answer.headers["Connection"]) == (201, "close")
    assert await reader.read() == b""
    await stopping
    writer.close()


def test_only_the_last_paths_are_kept() -> None:
    paths = KnownPaths()
    for number in range(MOST_PATHS + 1):
        paths.add("GET", f"/{number}?query", None, number)  # type: ignore[arg-type]
    assert paths.get("GET", "/0") is None
    assert paths.get("GET", f"/{MOST_PATHS}") == (None, MOST_PATHS)


def test_long_paths_are_not_remembered() -> None:
    paths = KnownPaths()
    for target in (long := "/" + "x" * 300, "/x?" + "x" * 300):
        paths.add("GET", target, None, target)  # type: ignore[arg-type]
    assert paths.get("GET", long) is None
    assert paths.get("GET", "/x")
