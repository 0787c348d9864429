"""Ports are free, kept, and out of the range of outgoing connections."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from deploy.local.errors import Failure
from deploy.local.ports import OWN_RANGE, Ports, is_free


def test_a_port_is_kept_for_later_starts(tmp_path: Path) -> None:
    file = tmp_path / "ports.json"
    port = Ports(file).get("amqp")

    assert port in OWN_RANGE
    assert Ports(file).get("amqp") == port


def test_a_kept_port_that_is_taken_is_replaced(tmp_path: Path) -> None:
    file = tmp_path / "ports.json"
    port = Ports(file).get("amqp")

    with socket.create_server(("127.0.0.1", port)):
        assert not is_free(port)
        assert Ports(file).get("amqp") != port


def test_no_two_names_share_a_port(tmp_path: Path) -> None:
    ports = Ports(tmp_path / "ports.json")
    assert len({ports.get(f"service-{number}") for number in range(100)}) == 100


def test_the_first_choice_is_taken_when_it_is_free(tmp_path: Path, unused_tcp_port: int) -> None:
    assert Ports(tmp_path / "1.json").get("web", first=unused_tcp_port) == unused_tcp_port
    with socket.create_server(("127.0.0.1", unused_tcp_port)):
        assert Ports(tmp_path / "2.json").get("web", first=unused_tcp_port) in OWN_RANGE


@pytest.mark.parametrize("text", ["eighty", "0", "65536", "-1"])
def test_a_fixed_port_that_is_none_is_refused(tmp_path: Path, text: str) -> None:
    with pytest.raises(Failure, match="web"):
        Ports(tmp_path / "ports.json").get("web", fixed=text)


def test_a_fixed_port_in_use_is_named(tmp_path: Path, unused_tcp_port: int) -> None:
    with (
        socket.create_server(("127.0.0.1", unused_tcp_port)),
        pytest.raises(Failure, match=f"Port {unused_tcp_port}"),
    ):
        Ports(tmp_path / "ports.json").get("web", fixed=str(unused_tcp_port))


def test_a_file_that_is_no_list_of_ports_is_no_harm(tmp_path: Path) -> None:
    file = tmp_path / "ports.json"
    file.write_text('{"amqp": "a lot"')
    assert Ports(file).get("amqp") in OWN_RANGE
