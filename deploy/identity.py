"""Every password between our own parts, derived from the one secret key so that none has to be stored."""

from __future__ import annotations

import base64
import hashlib
import hmac
import secrets

LENGTH = 32


def new_secret_key() -> str:
    """32 random bytes as base64url, the form of `POSTHOUSE_SECRET_KEY`."""
    return base64.urlsafe_b64encode(secrets.token_bytes(32)).decode().rstrip("=")


def derive_password(secret_key: str, label: str) -> str:
    """The same 32 URL-safe characters for the same key and label (`amqp:<account>`, `postgres:<role>`)."""
    return _derive(secret_key, "password:" + label)[:LENGTH]


def setup_code(secret_key: str) -> str:
    """What somebody at another machine types to make the first account; the gateway knows the same one.

    HKDF-SHA256 (RFC 5869) as in `shared/vault.py`, in 80 bits of Crockford's base 32: `K7QM-...`.
    """
    raw = base64.urlsafe_b64decode(secret_key + "=" * (-len(secret_key) % 4))
    pseudo_random = hmac.digest(bytes(32), raw, "sha256")
    key = hmac.digest(pseudo_random, b"posthouse/digest\x01", "sha256")
    spelt = str.maketrans("ABCDEFGHIJKLMNOPQRSTUVWXYZ234567", "0123456789ABCDEFGHJKMNPQRSTVWXYZ")
    code = base64.b32encode(hmac.digest(key, b"setup.code\0", "sha256")[:10]).decode().translate(spelt)
    return "-".join(code[at : at + 4] for at in range(0, 16, 4))


def fingerprint(secret_key: str) -> str:
    """Tells whether data was made with this key; gives nothing of the key away."""
    return _derive(secret_key, "fingerprint")[:16]


def _derive(secret_key: str, label: str) -> str:
    digest = hmac.new(secret_key.encode(), label.encode(), hashlib.sha256).digest()
    return base64.urlsafe_b64encode(digest).decode()
