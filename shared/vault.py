"""What is sealed between services and at rest, under keys derived from POSTHOUSE_SECRET_KEY."""

from __future__ import annotations

import base64
import hmac
import os
from hashlib import sha256

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM, AESSIV
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF


class SealBroken(Exception):
    """The bytes were not sealed under this key and context."""


class Vault:
    """Three uses of one server key, each with a key of its own (HKDF-SHA256, RFC 5869).

    - `seal`/`unseal`: secrets on their way through the broker and in inbox rows. AES-SIV (RFC 5297) is
      deterministic, so the same request has the same body and an idempotency key can be compared.
    - `lock`/`unlock`: secrets at rest, AES-256-GCM with a random nonce of 96 bits.
    - `digest`: HMAC-SHA256, finds a key without storing it.
    """

    def __init__(self, secret_key: str) -> None:
        raw = base64.urlsafe_b64decode(secret_key + "=" * (-len(secret_key) % 4))
        if len(raw) < 32:
            raise ValueError("POSTHOUSE_SECRET_KEY must be 32 bytes or more in base64url")
        self._siv = AESSIV(_derive(raw, b"seal", 64))
        self._gcm = AESGCM(_derive(raw, b"lock", 32))
        self._mac = _derive(raw, b"digest", 32)

    def seal(self, text: str, context: str) -> bytes:
        """Seal text for one use (`auth.password`); the same text and context give the same bytes."""
        return self._siv.encrypt(text.encode(), [context.encode()])

    def unseal(self, sealed: bytes, context: str) -> str:
        """The text of `seal`; raises SealBroken."""
        try:
            return self._siv.decrypt(sealed, [context.encode()]).decode()
        except (InvalidTag, ValueError) as error:
            raise SealBroken(context) from error

    def lock(self, text: str, context: str) -> bytes:
        """Encrypt for storage: nonce and ciphertext; differs each time."""
        nonce = os.urandom(12)
        return nonce + self._gcm.encrypt(nonce, text.encode(), context.encode())

    def unlock(self, locked: bytes, context: str) -> str:
        """The text of `lock`; raises SealBroken."""
        try:
            return self._gcm.decrypt(locked[:12], locked[12:], context.encode()).decode()
        except (InvalidTag, ValueError) as error:
            raise SealBroken(context) from error

    def digest(self, text: str, context: str) -> bytes:
        """32 bytes that find a secret without telling it."""
        return hmac.digest(self._mac, context.encode() + b"\0" + text.encode(), sha256)


def _derive(raw: bytes, label: bytes, length: int) -> bytes:
    return HKDF(SHA256(), length, salt=None, info=b"posthouse/" + label).derive(raw)
