"""The bytes of a body, within the limit of its route and in a content type the route reads."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from aiohttp import web
from aiohttp.hdrs import CONTENT_ENCODING, CONTENT_TYPE

from services.gateway.http.problems import Turned


class SlowBody(asyncio.TimeoutError):
    """The body of a request stopped coming; set on its stream, so that whoever reads it hears of it."""


_UTF8 = frozenset(("", "utf-8", "utf8", "us-ascii"))


async def read_body(request: web.Request, accepts: Sequence[str], limit: int) -> bytes:
    """The whole body; raises Turned: 415, or 413 that names the limit."""
    if request.headers.get(CONTENT_TYPE) not in accepts:
        _check_type(request, accepts)
    encoding = request.headers.get(CONTENT_ENCODING)
    if encoding is not None and encoding.strip().lower() not in ("identity", ""):
        raise Turned(
            "unsupported_media_type",
            "Compressed bodies are not read here: send the body as it is.",
            headers={"Accept-Encoding": "identity"},
        )
    length = request.content_length
    if length is not None and length > limit:
        raise _too_large(limit)
    content = request.content
    body = await content.readany()
    if content.at_eof() and len(body) <= limit:
        return body
    whole = bytearray(body)
    while len(whole) <= limit:
        if content.at_eof():
            return bytes(whole)
        whole += await content.readany()
    raise _too_large(limit)


def _check_type(request: web.Request, accepts: Sequence[str]) -> None:
    kind, *parameters = request.headers.get("Content-Type", "").split(";")
    headers = {"Accept": ", ".join(accepts)}
    if kind.strip().lower() not in accepts:
        said = _shown(kind) or "no content type"
        detail = f"This path reads {' or '.join(accepts)}, not {said}."
        raise Turned("unsupported_media_type", detail, headers=headers)
    for parameter in parameters:
        name, _, value = parameter.strip().partition("=")
        if name.strip().lower() == "charset" and value.strip().strip('"').lower() not in _UTF8:
            detail = f"Text is read as UTF-8, not as {_shown(value)}."
            raise Turned("unsupported_media_type", detail, headers=headers)


def _shown(text: str) -> str:
    """A piece of a header as it can be repeated: its bytes may be anything."""
    return text.strip()[:80].encode("ascii", "backslashreplace").decode()


def _too_large(limit: int) -> Turned:
    return Turned(
        "too_large", f"The body may have at most {limit:,} bytes here; split it into several requests."
    )
