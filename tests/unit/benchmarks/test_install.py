"""The peers of the bench: everything pinned, everything named, and one that is missing stops no other."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path

import pytest

from benchmarks.install import LOCKS, Installed, attempt, missing
from benchmarks.peers import PEERS, Peer
from deploy.local.console import Console
from deploy.local.errors import Failure

ROOT = Path(__file__).parents[3]
HOME = ROOT / "benchmarks" / "peers"
INSTALLED = Installed(Path("python"), Path("nameko"), Path("node"), Path("wrk"), Path("psql"), missing={})


def pins(runtime: str) -> dict[str, str]:
    """The version of each package that a runtime has."""
    if runtime == "node":
        packages = json.loads((HOME / "package-lock.json").read_text())["packages"]
        return {path.removeprefix("node_modules/"): one["version"] for path, one in packages.items() if path}
    return dict(re.findall(r"(?m)^([\w.-]+)==([\w.]+)", (HOME / LOCKS[runtime]).read_text()))


@pytest.mark.parametrize("runtime", LOCKS)
def test_every_python_package_has_a_hash_and_no_lock_has_an_address(runtime: str) -> None:
    lock = (HOME / LOCKS[runtime]).read_text()
    packages = [part for part in re.split(r"(?m)^(?=[a-z])", lock) if part]
    assert packages
    assert all("--hash=sha256:" in part for part in packages)
    assert not re.search(r"://|@ |file:|--index|--find-links", lock)


def test_every_node_package_has_a_hash_and_none_an_address() -> None:
    packages = json.loads((HOME / "package-lock.json").read_text())["packages"]
    del packages[""]
    assert packages
    assert all(one["integrity"].startswith("sha512-") for one in packages.values())
    assert not any("resolved" in one for one in packages.values())


def test_what_was_asked_for_is_what_was_locked() -> None:
    for runtime, lock in LOCKS.items():
        asked = (HOME / lock).with_suffix(".in").read_text()
        wanted = re.findall(r"(?m)^([\w-]+)(?:\[\w+\])?==([\w.]+)", asked)
        assert wanted
        assert dict(wanted).items() <= pins(runtime).items()
    wanted = json.loads((HOME / "package.json").read_text())["dependencies"]
    assert wanted.items() <= pins("node").items()


@pytest.mark.parametrize("peer", PEERS.values(), ids=lambda peer: peer.name)
def test_a_label_names_the_versions_that_run(peer: Peer) -> None:
    ours = pins(peer.runtime)
    named = re.findall(r"([\w.-]+) (\d+\.\d+\.\d+)", peer.label)
    assert named
    assert {name.lower(): version for name, version in named}.items() <= ours.items()


@pytest.mark.parametrize("peer", PEERS.values(), ids=lambda peer: peer.name)
def test_a_peer_has_a_file_and_its_last_role_serves_http(peer: Peer) -> None:
    assert (HOME / peer.file).is_file()
    assert peer.roles[-1] == "web"
    assert INSTALLED.command(peer, "web", 7)[-3:] == ["web", "--port", "7"]
    assert all(INSTALLED.command(peer, role, 7)[-1] == role for role in peer.roles[:-1])


def test_a_runtime_that_cannot_be_installed_is_missing_with_its_peers_and_stops_no_other() -> None:
    def fails() -> str:
        raise Failure("no network", None)

    assert attempt(Console(), "Nameko", fails) == "no network"
    assert attempt(Console(), "Python", lambda: "ready") == ""
    assert missing({"nameko": "no network"}) == {"nameko_rpc": "no network"}
    assert missing({}) == {}
    assert {"express_pg", "express_amqplib", "express_amqplib_durable"} == missing({"node": "why"}).keys()


def test_a_disk_that_is_full_is_a_reason_too() -> None:
    def fails() -> str:
        raise OSError(28, os.strerror(28))

    assert "No space left" in attempt(Console(), "Node", fails)
