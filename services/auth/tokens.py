"""Access tokens: JWTs signed with Ed25519 (RFC 8037), typed `at+jwt` (RFC 9068), checked as RFC 8725 asks."""

from __future__ import annotations

import base64
import hashlib
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID, uuid4

import jwt
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from services.auth.rules import Person
from shared.vault import Vault

KEY_CONTEXT = "auth.signing_key"
ISSUER = AUDIENCE = "posthouse"


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
