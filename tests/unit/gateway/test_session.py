"""Who is calling: tokens, keys, and what is remembered of them."""

from __future__ import annotations

import asyncio
import time
from typing import Any
from uuid import UUID, uuid4

import jwt
import msgspec
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from services.gateway import session, tokens
from services.gateway.http.problems import Turned
from services.gateway.readiness import learn_signing_keys
from services.gateway.session import Callers
from shared.bus.ids import uuid7
from shared.bus.requests import Caller, Unavailable
from shared.contracts.auth import ListSigningKeys
from shared.contracts.base import ANONYMOUS
from shared.contracts.ingest import CreateDataset, ResolveKey
from shared.vault import Vault
from tests.unit.gateway.door import House
from tests.unit.gateway.services import Services


class Clock:
    """Seconds that pass when told to."""

    def __init__(self, now: float) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def services(vault: Vault) -> Services:
    return Services(vault)


@pytest.fixture
def clock() -> Clock:
    return Clock(time.time())


@pytest.fixture
def callers(services: Services, vault: Vault, clock: Clock) -> Callers:
    return Callers(services, vault, clock)


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


def asked(services: Services, kind: type) -> int:
    return sum(isinstance(message, kind) for message, _ in services.asked)


async def test_a_token_says_who_calls(services: Services, callers: Callers) -> None:
    principal = await callers.identify(bearer(services.token(roles=["a"], project="p")))
    assert (principal.kind, principal.id, principal.via) == ("user", "u1", "s1")
    assert (principal.project, principal.roles) == ("p", ("a",))


async def test_nothing_given_is_nobody(callers: Callers) -> None:
    assert await callers.identify({}) == ANONYMOUS


OTHER = Ed25519PrivateKey.generate()


@pytest.mark.parametrize(
    "claims",
    [
        {"exp": 1},
        {"exp": None},
        {"iat": None},
        {"sub": None},
        {"iss": None},
        {"iss": "other"},
        {"aud": None},
        {"aud": "other"},
        {"jti": None},
        {"typ": "JWT"},
        {"typ": "rt+jwt"},
        {"kid": "k9"},
        {"roles": "administrator"},
        {"roles": [1]},
        {"sid": 7},
        {"project": ["p"]},
    ],
    ids=str,
)
async def test_a_token_that_lacks_anything_opens_nothing(
    services: Services, callers: Callers, claims: dict[str, object]
) -> None:
    with pytest.raises(Turned) as refused:
        await callers.identify(bearer(services.token(**claims)))
    assert (refused.value.status, refused.value.code) == (401, "unauthorized")
    assert 'error="invalid_token"' in refused.value.headers["WWW-Authenticate"]


async def test_only_our_signature_and_our_algorithm_count(services: Services, callers: Callers) -> None:
    claims = jwt.decode(services.token(), options={"verify_signature": False})
    headers = {"typ": "at+jwt", "kid": "k1"}
    public = services.signing.public_key().public_bytes_raw()
    forged = [
        jwt.encode(claims, OTHER, "EdDSA", headers=headers),
        jwt.encode(claims, public, "HS256", headers=headers),
        jwt.encode(claims, "", "none", headers=headers),
        services.token()[:-4] + "AAAA",
        "rubbish",
        "a.b.c",
        "\udcff",
    ]
    for token in forged:
        with pytest.raises(Turned):
            await callers.identify(bearer(token))


@pytest.mark.parametrize("header", ["", "Bearer", "Bearer ", "Basic YTpi", "Token x"])
async def test_another_scheme_is_refused(callers: Callers, header: str) -> None:
    with pytest.raises(Turned):
        await callers.identify({"Authorization": header})


async def test_a_verified_token_is_remembered_for_a_minute_and_never_past_its_end(
    services: Services, callers: Callers, clock: Clock
) -> None:
    long, short = services.token(), services.token(exp=int(clock.now) + 20)
    for token in (long, short):
        await callers.identify(bearer(token))
        assert callers.at_once(bearer(token)) is not None
    clock.now += 21
    assert callers.at_once(bearer(long)) is not None
    assert callers.at_once(bearer(short)) is None
    clock.now += 40
    assert callers.at_once(bearer(long)) is None


async def test_signing_keys_are_asked_once_for_invented_names(
    services: Services, callers: Callers, clock: Clock
) -> None:
    await callers.identify(bearer(services.token()))
    assert asked(services, ListSigningKeys) == 1
    for number in range(20):
        with pytest.raises(Turned):
            await callers.identify(bearer(services.token(kid=f"x{number}")))
    assert asked(services, ListSigningKeys) == 1
    clock.now += tokens.ASK_AGAIN_SECONDS
    with pytest.raises(Turned):
        await callers.identify(bearer(services.token(kid="x")))
    assert asked(services, ListSigningKeys) == 2


async def test_while_auth_is_away_tokens_are_not_called_bad(
    services: Services, callers: Callers, vault: Vault
) -> None:
    services.failing[ListSigningKeys.topic] = Unavailable("away")
    with pytest.raises(Unavailable):
        await callers.identify(bearer(services.token()))
    assert not callers.has_signing_keys
    del services.failing[ListSigningKeys.topic]
    assert (await callers.identify(bearer(services.token()))).kind == "user"
    services.failing[ListSigningKeys.topic] = Unavailable("away")
    assert (await callers.identify(bearer(services.token()))).kind == "user"


async def a_key(services: Services) -> tuple[str, bytes]:
    made = await services.ask(CreateDataset(name="Roof"), Caller(id=uuid7(), request_id="r"))
    _, key = services.keys[made.dataset.id]
    return key, services.vault.digest(key, "ingest.key")


async def test_a_key_is_asked_for_once_and_its_text_stays_here(services: Services, callers: Callers) -> None:
    key, digest = await a_key(services)
    first = await callers.identify({"X-API-Key": key})
    assert callers.at_once({"X-API-Key": key}) == first
    assert first.kind == "key"
    assert first.via == digest.hex()[:8]
    assert asked(services, ResolveKey) == 1
    assert services.last(ResolveKey)[0].digest == digest


async def test_a_revoked_key_is_forgotten_at_once(services: Services, callers: Callers) -> None:
    key, digest = await a_key(services)
    await callers.identify({"X-API-Key": key})
    callers.drop_dataset_key([digest, b"unknown"])
    assert callers.at_once({"X-API-Key": key}) is None
    await callers.identify({"X-API-Key": key})
    callers.drop_all()
    assert callers.at_once({"X-API-Key": key}) is None


async def test_an_answer_that_crosses_a_revocation_is_not_remembered(
    services: Services, vault: Vault, clock: Clock
) -> None:
    key, digest = await a_key(services)

    class Crossing(Services):
        async def ask(self, message, caller):  # type: ignore[no-untyped-def]
            reply = await services.ask(message, caller)
            callers.drop_dataset_key([digest])
            return reply

    callers = Callers(Crossing(vault), vault, clock)
    assert (await callers.identify({"X-API-Key": key})).kind == "key"
    assert callers.at_once({"X-API-Key": key}) is None


@pytest.mark.parametrize("key", ["", "abc", "a" * 16, "A" * 17, "A" * 15 + "é", "ZZZZZZZZZZZZZZZZ"])
async def test_a_key_that_is_none_is_refused(callers: Callers, key: str) -> None:
    with pytest.raises(Turned) as refused:
        await callers.identify({"X-API-Key": key})
    assert refused.value.status == 401


async def test_a_key_is_no_token(services: Services, callers: Callers) -> None:
    key, _ = await a_key(services)
    await callers.identify({"X-API-Key": key})
    assert callers.at_once({"Authorization": key}) is None


class Ending(Services):
    """Auth that knows of ended sessions."""

    def __init__(self, vault: Vault) -> None:
        super().__init__(vault)
        self.ended: tuple[UUID, ...] = ()
        self.heard = asyncio.Event()

    async def ask(self, message: Any, caller: Caller) -> Any:
        """The keys, and with them which sessions have ended."""
        reply = await super().ask(message, caller)
        if isinstance(message, ListSigningKeys):
            self.heard.set()
            return msgspec.structs.replace(reply, ended=self.ended)
        return reply


async def test_tokens_of_an_ended_session_open_nothing_any_more(
    services: Services, callers: Callers, clock: Clock
) -> None:
    mine, other = services.token(sid="s1"), services.token(sid="s2")
    for token in (mine, other):
        await callers.identify(bearer(token))
    callers.drop_sessions(["s1"])
    assert callers.at_once(bearer(mine)) is None
    for token in (mine, services.token(sid="s1")):
        with pytest.raises(Turned) as refused:
            await callers.identify(bearer(token))
        assert refused.value.status == 401
    assert callers.at_once(bearer(other)) is not None


async def test_ends_nobody_heard_of_are_asked_for_when_events_may_have_been_missed(vault: Vault) -> None:
    services, session_id = Ending(vault), uuid4()
    callers = Callers(services, vault)
    asking = asyncio.create_task(learn_signing_keys(callers))
    async with asyncio.timeout(10):
        await services.heard.wait()
        token = bearer(services.token(sid=str(session_id)))
        assert (await callers.identify(token)).kind == "user"
        services.ended = (session_id,)
        services.heard.clear()
        callers.drop_all()
        await services.heard.wait()
    with pytest.raises(Turned):
        await callers.identify(token)
    asking.cancel()


async def test_ended_sessions_are_remembered_as_long_as_a_token_may_live_and_no_more_than_fit(
    services: Services, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    known = tokens.AccessTokens(services, clock)
    known.end_sessions(["s1"])
    clock.now += tokens.ENDED_SECONDS + 1
    known.end_sessions(["s2"])
    assert [known.has_ended(name) for name in ("s1", "s2")] == [False, True]
    monkeypatch.setattr(tokens, "KEPT_ENDED", 3)
    known.end_sessions(f"s{number}" for number in range(10))
    assert [known.has_ended(f"s{number}") for number in range(10)] == [False] * 7 + [True] * 3


async def test_memory_is_bounded(
    services: Services, callers: Callers, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(session, "KEPT_CALLERS", 3)
    tokens = [services.token() for _ in range(5)]
    for token in tokens:
        await callers.identify(bearer(token))
    assert [callers.at_once(bearer(token)) is not None for token in tokens] == [
        False,
        False,
        True,
        True,
        True,
    ]


async def test_a_route_says_what_it_needs(house: House, token: str) -> None:
    nobody = await house.request("GET", "/v1/datasets")
    assert (nobody.status, nobody.json["code"]) == (401, "unauthorized")
    assert nobody.headers["WWW-Authenticate"] == 'Bearer realm="posthouse"'
    made = await house.dataset(token)
    key = await house.request("GET", "/v1/datasets", headers={"X-API-Key": made["read_key"]})
    assert (key.status, key.json["code"]) == (403, "forbidden")
    bad = await house.request("GET", "/v1/datasets", token="rubbish")
    assert bad.status == 401
