"""Every page there is, and the static files."""

from __future__ import annotations

from aiohttp import web

from services.gateway.http.gateway import Gateway
from services.gateway.pages import (
    accounts,
    datasets,
    editing,
    home,
    logs,
    operations,
    people,
    settings,
    transfer,
)
from services.gateway.pages.files import serve_static
from services.gateway.pages.site import Site, lost

SITES: tuple[Site, ...] = (
    home.site,
    editing.site,
    datasets.site,
    transfer.site,
    accounts.site,
    settings.site,
    people.site,
    logs.site,
    operations.site,
)


def add_pages(app: web.Application, gateway: Gateway) -> None:
    """Serve them all, and a page for people who are lost."""
    gateway.no_route = lost
    app.router.add_get("/static/{name:.+}", serve_static)
    for site in SITES:
        site.add_to(app, gateway)
