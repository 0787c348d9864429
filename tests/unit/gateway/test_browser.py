"""Only pages of this server change things for who is signed in by cookie: what a browser says decides."""

from __future__ import annotations

import pytest

from services.gateway.browser import BrowserSessions
from services.gateway.http.proxies import Peer, networks
from services.gateway.tokens import AccessTokens
from shared.bus.requests import Unavailable
from shared.contracts.base import ANONYMOUS
from shared.vault import Vault
from tests.unit.gateway.browsers import incoming
from tests.unit.gateway.services import Services


def browser(vault: Vault, public_url: str = "") -> BrowserSessions:
    services = Services(vault)
    return BrowserSessions(services, vault, AccessTokens(services), public_url=public_url)


@pytest.mark.parametrize(
    ("headers", "ours"),
    [
        ({}, False),
        ({"Sec_Fetch_Site": "same-origin"}, True),
        ({"Sec_Fetch_Site": "same-site"}, False),
        ({"Sec_Fetch_Site": "cross-site"}, False),
        ({"Sec_Fetch_Site": "cross-site", "Origin": "http://posthouse.test:8080"}, False),
        ({"Sec_Fetch_Site": "none"}, False),
        ({"Sec_Fetch_Site": "none", "Origin": "http://posthouse.test:8080"}, True),
        ({"Sec_Fetch_Site": ""}, False),
        ({"Sec_Fetch_Site": "Same-Origin"}, False),
        ({"Origin": "http://posthouse.test:8080"}, True),
        ({"Origin": "http://posthouse.test"}, False),
        ({"Origin": "http://posthouse.test:80"}, False),
        ({"Origin": "https://posthouse.test:8080"}, False),
        ({"Origin": "http://evil.posthouse.test:8080"}, False),
        ({"Origin": "http://posthouse.test:8080.evil.test"}, False),
        ({"Origin": "null"}, False),
        ({"Origin": ""}, False),
        ({"Origin": "", "Host": ""}, False),
        ({"Origin": "", "Host": "[bad"}, False),
        ({"Origin": "http://posthouse.test", "Host": "Posthouse.test:80"}, True),
        ({"Referer": "http://posthouse.test:8080/"}, False),
        ({"Content_Type": "application/json"}, False),
        ({"X_Forwarded_Host": "evil.test", "Origin": "http://evil.test"}, False),
        ({"X_Forwarded_Proto": "https", "Origin": "https://posthouse.test:8080"}, False),
    ],
    ids=str,
)
def test_what_a_browser_says_of_where_a_request_comes_from(
    vault: Vault, headers: dict[str, str], ours: bool
) -> None:
    assert browser(vault).same_origin(incoming(method="POST", **headers)) is ours


def test_behind_a_proxy_of_ours_the_origin_is_what_the_client_sees(vault: Vault) -> None:
    request = incoming(method="POST", Origin="https://home.test", X_Forwarded_Host="home.test")
    assert not browser(vault).same_origin(request)
    request.peer = Peer("192.0.2.7", proxies=networks("192.0.2.0/24"))
    request.secure = True
    assert browser(vault).same_origin(request)


def test_a_public_address_is_the_origin_wherever_a_request_arrives(vault: Vault) -> None:
    house = browser(vault, "https://Home.test:443/posthouse")
    assert house.same_origin(incoming(Origin="https://home.test"))
    assert not house.same_origin(incoming(Origin="http://posthouse.test:8080"))


async def test_without_redis_nobody_is_signed_in_and_nobody_can_tell(vault: Vault) -> None:
    house = browser(vault)
    request = incoming(f"posthouse={'a' * 43}")
    assert house.at_once(request.headers, request.peer) is None
    with pytest.raises(Unavailable):
        await house.identify(request.headers, request.peer)
    other = incoming("theme=dark")
    assert await house.identify(other.headers, other.peer) == ANONYMOUS
