"""The gateway: whether it is ready, and the certificate it shows."""

from __future__ import annotations

import asyncio
import ssl
from datetime import UTC, datetime, timedelta
from pathlib import Path
from urllib.parse import urlsplit

import aiohttp
from cryptography.x509 import load_pem_x509_certificate

from deploy.cli.doctor.finding import SECONDS, Environment, Finding

RENEW_BEFORE = timedelta(days=14)


async def look(environment: Environment) -> list[Finding]:
    """What it says itself."""
    url = environment["POSTHOUSE_URL"] + "/readyz"
    # Nothing secret is asked; the certificate is looked at by itself.
    timeout = aiohttp.ClientTimeout(total=SECONDS)
    async with aiohttp.ClientSession(timeout=timeout) as http, http.get(url, ssl=False) as answer:
        missing = (await answer.json()).get("missing", {})
    if not missing:
        return [Finding("gateway", "ready")]
    return [
        Finding("gateway", f"waits for {n}: {why}", f"./posthouse logs {n}") for n, why in missing.items()
    ]


async def certificate(environment: Environment) -> list[Finding]:
    """The one that is shown, beside the one in the file."""
    file = environment.get("POSTHOUSE_TLS_CERT")
    return await asyncio.to_thread(_shown, environment["POSTHOUSE_URL"], Path(file)) if file else []


def _shown(url: str, file: Path) -> list[Finding]:
    parts = urlsplit(url)
    shown = ssl.get_server_certificate((parts.hostname or "", parts.port or 443), timeout=SECONDS)
    return judged(shown.encode(), file.read_bytes(), datetime.now(UTC))


def judged(shown: bytes, kept: bytes, now: datetime) -> list[Finding]:
    """What is to be said of the certificate the gateways show, beside the one in the file."""
    used = load_pem_x509_certificate(shown)
    words = f"good until {used.not_valid_after_utc:%Y-%m-%d}"
    if used != load_pem_x509_certificate(kept):
        return [Finding("certificate", f"{words}, and not the one in the file", "./posthouse reload")]
    is_old = used.not_valid_after_utc - now < RENEW_BEFORE
    return [Finding("certificate", words, "Renew it, then ./posthouse reload." if is_old else "")]
