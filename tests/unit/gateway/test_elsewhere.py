"""What another machine must know before it gets what this machine is simply given."""

from __future__ import annotations

import pytest
from multidict import CIMultiDict

from deploy.identity import new_secret_key, setup_code
from services.gateway.http.elsewhere import is_elsewhere, is_setup_code
from services.gateway.http.incoming import Incoming
from services.gateway.http.proxies import Networks, Peer, networks, peer_of
from shared.vault import Vault
from tests.unit.gateway.door import House, open_house

ANN = {"name": "ann", "email": "ann@example.org", "password": "correct horse battery"}
FORWARDED = {"X-Forwarded-For": "203.0.113.7"}


def incoming(address: str = "127.0.0.1", host: str = "127.0.0.1:8080", **headers: str) -> Incoming:
    """A request over a connection from there."""
    fields = CIMultiDict({"Host": host} | {name.replace("_", "-"): value for name, value in headers.items()})
    return Incoming("GET", fields, "", peer_of(address, False, Networks()))


@pytest.mark.parametrize(
    "host", ["localhost", "localhost:1", "a.localhost", "127.0.0.1", "[::1]:8080", "127.9.9.9"]
)
def test_who_asks_for_this_machine_on_this_machine_is_here(host: str) -> None:
    for address in ("127.0.0.1", "::1", "::ffff:127.0.0.1", "127.0.0.2"):
        assert not is_elsewhere(incoming(address, host))


@pytest.mark.parametrize(
    "asked",
    [
        incoming("192.0.2.2"),
        incoming("2001:db8::1"),
        incoming("::ffff:192.0.2.2"),
        incoming(""),
        incoming(X_Forwarded_For="127.0.0.1"),
        incoming(Forwarded="for=127.0.0.1"),
        incoming(X_Real_IP="127.0.0.1"),
        incoming(Via="1.1 cache"),
        incoming(host="posthouse.example:8080"),
        incoming(host="127.0.0.1.example"),
        incoming(host="localhost.example"),
        incoming(host="localhost@example"),
        incoming(host="[::1].example"),
        incoming(host=""),
    ],
)
def test_everybody_else_is_elsewhere(asked: Incoming) -> None:
    assert is_elsewhere(asked)


def test_up_prints_the_code_the_gateway_asks_for() -> None:
    key = new_secret_key()
    code = setup_code(key)
    assert [len(part) for part in code.split("-")] == [4, 4, 4, 4]
    assert is_setup_code(Vault(key), code)
    assert is_setup_code(
        Vault(key), f" {code.lower().replace('-', ' ').replace('0', 'o').replace('1', 'l')} "
    )
    for wrong in ("", code[:-1], code + "A", setup_code(new_secret_key()), "é" * 16, "\ud800"):
        assert not is_setup_code(Vault(key), wrong)


async def test_the_first_account_is_made_from_elsewhere_with_the_code(vault: Vault, secret_key: str) -> None:
    async with open_house(vault) as house:
        for given in ({}, {"code": ""}, {"code": "AAAA-BBBB-CCCC-DDDD"}):
            answer = await house.request("POST", "/v1/setup", json=ANN | given, headers=FORWARDED)
            assert (answer.status, answer.json["code"]) == (403, "setup_code_needed")
            assert "./posthouse up" in answer.json["detail"]
        code = setup_code(secret_key)
        answer = await house.request("POST", "/v1/setup", json=ANN | {"code": code}, headers=FORWARDED)
        assert answer.status == 201


async def test_here_no_code_is_asked_for(house: House) -> None:
    assert (await house.request("POST", "/v1/setup", json=ANN)).status == 201


async def test_figures_leave_this_machine_with_a_token_only(vault: Vault) -> None:
    async def status(token: str, **headers: str) -> int:
        async with open_house(vault, metrics_token=token) as house:
            return (await house.request("GET", "/metrics", headers=headers)).status

    bearer = {"Authorization": "Bearer figures"}
    assert await status("") == await status("figures") == 200
    assert await status("", **FORWARDED) == await status("", **FORWARDED, **bearer) == 403
    assert await status("figures", **FORWARDED) == 401
    assert await status("other", **FORWARDED, **bearer) == 401
    assert await status("figures", **FORWARDED, **bearer) == 200


def test_encryption_is_believed_from_our_proxies_only() -> None:
    def secure(peer: Peer, *said: str) -> bool:
        return Incoming("GET", CIMultiDict([("X-Forwarded-Proto", one) for one in said]), "", peer).secure

    stranger = peer_of("192.0.2.2", False, networks("10.0.0.0/8"))
    ours = peer_of("::ffff:10.1.2.3", False, networks("10.0.0.0/8"))
    assert not secure(stranger, "https")
    assert secure(ours, "https")
    assert secure(ours, "http", "https")
    assert not any((secure(ours), secure(ours, "http"), secure(ours, "https", "http")))
    assert secure(peer_of("192.0.2.2", True, Networks()))
