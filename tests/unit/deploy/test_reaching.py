"""Who is let in from where, what is said about it, and what a closed terminal means."""

from __future__ import annotations

import os
import pty
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from deploy.cli.errors import Stopped
from deploy.cli.trust import trust
from deploy.local.errors import Failure
from deploy.local.instance import Instance
from deploy.local.ports import Ports
from deploy.local.reaching import check, elsewhere, from_here, is_open, is_set_up, listen
from deploy.local.servers import Servers
from deploy.local.services import Addresses, Services, base_environment
from deploy.local.settings import load
from tests.unit.gateway.certificates import Pair, make_pair

ROOT = Path(__file__).parents[3]


def instance(root: Path, **given: str) -> Instance:
    """One with these settings."""
    return Instance(load(root, {f"POSTHOUSE_{name}": value for name, value in given.items()}), root)


def services(root: Path, **given: str) -> Services:
    """Those of a checkout with a gateway alone."""
    (root / "services/gateway").mkdir(parents=True, exist_ok=True)
    (root / "services/gateway/__main__.py").touch()
    return Services(instance(root, **given), Ports(root / "ports.json"), Addresses(), "key", {})


@pytest.fixture
def pair(tmp_path: Path) -> Pair:
    return make_pair(tmp_path, "pair")


def free_port() -> str:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return str(server.getsockname()[1])


def test_by_default_nobody_elsewhere_gets_in(tmp_path: Path) -> None:
    web = services(tmp_path)
    assert web.web_host == "127.0.0.1"
    assert (is_open(web.web_host), elsewhere(web.web_url, web.web_host)) == (False, "")


def test_one_setting_opens_web_and_mqtt_and_nothing_else(tmp_path: Path) -> None:
    opened = instance(tmp_path, LISTEN="0.0.0.0")
    rabbit = Servers(opened, Ports(tmp_path / "ports.json"), "key").rabbit
    assert rabbit is not None
    ports = rabbit.ports
    assert [line for line in rabbit._config((4,)).splitlines() if "0.0.0.0" in line] == [
        f"mqtt.listeners.tcp.1 = 0.0.0.0:{ports.mqtt}"
    ]
    assert rabbit.mqtt_url == f"mqtt://127.0.0.1:{ports.mqtt}"
    assert services(tmp_path, LISTEN="0.0.0.0").web_host == "0.0.0.0"


def test_each_of_the_two_has_a_finer_setting(tmp_path: Path) -> None:
    given = {"LISTEN": "::", "HOST": "127.0.0.1", "MQTT_HOST": "::1"}
    assert services(tmp_path, **given).web_url.startswith("http://127.0.0.1:")
    rabbit = Servers(instance(tmp_path, **given), Ports(tmp_path / "ports.json"), "key").rabbit
    assert rabbit is not None
    assert rabbit.mqtt_url == f"mqtt://[::1]:{rabbit.ports.mqtt}"


def test_all_addresses_of_ipv6_are_those_of_ipv4_too() -> None:
    with listen("::", 0, 1) as server:
        port = server.getsockname()[1]
        for host in ("127.0.0.1", "::1"):
            socket.create_connection((host, port)).close()
    assert from_here("::") == "127.0.0.1"


def test_an_address_for_others_is_told_when_there_is_one() -> None:
    assert elsewhere("https://192.0.2.9:8443", "192.0.2.9") == "https://192.0.2.9:8443"
    assert elsewhere("http://[fd00::9]:80", "fd00::9") == "http://[fd00::9]:80"
    found = elsewhere("http://127.0.0.1:8080", "0.0.0.0")
    assert found == "" or found.endswith(":8080")


def test_what_nobody_could_be_reached_with_is_said_before_anything_starts(tmp_path: Path, pair: Pair) -> None:
    other = make_pair(tmp_path, "other")
    cert, key = str(pair.cert), str(pair.key)
    wrong: list[tuple[dict[str, str], str]] = [
        ({"LISTEN": "203.0.113.1"}, "POSTHOUSE_LISTEN: nothing can listen on '203.0.113.1' here"),
        ({"LISTEN": "everywhere.invalid"}, "POSTHOUSE_LISTEN: nothing can listen"),
        ({"MQTT_HOST": "203.0.113.1"}, "POSTHOUSE_MQTT_HOST: nothing can listen"),
        ({"TLS_CERT": "none.pem"}, f"POSTHOUSE_TLS_CERT: {tmp_path}/none.pem cannot be read: No such file"),
        ({"TLS_CERT": cert, "TLS_KEY": "none"}, f"POSTHOUSE_TLS_KEY: {tmp_path}/none cannot be read"),
        ({"TLS_CERT": cert, "TLS_KEY": str(other.key)}, "cannot be used for TLS: KEY_VALUES_MISMATCH"),
        ({"TLS_CERT": cert}, "cannot be used for TLS"),
        ({"TLS_KEY": key}, "POSTHOUSE_TLS_KEY is for use with POSTHOUSE_TLS_CERT"),
        ({"HTTP_PORT": "8081"}, "POSTHOUSE_HTTP_PORT is for use with POSTHOUSE_TLS_CERT"),
    ]
    for given, words in wrong:
        with pytest.raises(Failure, match=words.replace("(", "\\(")) as failure:
            check(instance(tmp_path, **given))
        assert "\n" not in failure.value.reason
    check(instance(tmp_path))
    check(instance(tmp_path, TLS_CERT=cert, TLS_KEY=key))


def test_gateways_are_given_both_doors_and_whole_paths(tmp_path: Path, pair: Pair) -> None:
    plain = free_port()
    web = services(tmp_path, TLS_CERT="pair.pem", TLS_KEY="pair.key", HTTP_PORT=plain)
    doors = web.open_doors()
    try:
        assert [door.getsockname()[1] for door in doors] == [web.web_port, int(plain)]
        (gateway,) = web.programs(*(door.fileno() for door in doors))
        assert gateway.fds == tuple(door.fileno() for door in doors)
        assert gateway.env["POSTHOUSE_HTTP_LISTEN_FD"] == str(doors[1].fileno())
        assert (gateway.env["POSTHOUSE_TLS_CERT"], gateway.env["POSTHOUSE_TLS_KEY"]) == (
            str(pair.cert),
            str(pair.key),
        )
        assert gateway.address == f"https://127.0.0.1:{web.web_port}"
    finally:
        for door in doors:
            door.close()


def test_without_plain_http_there_is_one_door(tmp_path: Path) -> None:
    web = services(tmp_path)
    (door,) = web.open_doors()
    (gateway,) = web.programs(door.fileno())
    assert "POSTHOUSE_HTTP_LISTEN_FD" not in gateway.env
    door.close()


def test_a_gateway_that_does_not_tell_is_no_reason_to_fail() -> None:
    assert is_set_up(f"http://127.0.0.1:{free_port()}") is None


def test_a_command_trusts_the_certificate_of_our_own_port_and_no_other(tmp_path: Path, pair: Pair) -> None:
    own = {"POSTHOUSE_URL": "https://127.0.0.1:1", "POSTHOUSE_TLS_CERT": str(pair.cert)}
    context = trust("https://127.0.0.1:1/", own)
    assert not isinstance(context, bool)
    assert len(context.get_ca_certs()) == 1
    assert trust("https://posthouse.example", own) is True
    assert trust("http://127.0.0.1:1", {"POSTHOUSE_URL": "http://127.0.0.1:1"}) is True
    with pytest.raises(Stopped, match="POSTHOUSE_TLS_CERT"):
        trust("https://127.0.0.1:1", own | {"POSTHOUSE_TLS_CERT": str(tmp_path / "none")})


def test_settings_of_the_environment_keep_their_place(tmp_path: Path) -> None:
    env = base_environment(instance(tmp_path, TLS_CERT="/etc/ssl/posthouse.pem"), "key")
    assert env["POSTHOUSE_TLS_CERT"] == "/etc/ssl/posthouse.pem"
    assert "POSTHOUSE_TLS_KEY" not in env


WAITS = """
import asyncio, fcntl, sys, termios
if sys.argv[1] == "terminal":
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)
from deploy.local.up import _signals
async def main():
    end = _signals(lambda: print("again", flush=True))
    print("ready", flush=True)
    await end.wait()
    print("end", flush=True)
asyncio.run(main())
"""


@contextmanager
def waiting(where: str, stdin: int) -> Iterator[subprocess.Popen[str]]:
    """A process that waits for signals as the launcher does."""
    command = [sys.executable, "-c", WAITS, where]
    with subprocess.Popen(
        command, stdin=stdin, stdout=subprocess.PIPE, text=True, start_new_session=True, cwd=ROOT
    ) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == "ready\n"
        yield child
        child.kill()


def test_without_a_terminal_a_hangup_means_to_read_the_certificate_again() -> None:
    with waiting("nowhere", subprocess.DEVNULL) as child:
        for _ in range(2):
            child.send_signal(signal.SIGHUP)
            assert child.stdout is not None
            assert child.stdout.readline() == "again\n"


def test_a_closed_terminal_ends_what_was_started_there() -> None:
    ours, theirs = pty.openpty()
    with waiting("terminal", theirs) as child:
        assert child.stdout is not None
        child.send_signal(signal.SIGHUP)
        assert child.stdout.readline() == "again\n"
        os.close(theirs)
        os.close(ours)
        assert child.stdout.readline() == "end\n"
