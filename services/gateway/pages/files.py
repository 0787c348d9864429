"""Static files: scripts, the stylesheet, pictures."""

from __future__ import annotations

from aiohttp import web

from services.gateway.http.problems import Turned
from services.gateway.pages.view import static_file

YEAR = "public, max-age=31536000, immutable"


async def serve_static(request: web.Request) -> web.Response:
    """One file; named with its hash it never changes, else the browser asks again."""
    found = static_file(request.match_info["name"])
    if found is None:
        raise Turned("not_found", "There is no such file.")
    content, kind, tag = found
    etag = f'"{tag}"'
    headers = {
        "ETag": etag,
        "Cache-Control": YEAR if request.query.get("v") == tag else "no-cache",
        "Content-Type": kind,
    }
    if request.headers.get("If-None-Match") == etag:
        return web.Response(status=304, headers=headers)
    return web.Response(body=content, headers=headers)
