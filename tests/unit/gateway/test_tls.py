"""The web port over TLS: the same answers, a certificate that changes meanwhile, and plain HTTP beside it."""

from __future__ import annotations

import asyncio
import socket
import ssl
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import uvloop
from structlog.testing import capture_logs

from services.gateway.http.tls import certificate_of
from shared.contracts.ingest import ExportReadings
from shared.settings import BadSettings
from shared.vault import Vault
from tests.unit.gateway.certificates import Pair, make_pair, name_in
from tests.unit.gateway.door import Answer, House, open_house, read_answer

HSTS = "Strict-Transport-Security"
JSON = "Content-Type: application/json"
Link = tuple[asyncio.StreamReader, asyncio.StreamWriter]


@dataclass
class Encrypted:
    """A gateway with a certificate, and plain HTTP beside it."""

    house: House
    pair: Pair

    async def connect(self, trust: ssl.SSLContext | None = None) -> Link:
        """A connection over TLS."""
        context = trust or self.pair.client()
        return await asyncio.open_connection(
            "localhost", self.house.door.port, ssl=context, family=socket.AF_INET
        )

    async def ask(self, *lines: str, body: bytes = b"", link: Link | None = None) -> Answer:
        """One request over TLS, on a connection of its own or a given one."""
        reader, writer = link or await self.connect()
        writer.write(written(*lines, body=body))
        answer = await read_answer(reader)
        if link is None:
            writer.close()
        return answer

    async def ask_plainly(self, *lines: str, body: bytes = b"") -> Answer:
        """The same over plain HTTP."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.house.door.http_port)
        writer.write(written(*lines, body=body))
        answer = await read_answer(reader)
        writer.close()
        return answer


def written(*lines: str, body: bytes = b"") -> bytes:
    """A request of HTTP/1.1 with a Host of its own, or that which is given."""
    line, *fields = lines
    if not any(field.lower().startswith("host:") for field in fields):
        fields.append("Host: localhost")
    if body:
        fields.append(f"Content-Length: {len(body)}")
    return "\r\n".join([f"{line} HTTP/1.1", *fields]).encode() + b"\r\n\r\n" + body


@asynccontextmanager
async def encrypted(
    vault: Vault, directory: Path, *, is_given: bool = True, **more: Any
) -> AsyncIterator[Encrypted]:
    """On free ports until the end of the block; its sockets are given, as by the launcher, or its own."""
    pair = make_pair(directory, "first")
    with socket.create_server(("127.0.0.1", 0)) as beside, socket.create_server(("127.0.0.1", 0)) as web:
        ports = {"port": web.getsockname()[1], "http_port": beside.getsockname()[1]}
        if is_given:
            ports |= {"listen_fd": web.detach(), "http_listen_fd": beside.detach()}
    async with open_house(vault, tls_cert=str(pair.cert), tls_key=str(pair.key), **ports, **more) as house:
        yield Encrypted(house, pair)


@pytest.fixture
async def open_one(vault: Vault, tmp_path: Path) -> AsyncIterator[Encrypted]:
    async with encrypted(vault, tmp_path) as one:
        yield one


async def reading_path(one: Encrypted, token: str) -> str:
    """Where the readings of a new dataset are."""
    bearer = f"Authorization: Bearer {token}"
    made = await one.ask("POST /v1/datasets", bearer, JSON, body=b'{"name": "Roof"}')
    assert made.status == 201, made
    return f"/v1/datasets/{made.json['id']}/readings"


async def everything_is_answered_as_without(one: Encrypted) -> None:
    """Both ways of a request, a stream, many requests in one write, and a body of a megabyte."""
    bearer = f"Authorization: Bearer {one.house.services.token()}"
    path = await reading_path(one, one.house.services.token())
    link = await one.connect()
    for _ in range(3):  # the second takes the short way
        answer = await one.ask(f"POST {path}", bearer, JSON, body=b'{"values": {"t": 1}}', link=link)
        assert (answer.status, answer.headers[HSTS]) == (201, "max-age=2592000")
    reader, writer = link
    writer.write(written(f"GET {path}?limit=1", bearer) * 200)
    assert [(await read_answer(reader)).status for _ in range(200)] == [200] * 200
    large = b'{"values": {"t": 1}}' + b" " * 900_000
    assert (await one.ask(f"POST {path}", bearer, JSON, body=large, link=link)).status == 201
    writer.write(written(f"GET {path}.csv", bearer))
    assert b"200 OK" in await reader.readuntil(b"\r\n\r\n")
    await reader.readuntil(b"\r\n0\r\n\r\n")
    assert (await one.ask("GET /nowhere", link=link)).headers[HSTS]
    writer.close()


async def test_versions_below_1_2_are_refused_and_http_1_1_is_agreed_on(open_one: Encrypted) -> None:
    trust = open_one.pair.client()
    trust.set_alpn_protocols(["h2", "http/1.1"])
    _, writer = await open_one.connect(trust)
    assert writer.get_extra_info("ssl_object").selected_alpn_protocol() == "http/1.1"
    assert writer.get_extra_info("ssl_object").version() == "TLSv1.3"
    writer.close()
    old = open_one.pair.client()
    old.set_ciphers("ALL:@SECLEVEL=0")
    with pytest.warns(DeprecationWarning, match="TLSv1_1"):
        old.minimum_version = old.maximum_version = ssl.TLSVersion.TLSv1_1
    with pytest.raises((ssl.SSLError, ConnectionResetError)):
        await open_one.connect(old)


def shown_to(link: Link) -> str:
    """The name in the certificate a connection was opened with."""
    return name_in(link[1].get_extra_info("ssl_object").getpeercert(binary_form=True))


async def test_until_when_the_certificate_is_good_is_among_the_figures(open_one: Encrypted) -> None:
    text = (await open_one.ask("GET /metrics")).body.decode()
    (ends,) = (line for line in text.splitlines() if line.startswith("posthouse_certificate_ends"))
    assert float(ends.split()[1]) > time.time()


async def test_a_pair_that_is_broken_never_takes_the_place_of_one_that_works(
    open_one: Encrypted, tmp_path: Path
) -> None:
    trust = open_one.pair.client()
    other = make_pair(tmp_path, "other")
    open_one.pair.cert.write_bytes(other.cert.read_bytes())  # and the key is not there yet
    with capture_logs() as said:
        open_one.house.door.reload()
    assert [(line["event"], line["log_level"]) for line in said] == [("tls_not_reloaded", "error")]
    assert "no pair" in said[0]["reason"]
    link = await open_one.connect(trust)
    assert shown_to(link) == "first"
    link[1].close()


def test_what_cannot_be_used_is_told_in_one_line(tmp_path: Path) -> None:
    good, other = make_pair(tmp_path, "good"), make_pair(tmp_path, "other")
    locked = make_pair(tmp_path, "locked", password=b"sesame")
    wrong: list[tuple[Path | str, Path | str, int, str]] = [
        (tmp_path / "none.pem", good.key, 0, "POSTHOUSE_TLS_CERT: .*none.pem cannot be read: No such file"),
        (good.cert, tmp_path / "none.key", 0, "POSTHOUSE_TLS_KEY: .*none.key cannot be read: No such file"),
        (tmp_path, good.key, 0, "POSTHOUSE_TLS_CERT: .* cannot be read: Is a directory"),
        (good.cert, other.key, 0, "good.pem and .*other.key are no pair to use: KEY_VALUES_MISMATCH"),
        (good.cert, good.cert, 0, "no pair to use"),
        (good.key, good.key, 0, "no pair to use"),
        (locked.cert, locked.key, 0, "the key is encrypted"),
        ("", good.key, 0, "POSTHOUSE_TLS_KEY is for use with POSTHOUSE_TLS_CERT"),
        ("", "", 80, "POSTHOUSE_HTTP_PORT is for use with POSTHOUSE_TLS_CERT"),
    ]
    for cert, key, port, words in wrong:
        with pytest.raises(BadSettings, match=words) as error:
            certificate_of(str(cert), str(key), port)
        assert "\n" not in str(error.value)


def test_one_file_can_hold_both_and_one_that_ends_soon_is_warned_of(tmp_path: Path) -> None:
    pair = make_pair(tmp_path, "short", days=10)
    both = tmp_path / "both.pem"
    both.write_bytes(pair.key.read_bytes() + pair.cert.read_bytes())
    certificate = certificate_of(str(both), "", 0)
    assert certificate is not None
    with capture_logs() as said:
        certificate.tell()
    assert [(line["event"], line["log_level"]) for line in said] == [("tls_certificate", "warning")]


async def test_people_are_sent_on_to_https(open_one: Encrypted) -> None:
    port = open_one.house.door.port
    for line, host, location in (
        ("GET /", "localhost", f"https://localhost:{port}/"),
        ("GET /docs?a=b%20c", "Example.org:8081", f"https://Example.org:{port}/docs?a=b%20c"),
        ("GET //evil.example/x", "h", f"https://h:{port}//evil.example/x"),
        ("GET http://h:1/x?y", "h", f"https://h:{port}/x?y"),
        ("GET /healthz", "[::1]:80", f"https://[::1]:{port}/healthz"),
        ("DELETE /v1/me", "h", f"https://h:{port}/v1/me"),
        ("GET /updates", "h", f"https://h:{port}/updates"),
        ("GET /channels", "h", f"https://h:{port}/channels"),
    ):
        answer = await open_one.ask_plainly(line, f"Host: {host}")
        assert (answer.status, answer.headers.get("Location")) == (308, location)
        assert HSTS not in answer.headers
    answer = await open_one.ask_plainly("POST /v1/sessions", JSON, body=b'{"name": "ann", "password": "x"}')
    assert answer.status == 308
    assert not open_one.house.services.asked


async def test_a_host_that_is_none_is_told_to_use_https(open_one: Encrypted) -> None:
    for host in ("a b", "a/b", "@", ""):
        answer = await open_one.ask_plainly("GET /docs", f"Host: {host}")
        assert (answer.status, answer.json["code"]) in ((403, "https_needed"), (400, "bad_request"))


async def test_the_address_people_are_sent_to_can_be_set(vault: Vault, tmp_path: Path) -> None:
    async with encrypted(vault, tmp_path, public_url="https://data.example/") as one:
        assert (await one.ask_plainly("GET /docs")).headers["Location"] == "https://data.example/docs"


async def test_devices_are_served_without_encryption(open_one: Encrypted) -> None:
    services = open_one.house.services
    bearer = f"Authorization: Bearer {services.token()}"
    made = (await open_one.ask("POST /v1/datasets", bearer, JSON, body=b'{"name": "Roof"}')).json
    path, key = f"/v1/datasets/{made['id']}/readings", f"X-API-Key: {made['write_key']}"
    for _ in range(3):  # the second takes the short way
        answer = await open_one.ask_plainly(f"POST {path}", key, JSON, body=b'{"values": {"t": 1}}')
        assert (answer.status, HSTS in answer.headers) == (201, False)
    for end in ("", "?limit=1", "/latest", ".csv"):
        _, writer = link = await asyncio.open_connection("127.0.0.1", open_one.house.door.http_port)
        writer.write(written(f"GET {path}{end}", f"X-API-Key: {made['read_key']}"))
        assert b" 308 " not in await link[0].readline()
        writer.close()
    for line in (
        "GET /update?field1=1",
        "POST /update.json",
        "GET /channels/1/feeds.json",
        "GET /datasets/update",
    ):
        assert (await open_one.ask_plainly(line)).status == 404  # there will be more at these
    assert (await open_one.ask_plainly(f"GET {path}", bearer)).status == 308
    assert (await open_one.ask_plainly(f"GET /v1/datasets/{made['id']}", key)).status == 308


async def test_a_proxy_that_has_encrypted_is_not_sent_on(vault: Vault, tmp_path: Path) -> None:
    async with encrypted(vault, tmp_path, trusted_proxies="127.0.0.1") as one:
        assert (await one.ask_plainly("GET /healthz", "X-Forwarded-Proto: https")).status == 200
        assert (await one.ask_plainly("GET /healthz", "X-Forwarded-Proto: http")).status == 308


async def test_without_time_to_remember_browsers_are_told_nothing(vault: Vault, tmp_path: Path) -> None:
    async with encrypted(vault, tmp_path, hsts_seconds=0) as one:
        assert HSTS not in (await one.ask("GET /healthz")).headers


async def a_renewed_certificate_is_shown_to_those_who_come_later(one: Encrypted) -> None:
    """A new pair is put in place while a connection is open."""
    link = await one.connect()
    second = make_pair(one.pair.cert.parent, "second")
    second.put_in_place_of(one.pair)
    one.house.door.reload()
    assert (await one.ask("GET /healthz", link=link)).status == 200
    newer = await one.connect(second.client())
    assert (shown_to(link), shown_to(newer)) == ("first", "second")
    for _, writer in (link, newer):
        writer.close()


async def who_does_not_speak_tls_harms_nobody(one: Encrypted) -> None:
    for said in (b"GET / HTTP/1.1\r\n\r\n", b"\x16\x03\x01", b""):
        reader, writer = await asyncio.open_connection("127.0.0.1", one.house.door.port)
        writer.write(said)
        async with asyncio.timeout(10):
            with suppress(ConnectionError):
                await reader.read()
        writer.close()
    assert (await one.ask("GET /healthz")).status == 200


async def who_does_not_read_is_cut(one: Encrypted) -> None:
    ended = asyncio.Event()

    async def endless(_: ExportReadings) -> AsyncIterator[bytes]:
        try:
            while True:
                yield b"x" * 65_536
        finally:
            ended.set()

    one.house.services.parts = endless
    path = await reading_path(one, token := one.house.services.token())
    _, writer = await one.connect()
    writer.write(written(f"GET {path}.csv", f"Authorization: Bearer {token}"))
    async with asyncio.timeout(20):
        await ended.wait()
    writer.transport.abort()


async def stopping_fails_no_request_and_no_handshake(one: Encrypted) -> None:
    services = one.house.services
    services.hold = asyncio.Event()
    bearer = f"Authorization: Bearer {services.token()}"
    silent = await one.connect()
    running = asyncio.create_task(one.ask("POST /v1/datasets", bearer, JSON, body=b'{"name": "a"}'))
    await services.holding.wait()
    handshakes = [asyncio.create_task(one.ask("GET /healthz")) for _ in range(20)]
    await asyncio.sleep(0)
    stopping = asyncio.create_task(one.house.door.stop())
    await one.house.gateway.stopping.wait()
    services.hold.set()
    assert (await running).status == 201
    ended = await asyncio.gather(*handshakes, return_exceptions=True)
    kinds = {answer.status if isinstance(answer, Answer) else type(answer) for answer in ended}
    assert kinds <= {200, ConnectionRefusedError}
    assert await silent[0].read() == b""
    await stopping
    silent[1].close()


LIVES: list[tuple[Callable[[Encrypted], Awaitable[None]], dict[str, Any]]] = [
    (everything_is_answered_as_without, {}),
    (a_renewed_certificate_is_shown_to_those_who_come_later, {}),
    (who_does_not_speak_tls_harms_nobody, {"header_seconds": 0.3}),
    (who_does_not_read_is_cut, {"body_seconds": 0.5, "header_seconds": 5.0}),
    (stopping_fails_no_request_and_no_handshake, {"quiet_seconds": 0.3}),
    (stopping_fails_no_request_and_no_handshake, {"quiet_seconds": 0.3, "is_given": False}),
]


@pytest.mark.parametrize(
    "new_loop", [asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"]
)
@pytest.mark.parametrize(("live", "settings"), LIVES, ids=lambda part: getattr(part, "__name__", ""))
def test_on_either_loop(
    vault: Vault,
    tmp_path: Path,
    live: Callable[[Encrypted], Awaitable[None]],
    settings: dict[str, Any],
    new_loop: Callable[[], asyncio.AbstractEventLoop],
) -> None:
    async def main() -> None:
        async with encrypted(vault, tmp_path, **settings) as one:
            await live(one)

    with asyncio.Runner(loop_factory=new_loop) as runner:
        runner.run(main())
