"""Two gateways behind HAProxy and nginx, with the very files of deploy/proxy and Debian's programs."""

from __future__ import annotations

import asyncio
import os
import ssl
from collections import Counter
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import WSMsgType, web

from tests.journeys.conftest import ROOT, Posthouse
from tests.journeys.instance import free_port, make_dataset, until_it_is
from tests.servers import required
from tests.unit.gateway.certificates import Pair, make_pair

pytestmark = pytest.mark.timeout(120)

CLIENT = "127.0.0.5"
"""An address of this machine that is no proxy's."""
PROXY = "127.0.0.1"
FORGED = {"X-Forwarded-For": "203.0.113.9", "X-Forwarded-Proto": "http", "Forwarded": "for=203.0.113.9"}
NAMES = ("haproxy", "nginx")
NGINX = """daemon off; pid {directory}/nginx.pid; error_log stderr; {user}
events {{}}
http {{
    access_log off;
    client_body_temp_path {directory}/body; proxy_temp_path {directory}/proxy;
    fastcgi_temp_path {directory}/f; uwsgi_temp_path {directory}/u; scgi_temp_path {directory}/s;
    include {file};
}}
"""


@dataclass
class Running:
    """A process of this test, and how to tell that it serves."""

    command: list[str]
    env: Mapping[str, str]
    log: Path
    url: str
    _child: asyncio.subprocess.Process | None = None

    async def start(self) -> None:
        """Return when it answers."""
        with self.log.open("ab") as log:
            self._child = await asyncio.create_subprocess_exec(
                *self.command, env=self.env, stdout=log, stderr=log, cwd=ROOT
            )

        async def answers() -> bool:
            assert self._child is not None
            assert self._child.returncode is None, self.log.read_text()[-2_000:]
            async with aiohttp.ClientSession() as http, http.get(self.url, allow_redirects=False) as answer:
                return answer.status in (200, 308)

        await until_it_is(answers, f"{self.url} answers", 30)

    async def kill(self) -> None:
        """Without a word."""
        if self._child is not None and self._child.returncode is None:
            self._child.kill()
            await self._child.wait()


@dataclass(frozen=True)
class Proxy:
    """One of the two programs, listening."""

    name: str
    https: int
    http: int
    trust: ssl.SSLContext

    @property
    def url(self) -> str:
        """Where it speaks TLS."""
        return f"https://localhost:{self.https}"

    def client(self, **more: Any) -> aiohttp.ClientSession:
        """Comes from an address of its own, and lies about it."""
        connector = aiohttp.TCPConnector(ssl=self.trust, local_addr=(CLIENT, 0))
        return aiohttp.ClientSession(self.url, connector=connector, headers=FORGED | more)


@dataclass
class Row:
    """Two gateways, and each proxy before both."""

    gateways: list[Running]
    proxies: dict[str, Proxy]
    token: str
    posthouse: Posthouse
    programs: list[Running] = field(default_factory=list)

    @property
    def bearer(self) -> dict[str, str]:
        """The header of the first account."""
        return {"Authorization": f"Bearer {self.token}"}


def shipped(name: str, changes: Mapping[str, str]) -> str:
    """The file we ship, with the places of this test: nothing else of it is changed."""
    text = (ROOT / "deploy/proxy" / {"haproxy": "haproxy.cfg", "nginx": "nginx.conf"}[name]).read_text()
    for ours, theirs in changes.items():
        assert ours in text, ours
        text = text.replace(ours, theirs)
    return text


@asynccontextmanager
async def proxy(
    name: str, directory: Path, pair: Pair, behind: list[int], **more: str
) -> AsyncIterator[Proxy]:
    """One of the programs, with the file we ship, before these two ports of this machine."""
    directory.mkdir()
    both = directory / "both.pem"
    both.write_bytes(pair.cert.read_bytes() + pair.key.read_bytes())
    https, http = free_port(), free_port()
    verb = {"haproxy": "bind :", "nginx": "listen "}[name]
    changes = {
        f"{verb}443 ": f"{verb}{https} ",
        f"{verb}80{'' if name == 'haproxy' else ';'}\n": f"{verb}{http}{'' if name == 'haproxy' else ';'}\n",
        "/etc/ssl/posthouse.pem": str(both),
        "127.0.0.1:8081": f"127.0.0.1:{behind[0]}",
        "127.0.0.1:8082": f"127.0.0.1:{behind[1]}",
    }
    file = directory / "posthouse.conf"
    file.write_text(shipped(name, changes | more))
    program = required(f"POSTHOUSE_TEST_{name.upper()}")
    if name == "haproxy":
        command = [program, "-db", "-f", str(file)]
    else:
        whole = directory / "nginx.conf"
        user = "user root;" if os.geteuid() == 0 else ""
        whole.write_text(NGINX.format(directory=directory, file=file, user=user))
        command = [program, "-p", str(directory), "-c", str(whole), "-e", "stderr"]
    running = Running(command, os.environ, directory / "log", f"http://{PROXY}:{http}/healthz")
    try:
        await running.start()
        yield Proxy(name, https, http, pair.client())
    finally:
        await running.kill()


def gateway(posthouse: Posthouse, directory: Path, number: int) -> Running:
    """Another gateway of a running instance, on a port of its own as on a machine of its own."""
    pid = int((posthouse.directory / "run/gateway.pid").read_text())
    told = (entry.partition("=") for entry in Path(f"/proc/{pid}/environ").read_text().split("\0") if entry)
    port = free_port()
    own = {
        "POSTHOUSE_LISTEN_FD": "",
        "POSTHOUSE_PORT": str(port),
        "POSTHOUSE_OPS_ADDRESS": "",
        "POSTHOUSE_TRUSTED_PROXIES": PROXY,
        "POSTHOUSE_RATE_SIGN_IN": "0",
        "POSTHOUSE_RATE_ANONYMOUS": "0",
    }
    env = {name: value for name, _, value in told} | own
    command = [str(ROOT / ".venv/bin/python"), "-m", "services.gateway"]
    return Running(command, env, directory / f"gateway-{number}.log", f"http://{PROXY}:{port}/readyz")


@pytest.fixture(scope="module")
async def row(
    posthouse: Posthouse, token: str, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Row]:
    """Started once for all tests here."""
    directory = tmp_path_factory.mktemp("proxies")
    gateways = [gateway(posthouse, directory, number) for number in (1, 2)]
    ports = [int(one.url.rpartition(":")[2].partition("/")[0]) for one in gateways]
    pair = make_pair(directory, "posthouse")
    try:
        await asyncio.gather(*(one.start() for one in gateways))
        async with AsyncExitStack() as stack:
            proxies = [
                await stack.enter_async_context(proxy(name, directory / name, pair, ports)) for name in NAMES
            ]
            yield Row(gateways, {one.name: one for one in proxies}, token, posthouse)
    finally:
        for one in gateways:
            await one.kill()


@pytest.mark.parametrize("name", NAMES)
async def test_who_asks_is_seen_through_and_nothing_forged_is_believed(
    row: Row, person: dict[str, str], name: str
) -> None:
    named = {"name": person["POSTHOUSE_NAME"], "password": person["POSTHOUSE_PASSWORD"]}
    async with row.proxies[name].client() as http:
        async with http.post("/v1/sessions", json=named) as answer:
            assert answer.status == 201
            assert answer.headers["Strict-Transport-Security"]
            bearer = {"Authorization": f"Bearer {(await answer.json())['access_token']}"}
        async with http.get("/v1/sessions", headers=bearer) as answer:
            (mine,) = [one for one in (await answer.json())["items"] if one["current"]]
            assert mine["client"] == CLIENT
        for method, path, body in (
            ("GET", "/metrics", None),
            ("POST", "/v1/setup", named | {"email": "a@b.c"}),
        ):
            async with http.request(method, path, json=body) as answer:
                assert answer.status == 403


@pytest.mark.parametrize("name", NAMES)
async def test_a_browser_signs_in_and_its_cookie_is_for_https_alone(
    row: Row, person: dict[str, str], name: str
) -> None:
    named = {"name": person["POSTHOUSE_NAME"], "password": person["POSTHOUSE_PASSWORD"]}
    async with row.proxies[name].client(Origin=row.proxies[name].url) as http:
        async with http.post("/login", data=named, allow_redirects=False) as answer:
            assert answer.status == 303, await answer.text()
            cookies = answer.headers.getall("Set-Cookie")
        assert [one for one in cookies if one.startswith("__Host-posthouse=")]
        assert all("; Secure" in one and "; HttpOnly" in one for one in cookies)
        async with http.get("/v1/me") as answer:
            assert (answer.status, (await answer.json())["name"]) == (200, named["name"])


@pytest.mark.parametrize("name", NAMES)
async def test_devices_are_served_without_encryption_and_people_are_sent_on(row: Row, name: str) -> None:
    made = make_dataset(row.posthouse, row.token, f"plain {name}", "n")
    key = {"X-API-Key": made["write_key"]}
    readings = f"/v1/datasets/{made['id']}/readings"
    async with aiohttp.ClientSession(f"http://localhost:{row.proxies[name].http}") as http:

        async def status(method: str, path: str, **more: Any) -> int:
            async with http.request(method, path, allow_redirects=False, **more) as answer:
                assert "Strict-Transport-Security" not in answer.headers
                if answer.status == 308:
                    assert answer.headers["Location"].startswith("https://localhost")
                    assert answer.headers["Location"].endswith(path)
                return answer.status

        assert await status("POST", readings, json={"values": {"n": 1}}, headers=key) == 201
        assert await status("GET", f"{readings}.csv", headers={"X-API-Key": made["read_key"]}) == 200
        assert await status("GET", "/update?field1=2") == await status("GET", "/datasets/update") == 404
        for path in ("/", "/login?next=/a&b", "/updates", readings, f"/v1/datasets/{made['id']}"):
            assert await status("GET", path) == 308


@pytest.mark.parametrize("name", NAMES)
async def test_what_a_gateway_takes_its_proxy_takes_too(row: Row, name: str) -> None:
    made = make_dataset(row.posthouse, row.token, f"large {name}", "n")
    readings = f"/v1/datasets/{made['id']}/readings"
    padded = b'{"values": {"n": 1}}' + b" " * ((1 << 20) - 20)
    kind = {"Content-Type": "application/json"}
    async with row.proxies[name].client(**row.bearer) as http:
        async with http.post(readings, data=BytesIO(padded), headers=kind) as answer:
            assert answer.status == 201
        async with http.post(readings, data=BytesIO(padded + b" "), headers=kind) as answer:
            assert (answer.status, (await answer.json())["code"]) == (413, "too_large")
        long = {f"X-Long-{number}": "x" * 7_000 for number in range(4)}
        async with http.get("/healthz", headers=long) as answer:
            assert answer.status == 200


@pytest.mark.parametrize("name", NAMES)
async def test_http_2_is_spoken_to_those_who_know_it(row: Row, tmp_path: Path, name: str) -> None:
    cert = tmp_path / "cert.pem"
    (der,) = row.proxies[name].trust.get_ca_certs(binary_form=True)
    cert.write_text(ssl.DER_cert_to_PEM_cert(der))
    child = await asyncio.create_subprocess_exec(
        *("curl", "-sS", "--cacert", cert, "-o", os.devnull, "-w", "%{http_version} %{http_code}"),
        f"{row.proxies[name].url}/healthz",
        stdout=asyncio.subprocess.PIPE,
    )
    assert (await child.communicate())[0] == b"2 200"


@pytest.mark.parametrize("name", NAMES)
async def test_what_is_sent_as_it_happens_is_not_kept_back(row: Row, name: str) -> None:
    async with (
        row.proxies[name].client(**row.bearer) as http,
        http.get("/v1/logs/live", params={"level": "error"}) as answer,
    ):
        assert (answer.status, answer.content_type) == (200, "text/event-stream")
        async with asyncio.timeout(10):
            assert b": following\n\n" in await answer.content.readuntil(b": following\n\n")


class Clients:
    """Clients of one proxy that read, and that write without a key: what was sent may not be repeated."""

    def __init__(self, proxy: Proxy, bearer: Mapping[str, str], path: str) -> None:
        self._proxy, self._bearer, self._path = proxy, bearer, path
        self._stop = False
        self.read = 0
        self.not_read: list[str] = []
        self.written: list[int] = []
        self.perhaps: list[int] = []

    async def run(self) -> None:
        """Eight that read, half of them over connections of their own, and two that write."""
        await asyncio.gather(
            *(self._reading(number % 2 == 0) for number in range(8)), self._writing(), self._writing()
        )

    def stop(self) -> None:
        """After the request that runs."""
        self._stop = True

    async def _reading(self, keep: bool) -> None:
        while not self._stop:
            async with self._proxy.client(**self._bearer) as http:
                while not self._stop:
                    try:
                        async with http.get(f"{self._path}/latest") as answer:
                            if answer.status == 200:
                                self.read += 1
                            else:
                                self.not_read.append(f"{answer.status} {await answer.text()}")
                    except aiohttp.ClientError as error:
                        self.not_read.append(repr(error))
                    if not keep:
                        break

    async def _writing(self) -> None:
        async with self._proxy.client(**self._bearer) as http:
            while not self._stop:
                number = len(self.written) + len(self.perhaps) + 1_000_000
                self.perhaps.append(number)
                try:
                    async with http.post(self._path, json={"values": {"n": number}}) as answer:
                        if answer.status == 201:
                            self.perhaps.remove(number)
                            self.written.append(number)
                except aiohttp.ClientError:
                    pass


async def test_a_gateway_that_is_killed_fails_no_read_and_doubles_no_write(row: Row) -> None:
    made = make_dataset(row.posthouse, row.token, "killed", "n")
    path = f"/v1/datasets/{made['id']}/readings"
    row.posthouse.ask(path, {"values": {"n": 0}}, row.token)
    clients = [Clients(one, row.bearer, path) for one in row.proxies.values()]
    running = [asyncio.create_task(one.run()) for one in clients]

    async def more(number: int) -> None:
        before = [one.read for one in clients]

        async def came() -> bool:
            return all(one.read >= least + number for one, least in zip(clients, before, strict=True))

        await until_it_is(came, f"{number} more were read", 30)

    await more(100)
    await row.gateways[1].kill()
    await more(200)
    await row.gateways[1].start()
    await more(100)
    for one in clients:
        one.stop()
    await asyncio.gather(*running)
    async with (
        aiohttp.ClientSession(row.posthouse.url, headers=row.bearer) as http,
        http.get(f"{path}.csv?variables=n") as answer,
    ):
        lines = (await answer.text()).splitlines()[1:]
    stored = Counter(int(line.split(",")[1]) for line in lines if line)
    for one in clients:
        assert one.not_read == []
        assert len(one.written) > 20
    written = Counter(number for one in clients for number in one.written)
    perhaps = Counter(number for one in clients for number in one.perhaps)
    assert all(count <= 2 for count in stored.values())
    assert stored - written - perhaps == Counter({0: 1})
    assert written - stored == Counter()


# -- WebSocket: Posthouse has no such route yet, so a server that answers at its place stands behind the proxy


async def _echo(request: web.Request) -> web.WebSocketResponse:
    socket = web.WebSocketResponse(heartbeat=None)
    await socket.prepare(request)
    await socket.send_str(
        ", ".join([request.headers["X-Forwarded-Proto"], *request.headers.getall("X-Forwarded-For")])
    )
    async for message in socket:
        if message.type == WSMsgType.TEXT:
            await socket.send_str(message.data)
    return socket


async def _healthy(_: web.Request) -> web.Response:
    return web.Response(text="ok")


@asynccontextmanager
async def stand_in() -> AsyncIterator[int]:
    """A server with a WebSocket at /v1/live."""
    app = web.Application()
    app.add_routes([web.get("/v1/live", _echo), web.get("/readyz", _healthy), web.get("/healthz", _healthy)])
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, PROXY, port := free_port())
    await site.start()
    try:
        yield port
    finally:
        await runner.cleanup()


SHORTER = {
    "haproxy": {"timeout client 45s": "timeout client 1s", "timeout server 45s": "timeout server 1s"},
    "nginx": {
        "proxy_read_timeout 45s": "proxy_read_timeout 1s",
        "keepalive_timeout 60s": "keepalive_timeout 1s",
    },
}


@pytest.mark.parametrize("name", NAMES)
async def test_a_websocket_lives_longer_than_a_request(tmp_path: Path, name: str) -> None:
    pair = make_pair(tmp_path, "posthouse")
    async with (
        stand_in() as one,
        stand_in() as two,
        proxy(name, tmp_path / name, pair, [one, two], **SHORTER[name]) as front,
        front.client() as http,
        http.ws_connect("/v1/live") as socket,
    ):
        assert (await socket.receive_str()) == f"https, 203.0.113.9, {CLIENT}"
        await socket.send_str("at once")
        assert await socket.receive_str() == "at once"
        with pytest.raises(TimeoutError):
            await socket.receive(timeout=2.5)  # silent for longer than any request may be
        await socket.send_str("later")
        assert await socket.receive_str() == "later"
