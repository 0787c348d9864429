"""The first page of whoever is signed in: their datasets in a table."""

from __future__ import annotations

from aiohttp import web

from services.gateway.http.operations import links
from services.gateway.pages.site import Site, Visit
from shared.contracts.ingest import Dataset, DatasetPage, ListDatasets

site = Site()
AT_ONCE = 50
FOUND_AT_MOST = 200
LOOKED_THROUGH = 10_000


@site.get("/", who="anyone", for_programs=links)
async def home(visit: Visit) -> web.StreamResponse:
    """The dashboard for people, the links for programs."""
    if visit.viewer is None:
        return visit.go("/login")
    return await dashboard(visit)


async def dashboard(visit: Visit) -> web.Response:
    """One page of the person's datasets, or those with a word in name or description."""
    wanted = visit.query.get("q", "").strip()[:200]
    if wanted:
        page = await _found(visit, wanted)
    else:
        page = await visit.ask(ListDatasets(limit=AT_ONCE, after=visit.query.get("after") or None))
    deleted = await visit.ask(ListDatasets(limit=AT_ONCE, deleted=True))
    return visit.page(
        "home.html",
        datasets=page.items,
        next=page.next,
        wanted=wanted,
        deleted=deleted.items,
        origin=visit.origin,
        most=FOUND_AT_MOST,
    )


async def _found(visit: Visit, wanted: str) -> DatasetPage:
    """Looks through the newest of them; nobody has to page to find one."""
    found: list[Dataset] = []
    after, looked = None, 0
    while looked < LOOKED_THROUGH and len(found) < FOUND_AT_MOST:
        page = await visit.ask(ListDatasets(limit=1_000, after=after))
        found += [dataset for dataset in page.items if _has(dataset, wanted.casefold())]
        looked, after = looked + len(page.items), page.next
        if after is None:
            break
    return DatasetPage(items=tuple(found[:FOUND_AT_MOST]), next=None)


def _has(dataset: Dataset, wanted: str) -> bool:
    texts = (dataset.name, dataset.description, str(dataset.channel_id), str(dataset.id))
    return any(wanted in text.casefold() for text in texts)
