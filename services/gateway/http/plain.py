"""What plain HTTP is good for beside HTTPS: devices are served, everybody else is sent on."""

from __future__ import annotations

import re
from urllib.parse import urlsplit

from aiohttp.hdrs import HOST, LOCATION

from services.gateway.http.answers import Answer
from services.gateway.http.incoming import API_KEY, Incoming
from services.gateway.http.problems import Turned
from services.gateway.http.proxies import Headers
from services.gateway.settings import Settings

# Devices have these compiled in, and many can neither encrypt nor follow a redirect.
_DEVICES = re.compile(
    r"/update(\.json|\.xml)?|/(channels|talkbacks|stream)/.+|/datasets/(update|request)", re.DOTALL
)
_WITH_KEY = re.compile(r"/v1/datasets/[^/]+/readings([/.].*)?", re.DOTALL)
_HOST = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[0-9A-Za-z._-]+)(:\d+)?", re.ASCII)
HTTPS = 443


def is_for_devices(path: str, headers: Headers) -> bool:
    """Whether a path is served without encryption: what comes with a dataset's key, never with a person's."""
    return bool(_DEVICES.fullmatch(path) or (API_KEY in headers and _WITH_KEY.fullmatch(path)))


def sent_on(incoming: Incoming, target: str, settings: Settings) -> Answer:
    """308 to the same at the HTTPS address; raises Turned when nobody can tell what that is."""
    return Answer(308, headers={LOCATION: _origin(incoming, settings) + _relative(target)})


def _origin(incoming: Incoming, settings: Settings) -> str:
    if settings.public_url.startswith("https://"):
        return settings.public_url.rstrip("/")
    asked = _HOST.fullmatch(incoming.headers.get(HOST, ""))
    if asked is None:
        raise Turned("https_needed")
    return f"https://{asked[1]}" + (f":{settings.port}" if settings.port != HTTPS else "")


def _relative(target: str) -> str:
    """A target may be whole (RFC 9112, 3.2.2)."""
    if target.startswith("/"):
        return target
    parts = urlsplit(target)
    return (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
