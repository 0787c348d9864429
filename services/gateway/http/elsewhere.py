"""What may be asked from this machine only, and what somebody elsewhere has to know for it."""

from __future__ import annotations

import base64
import hmac
import re

from aiohttp.hdrs import (
    AUTHORIZATION,
    FORWARDED,
    HOST,
    VIA,
    X_FORWARDED_FOR,
    X_FORWARDED_HOST,
    X_FORWARDED_PROTO,
)

from services.gateway.http.incoming import Incoming
from services.gateway.http.problems import Turned
from services.gateway.http.proxies import is_loopback
from shared.vault import Vault

_BY_PROXY = (FORWARDED, X_FORWARDED_FOR, X_FORWARDED_HOST, X_FORWARDED_PROTO, "X-Real-IP", VIA)
# Crockford's base 32: no letter that is taken for a digit, no word by accident.
_PLAIN, _TYPED = "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567", "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
_SPELT = str.maketrans(_PLAIN, _TYPED)
_MISREAD = str.maketrans("OIL", "011")
_HOST = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[^:\[\]/@]+)(?::\d+)?")


def is_elsewhere(incoming: Incoming) -> bool:
    """Whether a request may come from another machine.

    Everything that passed a proxy may, trusted or not, and so may what was sent to another name than that of
    the loopback address: a page anywhere can give its own name the address 127.0.0.1 (DNS rebinding).
    """
    headers = incoming.headers
    if not is_loopback(incoming.peer.address) or any(name in headers for name in _BY_PROXY):
        return True
    found = _HOST.fullmatch(headers.get(HOST, ""))
    name = found[1].strip("[]").lower() if found else ""
    return not (name == "localhost" or name.endswith(".localhost") or is_loopback(name))


def needs_setup_code(incoming: Incoming) -> bool:
    """Whether the first account can be made only with the code that `up` prints."""
    return is_elsewhere(incoming)


def is_setup_code(vault: Vault, text: str) -> bool:
    """Whether somebody has typed the code of this server, however its letters and hyphens."""
    typed = re.sub(r"[\s-]", "", text).upper().translate(_MISREAD)
    return hmac.compare_digest(typed.encode("utf-8", "replace"), _code(vault).encode())


def check_setup_code(incoming: Incoming, vault: Vault, text: str) -> None:
    """Raise Turned (403) when the code is needed and this is another one."""
    if needs_setup_code(incoming) and not is_setup_code(vault, text):
        raise Turned("setup_code_needed")


def _code(vault: Vault) -> str:
    """80 bits of the secret key's, as `deploy.identity.setup_code` prints them but for the hyphens."""
    return base64.b32encode(vault.digest("", "setup.code")[:10]).decode().translate(_SPELT)


def check_metrics_token(incoming: Incoming, token: str) -> None:
    """Raise Turned when another machine asks for figures without the token; empty: there is none."""
    if not is_elsewhere(incoming):
        return
    if not token:
        raise Turned("forbidden", "Only this machine may ask: POSTHOUSE_METRICS_TOKEN is not set.")
    given = incoming.headers.get(AUTHORIZATION, "").encode("utf-8", "surrogateescape")
    if not hmac.compare_digest(given, f"Bearer {token}".encode()):
        headers = {"WWW-Authenticate": 'Bearer realm="metrics"'}
        raise Turned("unauthorized", "This needs the token of POSTHOUSE_METRICS_TOKEN.", headers=headers)
