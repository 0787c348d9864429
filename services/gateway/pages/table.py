"""Every page there is, and the static files."""

from __future__ import annotations

from aiohttp import web

from services.gateway.http.gateway import Gateway
from services.gateway.pages.files import serve_static
from services.gateway.pages.site import Site

SITES: tuple[Site, ...] = ()


def add_pages(app: web.Application, gateway: Gateway) -> None:
    """Serve them all."""
    app.router.add_get("/static/{name:.+}", serve_static)
    for site in SITES:
        site.add_to(app, gateway)
