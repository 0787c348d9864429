"""An access token says who is calling, and nobody else can make one."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from deploy.identity import new_secret_key
from services.auth.rules import Person
from services.auth.tokens import DEVICE, INVITATION, REFRESH, Devices, Issuer, digest_of, new_secret, opaque
from shared.vault import SealBroken, Vault

ANN = Person(
    UUID(int=1), "default", "ann", "ann@example.org", ("administrator",), datetime(2026, 1, 1, tzinfo=UTC)
)
SESSION = UUID(int=2)
REQUIRED = ["exp", "iat", "sub", "iss", "aud", "jti", "sid"]


@pytest.fixture
def now() -> datetime:
    """Of this test: a run may take longer than a token lives."""
    return datetime.now(UTC)


def verified(token: str, public_key: bytes) -> dict[str, Any]:
    """As a careful receiver does it (RFC 8725)."""
    key = Ed25519PublicKey.from_public_bytes(public_key)
    return jwt.decode(token, key, ["EdDSA"], {"require": REQUIRED}, audience="posthouse", issuer="posthouse")


def test_it_tells_who_where_and_until_when(vault: Vault, now: datetime) -> None:
    issuer = Issuer(vault, 600)
    key = issuer.new_key()
    token = issuer.issue(key, ANN, SESSION, now)
    assert jwt.get_unverified_header(token) == {"alg": "EdDSA", "typ": "at+jwt", "kid": key.kid}
    claims = verified(token, key.public_key)
    assert len(claims.pop("jti")) == 36
    assert claims == {
        "iss": "posthouse",
        "aud": "posthouse",
        "sub": str(ANN.id),
        "sid": str(SESSION),
        "iat": int(now.timestamp()),
        "exp": int(now.timestamp()) + 600,
        "project": "default",
        "roles": ["administrator"],
        "name": "ann",
    }


def test_two_tokens_are_never_the_same(vault: Vault, now: datetime) -> None:
    issuer = Issuer(vault, 600)
    key = issuer.new_key()
    assert issuer.issue(key, ANN, SESSION, now) != issuer.issue(key, ANN, SESSION, now)


def test_it_is_refused_when_it_is_over_and_under_another_key(vault: Vault, now: datetime) -> None:
    issuer = Issuer(vault, 600)
    key = issuer.new_key()
    with pytest.raises(jwt.ExpiredSignatureError):
        verified(issuer.issue(key, ANN, SESSION, now - timedelta(seconds=601)), key.public_key)
    with pytest.raises(jwt.InvalidSignatureError):
        verified(issuer.issue(key, ANN, SESSION, now), issuer.new_key().public_key)


def test_another_process_with_the_same_server_key_signs_with_a_stored_key(
    vault: Vault, now: datetime
) -> None:
    key = Issuer(vault, 600).new_key()
    assert verified(Issuer(vault, 600).issue(key, ANN, SESSION, now), key.public_key)


def test_a_stored_key_is_of_no_use_without_the_server_key(vault: Vault, now: datetime) -> None:
    key = Issuer(vault, 600).new_key()
    with pytest.raises(SealBroken):
        Issuer(Vault(new_secret_key()), 600).issue(key, ANN, SESSION, now)
    with pytest.raises(SealBroken):
        Issuer(vault, 600).issue(
            replace(key, locked_private_key=key.locked_private_key[:-1]), ANN, SESSION, now
        )


def test_an_opaque_secret_says_what_it_is_and_is_known_by_its_digest() -> None:
    token = opaque(REFRESH, SESSION, new_secret())
    assert token.startswith(f"phr_{SESSION.hex}_")
    assert digest_of(token, REFRESH) == hashlib.sha256(token.encode()).digest()
    assert digest_of(token, INVITATION) is None
    for other in ("", token + "A", token[:-1], token.upper(), "phd" + token[3:], token + "\n"):
        assert digest_of(other, REFRESH) is None
    assert opaque(REFRESH, SESSION, new_secret()) != token


def test_a_device_is_known_to_whom_it_belongs_for_a_year(vault: Vault, now: datetime) -> None:
    devices = Devices(vault)
    token = devices.issue(SESSION, ANN.id, now)
    assert token.startswith(f"{DEVICE}_{SESSION.hex}_")
    assert ANN.id.hex not in token
    assert devices.known(token, ANN.id, now) == SESSION
    assert devices.known(token, UUID(int=9), now) is None
    assert devices.known(token, ANN.id, now + timedelta(days=366)) is None
    assert Devices(Vault(new_secret_key())).known(token, ANN.id, now) is None


def test_nobody_makes_a_device_up(vault: Vault, now: datetime) -> None:
    devices = Devices(vault)
    token = devices.issue(SESSION, ANN.id, now)
    swapped = token.replace(SESSION.hex, UUID(int=3).hex)
    for other in ("", "phd_", swapped, token[:-1], token + "A", token + "=", f"phd_{SESSION.hex}_A", "é"):
        assert devices.known(other, ANN.id, now) is None
