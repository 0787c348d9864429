"""An instance that others may reach: what is open and what never is, and under which certificate."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import socket
import ssl
import struct
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path

import aiohttp
import aiomqtt
import pytest

from deploy.identity import setup_code
from deploy.local.processes import Process
from deploy.local.reaching import own_address
from tests.journeys.conftest import ROOT, Posthouse
from tests.journeys.instance import OwnPosthouse, free_port, own_posthouse, until, until_it_is
from tests.unit.gateway.certificates import Pair, make_pair, name_in

pytestmark = pytest.mark.timeout(300)

HERE = "127.0.0.1"
# Another address of this machine; without a network, one of loopback that nothing listens on by name.
THERE = own_address() or "127.0.0.2"
ELSEWHERE = {"X-Forwarded-For": "203.0.113.7"} if THERE == "127.0.0.2" else {}
ANN = {"name": "ann", "email": "ann@example.org", "password": "correct horse battery"}
LISTENING = "0A"


@dataclass(frozen=True)
class Opened:
    """The instance, its certificate, and its ports."""

    posthouse: OwnPosthouse
    pair: Pair
    web: int
    plain: int
    said: str

    @property
    def mqtt(self) -> int:
        """The port for devices."""
        return int(self.posthouse.addresses["POSTHOUSE_MQTT_URL"].rpartition(":")[2])

    def client(self, host: str = THERE, **headers: str) -> aiohttp.ClientSession:
        """Trusts the certificate, whatever it is called by."""
        trust = self.pair.client()
        trust.check_hostname = False
        connector = aiohttp.TCPConnector(ssl=trust)
        return aiohttp.ClientSession(
            f"https://{host}:{self.web}", connector=connector, headers=ELSEWHERE | headers
        )

    def shown(self) -> str:
        """The name in the certificate that who comes now is shown."""
        trust = ssl.create_default_context()
        trust.check_hostname, trust.verify_mode = False, ssl.CERT_NONE
        with socket.create_connection((HERE, self.web), 5) as plain, trust.wrap_socket(plain) as link:
            return name_in(link.getpeercert(binary_form=True) or b"")


@pytest.fixture(scope="module")
async def opened(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Opened]:
    """Started once for all tests here, as a user starts it who is told how by the documentation."""
    directory = tmp_path_factory.mktemp("opened")
    pair = make_pair(directory, "first")
    web, plain = free_port(), free_port()
    environment = {
        "POSTHOUSE_LISTEN": "0.0.0.0",
        "POSTHOUSE_PORT": str(web),
        "POSTHOUSE_HTTP_PORT": str(plain),
        "POSTHOUSE_TLS_CERT": str(pair.cert),
        "POSTHOUSE_TLS_KEY": str(pair.key),
        "POSTHOUSE_METRICS_TOKEN": "figures",
    }
    (directory / "posthouse.env").write_text(
        "".join(f"{name}={value}\n" for name, value in environment.items())
    )
    async with own_posthouse(directory, "gateway=2", POSTHOUSE_PORT=str(web)) as posthouse:
        said = posthouse.run("up").stdout  # it runs already, and says where
        yield Opened(posthouse, pair, web, plain, said)


def listeners(pids: set[int]) -> Iterator[tuple[str, int]]:
    """Every address and port these processes listen on, as the kernel has it (proc(5))."""
    inodes = set(sockets_of(pids))
    for table in ("tcp", "tcp6"):
        for line in Path(f"/proc/net/{table}").read_text().splitlines()[1:]:
            fields = line.split()
            if fields[3] == LISTENING and fields[9] in inodes:
                address, _, port = fields[1].partition(":")
                yield readable(address), int(port, 16)


def sockets_of(pids: set[int]) -> Iterator[str]:
    for pid in pids:
        for file in Path(f"/proc/{pid}/fd").iterdir():
            try:
                found = re.fullmatch(r"socket:\[(\d+)\]", os.readlink(file))
            except FileNotFoundError:
                continue
            if found:
                yield found[1]


def readable(text: str) -> str:
    """The words of an address are in the order of this machine's bytes."""
    words = [struct.pack("=I", int(text[at : at + 8], 16)) for at in range(0, len(text), 8)]
    return str(ip_address(b"".join(words)))


def family(pids: set[int]) -> set[int]:
    """These processes and all under them."""
    parents = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            parents[int(stat.parent.name)] = int(stat.read_text().rpartition(")")[2].split()[1])
        except (OSError, ValueError):
            continue
    found = set(pids)
    while more := {pid for pid, parent in parents.items() if parent in found} - found:
        found |= more
    return found


def of_instance(posthouse: Posthouse) -> set[int]:
    state = json.loads((posthouse.directory / "run/processes.json").read_text())
    return family({state["supervisor"][0], *(one["process"][0] for one in state["programs"].values())})


def is_reachable(host: str, port: int) -> bool:
    try:
        socket.create_connection((host, port), 5).close()
    except ConnectionRefusedError:
        return False
    return True


async def test_web_and_mqtt_are_open_and_nothing_else_ever(opened: Opened) -> None:
    found = set(listeners(of_instance(opened.posthouse)))
    away = {port for address, port in found if not ip_address(address).is_loopback}
    assert away == {opened.web, opened.plain, opened.mqtt}
    assert len(found) >= 12  # AMQP, management, figures, PostgreSQL, Valkey, epmd, a port of each process
    for port in sorted({port for _, port in found}):
        assert is_reachable(THERE, port) == (port in away), port


async def test_by_default_nothing_is_open(posthouse: Posthouse) -> None:
    found = set(listeners(of_instance(posthouse)))
    assert len(found) >= 12
    assert [one for one in found if not ip_address(one[0]).is_loopback] == []
    assert [port for _, port in found if is_reachable(THERE, port)] == []


async def test_the_first_account_is_made_from_elsewhere_with_what_up_has_printed(opened: Opened) -> None:
    (code,) = re.findall(r"with the code (\S+)", opened.said)
    assert code == setup_code(opened.posthouse.secret_key)
    async with opened.client() as http:
        for given in ({}, {"code": "0000-0000-0000-0000"}):
            async with http.post("/v1/setup", json=ANN | given) as answer:
                assert (answer.status, (await answer.json())["code"]) == (403, "setup_code_needed")
        form = {"name": "eve", "email": "eve@example.org", "password": ANN["password"]}
        form["password_again"] = form["password"]
        for given in ({}, {"code": "0000-0000-0000-0000"}):
            origin = {"Origin": f"https://{THERE}:{opened.web}"}
            async with http.post("/setup", data=form | given, headers=origin) as answer:
                assert answer.status == 422, await answer.text()
        async with http.get("/v1/sign-up") as answer:
            assert not (await answer.json())["set_up"]
        async with http.post("/v1/setup", json=ANN | {"code": code.lower()}) as answer:
            assert answer.status == 201
        async with http.post("/v1/setup", json=ANN | {"code": code}) as answer:
            assert answer.status == 409
    assert "code" not in opened.posthouse.run("up").stdout


async def test_a_browser_signs_in_and_its_cookie_is_for_https_alone(opened: Opened) -> None:
    form = {"name": ANN["name"], "password": ANN["password"]}
    async with (
        opened.client(Origin=f"https://{THERE}:{opened.web}") as http,
        http.post("/login", data=form, allow_redirects=False) as answer,
    ):
        assert answer.status == 303, await answer.text()
        cookies = answer.headers.getall("Set-Cookie")
    assert [one for one in cookies if one.startswith("__Host-posthouse=")]
    assert all("; Secure" in one and "; HttpOnly" in one for one in cookies)


async def test_figures_are_for_those_with_the_token(opened: Opened) -> None:
    async with opened.client() as http:
        async with http.get("/metrics") as answer:
            assert answer.status == 401
        async with http.get("/metrics", headers={"Authorization": "Bearer figures"}) as answer:
            assert answer.status == 200
            assert "posthouse_http_requests" in await answer.text()


async def test_devices_come_by_mqtt_and_by_plain_http_and_people_do_not(opened: Opened) -> None:
    with pytest.raises(
        aiomqtt.MqttError, match="user name or password"
    ):  # the broker answers: nobody is let in unnamed
        async with aiomqtt.Client(THERE, opened.mqtt, identifier="stranger"):
            pass
    async with aiohttp.ClientSession(f"http://{THERE}:{opened.plain}") as http:
        async with http.get("/docs", allow_redirects=False) as answer:
            assert answer.status == 308
            assert answer.headers["Location"] == f"https://{THERE}:{opened.web}/docs"
        async with http.get("/update?field1=1", allow_redirects=False) as answer:
            assert answer.status == 404


async def test_commands_of_this_machine_find_their_way_over_tls(opened: Opened, tmp_path: Path) -> None:
    doctor = opened.posthouse.run("doctor")
    assert "ok     gateway" in doctor.stdout, doctor.stdout + doctor.stderr
    assert "ok     certificate" in doctor.stdout
    file = tmp_path / "temps.csv"
    file.write_text("at,temp\n2026-01-01T00:00:00Z,1\n2026-01-01T00:01:00Z,2\n")
    named = {"POSTHOUSE_NAME": ANN["name"], "POSTHOUSE_PASSWORD": ANN["password"]}
    done = opened.posthouse.run("import", str(file), "--dataset", "temps", **named)
    assert done.returncode == 0, done.stderr
    other = make_pair(tmp_path, "other")
    done = opened.posthouse.run(
        "export",
        "--dataset",
        "temps",
        **named,
        POSTHOUSE_TLS_CERT=str(other.cert),
        POSTHOUSE_TLS_KEY=str(other.key),
    )
    assert done.returncode == 2
    assert "not to be trusted" in done.stderr


class Askers:
    """Clients with connections that stay and with new ones, over TLS, all the time."""

    def __init__(self, opened: Opened) -> None:
        self._opened = opened
        self._stop = False
        self.answered = 0
        self.failed: list[str] = []

    async def run(self) -> None:
        """Until stopped."""
        await asyncio.gather(*(self._ask(number % 2 == 0) for number in range(6)))

    def stop(self) -> None:
        """After the request that runs."""
        self._stop = True

    async def more(self, number: int) -> None:
        """Return when so many more were answered."""
        least = self.answered + number
        await until(lambda: self.answered >= least or self.failed, f"{number} more were answered", 30)

    async def _ask(self, keep: bool) -> None:
        trust = ssl.create_default_context()
        trust.check_hostname, trust.verify_mode = False, ssl.CERT_NONE
        while not self._stop:
            connector = aiohttp.TCPConnector(ssl=trust)
            async with aiohttp.ClientSession(
                f"https://{HERE}:{self._opened.web}", connector=connector
            ) as http:
                while not self._stop:
                    try:
                        async with http.get("/healthz") as answer:
                            self.answered += answer.status == 200
                            if answer.status != 200:
                                self.failed.append(str(answer.status))
                    except aiohttp.ClientError as error:
                        self.failed.append(repr(error))
                    if not keep:
                        break


async def test_a_certificate_is_exchanged_and_a_gateway_stopped_and_nobody_notices(opened: Opened) -> None:
    directory = opened.pair.cert.parent
    first = make_pair(directory / "..", "copy")
    opened.pair.put_in_place_of(first)
    state = json.loads((opened.posthouse.directory / "run/processes.json").read_text())
    launcher = Process.recorded(state["supervisor"])
    assert launcher is not None
    askers = Askers(opened)
    running = asyncio.create_task(askers.run())
    await askers.more(50)

    async def is_shown(name: str) -> bool:
        return {await asyncio.to_thread(opened.shown) for _ in range(6)} == {name}

    make_pair(directory, "second").put_in_place_of(opened.pair)
    launcher.signal(signal.SIGHUP)
    await until_it_is(lambda: is_shown("second"), "the second certificate is shown by both gateways", 20)
    opened.pair.cert.write_text("no certificate")
    launcher.signal(signal.SIGHUP)
    logs = [opened.posthouse.directory / f"logs/{name}.log" for name in ("gateway", "gateway-2")]
    await until(
        lambda: all("tls_not_reloaded" in log.read_text() for log in logs), "both say that it is none"
    )
    assert await is_shown("second")
    refused = opened.posthouse.run("reload")
    assert refused.returncode == 1
    assert "cannot be used for TLS" in refused.stderr
    first.put_in_place_of(opened.pair)
    assert opened.posthouse.run("reload").returncode == 0
    await until_it_is(lambda: is_shown("first"), "the first certificate is shown again", 20)
    ended = opened.posthouse.kill("gateway-2", signal.SIGTERM)
    await opened.posthouse.another("gateway-2", ended)
    await askers.more(50)
    askers.stop()
    await running
    assert askers.failed == []
    assert launcher.alive()


def test_a_certificate_that_cannot_be_used_ends_the_start_in_one_line(tmp_path: Path) -> None:
    posthouse = OwnPosthouse(tmp_path)
    up = posthouse.run(
        "up", "--detach", POSTHOUSE_TLS_CERT="/nowhere/cert.pem", POSTHOUSE_TLS_KEY="/nowhere/key.pem"
    )
    assert up.returncode == 1
    assert "\nPOSTHOUSE_TLS_CERT: /nowhere/cert.pem cannot be read: No such file or directory.\n" in up.stdout
    assert not (tmp_path / "data/postgres").exists()


def test_the_gateway_alone_says_it_in_one_line_too(tmp_path: Path) -> None:
    env = {
        "PATH": os.environ["PATH"],
        "POSTHOUSE_AMQP_URL": "amqp://127.0.0.1:9",
        "POSTHOUSE_SECRET_KEY": "A" * 43,
        "POSTHOUSE_TLS_CERT": str(tmp_path / "none.pem"),
    }
    done = subprocess.run(
        [sys.executable, "-m", "services.gateway"],
        env=env,
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert line.startswith("settings: POSTHOUSE_TLS_CERT: ")
