"""Signing in: a session for this browser, and a token that tells its owner from strangers who guess."""

from __future__ import annotations

import re

from services.gateway.pages.site import Visit
from shared.contracts.auth import OpenSession, RestoreMe

DEVICE = "posthouse_device"
DEVICE_SECONDS = 365 * 86_400
AGENT_LENGTH = 200
_TOKEN = re.compile(r"[0-9A-Za-z_.~-]{1,256}", re.ASCII)


def sealed(visit: Visit, password: str) -> bytes:
    """A password as it leaves this process."""
    return visit.gateway.vault.seal(password, "auth.password")


def restoring(visit: Visit, name: str, password: str) -> RestoreMe:
    """Undo the deletion of the account that has this name and password."""
    return RestoreMe(name=name, password=sealed(visit, password), device=_device(visit))


async def enter(visit: Visit, name: str, password: str) -> tuple[str, ...]:
    """Sign in on this browser: the Set-Cookie values; raises as auth refuses, and as Redis fails."""
    agent = visit.incoming.headers.get("User-Agent", "")[:AGENT_LENGTH]
    opened = await visit.ask(
        OpenSession(name=name, password=sealed(visit, password), device=_device(visit), agent=agent)
    )
    cookies = [await visit.gateway.browser.open(visit.incoming, opened)]
    if opened.device_token:
        token = visit.gateway.vault.unseal(opened.device_token, "auth.device")
        secure = "; Secure" if "; Secure" in cookies[0] else ""
        cookies.append(f"{DEVICE}={token}; Path=/; Max-Age={DEVICE_SECONDS}; HttpOnly; SameSite=Lax{secure}")
    return tuple(cookies)


def _device(visit: Visit) -> bytes:
    token = visit.request.cookies.get(DEVICE, "")
    return visit.gateway.vault.seal(token, "auth.device") if _TOKEN.fullmatch(token) else b""
