"""One dataset: its charts and readings for whoever may see it, its keys and its end for its owner."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from uuid import UUID

from aiohttp import web

from services.gateway.http.answers import to_json
from services.gateway.http.datasets import opened
from services.gateway.pages.ranges import WORDS, Range, read_range
from services.gateway.pages.site import Site, Visit
from services.gateway.pages.view import count
from shared.contracts.ingest import (
    Dataset,
    DeleteDataset,
    GetDataset,
    GetDatasetKeys,
    GetLedger,
    KeyKind,
    Ledger,
    ListReadings,
    ReadingPage,
    RestoreDataset,
    RotateDatasetKey,
)
from shared.errors import NotFound, Refusal

site = Site()
ONE = "/datasets/{dataset_id:[0-9a-fA-F-]+}"
ROWS = 25
KINDS: tuple[KeyKind, ...] = ("read", "write")


def dataset_id(visit: Visit) -> UUID:
    """The id in the path; raises NotFound when it is none."""
    try:
        return UUID(visit.path["dataset_id"])
    except ValueError:
        raise NotFound("No dataset has such an address.") from None


async def own(visit: Visit) -> tuple[Dataset, Ledger]:
    """The dataset, for its owner; raises NotFound for anybody else."""
    wanted = dataset_id(visit)
    try:
        dataset, ledger = await asyncio.gather(
            visit.ask(GetDataset(dataset_id=wanted)), visit.ask(GetLedger(dataset_id=wanted))
        )
    except Refusal as refusal:
        raise _hidden(refusal) from None
    return dataset, ledger


def _hidden(refusal: Refusal) -> Refusal:
    """What a visitor of a public dataset may not do is not there for them."""
    if refusal.status not in (403, 404):
        return refusal
    return NotFound("There is no such dataset, or it is not yours.")


async def visible(visit: Visit) -> Dataset | None:
    """The dataset of the path, if there is one this person may see."""
    try:
        return await visit.ask(GetDataset(dataset_id=dataset_id(visit)))
    except Refusal as refusal:
        if refusal.status not in (403, 404):
            raise
        return None


@site.get(ONE, who="anyone")
async def show(visit: Visit) -> web.Response:
    """Facts, charts and the newest readings."""
    dataset = await visible(visit)
    if dataset is None:
        return visit.page("dataset_missing.html", 404)
    shown = read_range(visit.query, dataset.last_entry_at, datetime.now(UTC))
    ledger, readings = await asyncio.gather(_ledger(visit, dataset), _readings(visit, dataset, shown))
    current = [variable for variable in dataset.variables if not variable.retired]
    chart = [{"tag": one.tag, "name": one.name or one.tag, "unit": one.unit} for one in current]
    return visit.page(
        "dataset.html",
        dataset=dataset,
        ledger=ledger,
        readings=readings.items,
        next=readings.next,
        shown=shown,
        ranges=WORDS,
        current=current,
        chart=to_json(chart).decode(),
        places=_places(readings),
        value=value_text,
        origin=visit.origin,
        is_first=not visit.query.get("after"),
    )


async def _ledger(visit: Visit, dataset: Dataset) -> Ledger | None:
    """Only owners are answered: who gets it is the owner."""
    if visit.viewer is None:
        return None
    try:
        return await visit.ask(GetLedger(dataset_id=dataset.id))
    except Refusal as refusal:
        if refusal.status not in (403, 404):
            raise
        return None


async def _readings(visit: Visit, dataset: Dataset, shown: Range) -> ReadingPage:
    if shown.wrong:
        return ReadingPage(items=(), next=None)
    wanted = ListReadings(
        dataset_id=dataset.id,
        start=shown.start,
        end=shown.end,
        after=visit.query.get("after") or None,
        limit=ROWS,
    )
    return await visit.ask(wanted)


def _places(page: ReadingPage) -> tuple[str, ...]:
    """Which parts beside the values any of these readings has."""
    names = ("status", "latitude", "longitude", "elevation")
    return tuple(name for name in names if any(getattr(one, name) is not None for one in page.items))


def value_text(value: int | float | str | None) -> str:
    """A value as the API answers it, texts without quotation marks."""
    return value if isinstance(value, str) else to_json(value).decode()


# -- keys


@site.post(f"{ONE}/keys")
async def reveal(visit: Visit) -> web.Response:
    """Both keys, once more; each look is in the audit log."""
    dataset, _ = await own(visit)
    keys = opened(await visit.ask(GetDatasetKeys(dataset_id=dataset.id)), visit.gateway.vault)
    return visit.page("dataset_keys.html", dataset=dataset, keys=keys, renewed="", origin=visit.origin)


def _kind(visit: Visit) -> KeyKind:
    return "write" if visit.path["kind"] == "write" else "read"


@site.get(ONE + "/keys/{kind:read|write}")
async def ask_to_renew(visit: Visit) -> web.Response:
    """Says what stops working."""
    dataset, _ = await own(visit)
    return visit.page("dataset_renew.html", dataset=dataset, kind=_kind(visit))


@site.post(ONE + "/keys/{kind:read|write}")
async def renew(visit: Visit) -> web.Response:
    """A new key; the old one ends at once."""
    dataset, _ = await own(visit)
    kind = _kind(visit)
    made = await visit.ask(RotateDatasetKey(dataset_id=dataset.id, kind=kind))
    keys = opened(made, visit.gateway.vault)
    return visit.page("dataset_keys.html", dataset=dataset, keys=keys, renewed=kind, origin=visit.origin)


# -- its end


@site.get(f"{ONE}/delete")
async def ask_to_delete(visit: Visit) -> web.Response:
    """Names what will be lost."""
    dataset, _ = await own(visit)
    return visit.page("dataset_delete.html", dataset=dataset)


@site.post(f"{ONE}/delete")
async def delete(visit: Visit) -> web.Response:
    """Gone at once, for 24 hours it can come back."""
    dataset, _ = await own(visit)
    await visit.ask(DeleteDataset(dataset_id=dataset.id))
    lost = count(dataset.entries, "reading")
    return visit.go("/", f"“{dataset.name}” with {lost} is deleted. For 24 hours you can undo this below.")


@site.post(f"{ONE}/restore")
async def restore(visit: Visit) -> web.Response:
    """Undo."""
    try:
        dataset = await visit.ask(RestoreDataset(dataset_id=dataset_id(visit)))
    except Refusal as refusal:
        if refusal.status not in (403, 404):
            raise
        return visit.go("/", "It cannot come back any more: its 24 hours are over.", kind="error")
    return visit.go("/", f"“{dataset.name}” is back with {count(dataset.entries, 'reading')}.")
