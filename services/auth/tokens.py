"""Access tokens (JWTs signed with Ed25519, RFC 8037, typed as RFC 9068 says), and secrets that are opaque."""

from __future__ import annotations

import base64
import hashlib
import re
import secrets
from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID, uuid4

import jwt
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from services.auth.rules import Person
from shared.vault import SealBroken, Vault

KEY_CONTEXT = "auth.signing_key"
ISSUER = AUDIENCE = "posthouse"
REFRESH, INVITATION, DEVICE = "phr", "phi", "phd"
DEVICE_LASTS = timedelta(days=365)
_OPAQUE = re.compile(r"ph[ri]_[0-9a-f]{32}_[A-Za-z0-9_-]{43}", re.ASCII)
_DEVICE = re.compile(r"phd_([0-9a-f]{32})_([A-Za-z0-9_-]{1,200})", re.ASCII)


def new_secret() -> str:
    """256 bits."""
    return secrets.token_urlsafe(32)


def opaque(prefix: str, named: UUID, secret: str) -> str:
    """A secret with its kind and its id in front, so that scanners and people know what they have found."""
    return f"{prefix}_{named.hex}_{secret}"


def digest_of(token: str, prefix: str) -> bytes | None:
    """What is stored of an opaque secret, SHA-256; None for what cannot be one."""
    if not token.startswith(f"{prefix}_") or not _OPAQUE.fullmatch(token):
        return None
    return hashlib.sha256(token.encode()).digest()


class Devices:
    """Tokens that tell a device that has signed in before; they open nothing and are stored nowhere."""

    def __init__(self, vault: Vault) -> None:
        self._vault = vault

    def issue(self, device_id: UUID, account_id: UUID, now: datetime) -> str:
        """A token of a device on which somebody has just signed in."""
        text = f"{account_id.hex} {int(now.timestamp())}"
        locked = self._vault.lock(text, f"auth.device/{device_id.hex}")
        return opaque(DEVICE, device_id, base64.urlsafe_b64encode(locked).rstrip(b"=").decode())

    def known(self, token: str, account_id: UUID, now: datetime) -> UUID | None:
        """The device, if that person has signed in on it within a year."""
        found = _DEVICE.fullmatch(token)
        if found is None:
            return None
        try:
            locked = base64.urlsafe_b64decode(found[2] + "=" * (-len(found[2]) % 4))
            owner, _, seconds = self._vault.unlock(locked, f"auth.device/{found[1]}").partition(" ")
        except (SealBroken, ValueError):
            return None
        is_fresh = now.timestamp() - int(seconds) < DEVICE_LASTS.total_seconds()
        return UUID(found[1]) if owner == account_id.hex and is_fresh else None


@dataclass(frozen=True)
class LockedKey:
    """A signing key as it is stored: the private half can only be opened with the server's key."""

    kid: str
    public_key: bytes
    locked_private_key: bytes


class Issuer:
    """Signs access tokens that last `seconds`; the only place where a private key is opened."""

    def __init__(self, vault: Vault, seconds: int) -> None:
        self._vault = vault
        self.seconds = seconds
        self._opened: dict[str, Ed25519PrivateKey] = {}

    def new_key(self) -> LockedKey:
        """A new key pair; its `kid` follows from the public key."""
        private = Ed25519PrivateKey.generate()
        public = private.public_key().public_bytes_raw()
        kid = base64.urlsafe_b64encode(hashlib.sha256(public).digest()[:12]).decode()
        text = base64.b64encode(private.private_bytes_raw()).decode()
        return LockedKey(kid, public, self._vault.lock(text, KEY_CONTEXT))

    def issue(self, key: LockedKey, person: Person, session_id: UUID, now: datetime) -> str:
        """A token that says who signed in, in which session and project, until when."""
        issued = int(now.timestamp())
        claims = {
            "iss": ISSUER,
            "aud": AUDIENCE,
            "sub": str(person.id),
            "sid": str(session_id),
            "jti": str(uuid4()),
            "iat": issued,
            "exp": issued + self.seconds,
            "project": person.project,
            "roles": list(person.roles),
            "name": person.name,
        }
        headers = {"typ": "at+jwt", "kid": key.kid}
        return jwt.encode(claims, self._private(key), algorithm="EdDSA", headers=headers)

    def _private(self, key: LockedKey) -> Ed25519PrivateKey:
        if key.kid not in self._opened:
            raw = base64.b64decode(self._vault.unlock(key.locked_private_key, KEY_CONTEXT))
            self._opened[key.kid] = Ed25519PrivateKey.from_private_bytes(raw)
        return self._opened[key.kid]
