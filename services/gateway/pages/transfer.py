"""Files in and out: the import and export pages of a dataset."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any
from urllib.parse import urlencode

from aiohttp import web

from services.gateway.http.answers import to_json
from services.gateway.http.validate import zone_of
from services.gateway.pages.datasets import ONE, own, visible
from services.gateway.pages.editing import checked
from services.gateway.pages.ranges import WORDS, read_range
from services.gateway.pages.site import Site, Visit
from services.gateway.pages.view import count
from shared.contracts.ingest import Dataset, ReadingRejected, ReadingsWritten, WriteReadings
from shared.errors import Refusal

site = Site()
TIME_FORMATS = (
    "%Y-%m-%d %H:%M:%S",
    "%Y-%m-%d %H:%M",
    "%Y/%m/%d %H:%M",
    "%d.%m.%Y %H:%M",
    "%d/%m/%Y %H:%M",
    "%m/%d/%Y %H:%M",
)
OPTIONS = ("time_column", "time_format", "timezone")
FORMATS = {"csv": "CSV", "ndjson": "NDJSON", "json": "JSON"}
FILES = ("csv", "ndjson")
SOME_TIME = datetime(2024, 2, 29, 23, 59, 58, 123456, tzinfo=UTC)


@site.get(f"{ONE}/import")
async def ask_for_file(visit: Visit) -> web.Response:
    """The form."""
    dataset, _ = await own(visit)
    return _form(visit, dataset)


def _form(visit: Visit, dataset: Dataset, status: int = 200, **more: Any) -> web.Response:
    variables = [{"tag": one.tag, "name": one.name, "retired": one.retired} for one in dataset.variables]
    known: dict[str, Any] = {"written": None, "wrong": {}, "form": {}} | more
    return visit.page(
        "dataset_import.html",
        status,
        dataset=dataset,
        variables=to_json(variables).decode(),
        formats=FORMATS,
        time_formats=TIME_FORMATS,
        **known,
    )


@site.post(f"{ONE}/import")
async def store_piece(visit: Visit) -> web.Response:
    """One piece of text, for browsers without scripts."""
    dataset, _ = await own(visit)
    body = visit.form.get("body", "").replace("\r\n", "\n").strip("\n")
    values: Mapping[str, Any] = {
        "dataset_id": dataset.id,
        "format": visit.form.get("format", "csv"),
        "body": body.encode(),
        **{name: visit.form.get(name, "").strip() for name in OPTIONS},
    }
    try:
        if not body.strip():
            raise Refusal("There is no text to store.")
        written = await visit.ask(checked(WriteReadings, values))
    except Refusal as error:
        if error.status >= 500 or error.status in (401, 403, 404):
            raise
        return _form(visit, dataset, 422, **_refused(error), form=visit.form)
    if not written.rejected:
        return visit.go(f"/datasets/{dataset.id}", f"{count(len(written.entries), 'reading')} stored.")
    return _form(visit, dataset, written=written, form=visit.form)


def _refused(error: Refusal) -> dict[str, Any]:
    """A refusal of the lines as their list, another one as a sentence beside its field."""
    if error.code == "nothing_stored":
        lines = [
            ReadingRejected(index=int(one.path), code=one.code, message=one.message) for one in error.errors
        ]
        return {"written": ReadingsWritten(entries=(), rejected=tuple(lines))}
    wrong = {one.path: one.message for one in error.errors if one.path in (*OPTIONS, "format")}
    return {"wrong": wrong or {"body": error.detail}}


@site.get(f"{ONE}/export", who="anyone")
async def export(visit: Visit) -> web.Response:
    """The form; with `format` on to the file itself."""
    dataset = await visible(visit)
    if dataset is None:
        return visit.page("dataset_missing.html", 404)
    given = {"range": "all"} | visit.query
    shown = read_range(given, None, datetime.now(UTC))
    wrong = shown.wrong | _wrong(visit.query)
    form = visit.query.get("format", "")
    if form in FILES and not wrong:
        return visit.go(file_path(dataset, form, visit.query, shown.times))
    return visit.page(
        "dataset_export.html",
        422 if wrong else 200,
        dataset=dataset,
        shown=shown,
        ranges=WORDS,
        time_formats=TIME_FORMATS,
        form=visit.query,
        wrong=wrong,
    )


def file_path(dataset: Dataset, form: str, given: Mapping[str, str], times: Mapping[str, str]) -> str:
    """Where the file is; what has not been said is not in it."""
    said = {name: given.get(name, "").strip() for name in OPTIONS}
    if form != "csv":
        del said["time_column"], said["time_format"]
    query = urlencode({**times, **{name: text for name, text in said.items() if text}})
    return f"/v1/datasets/{dataset.id}/readings.{form}" + (f"?{query}" if query else "")


def _wrong(given: Mapping[str, str]) -> dict[str, str]:
    wrong: dict[str, str] = {}
    try:
        zone_of(given.get("timezone", "").strip())
    except ValueError:
        wrong["timezone"] = "Give an IANA name like Europe/Berlin, or +hh:mm."
    form = given.get("time_format", "").strip()
    try:
        if form and (datetime.strptime(SOME_TIME.strftime(form), form) is None or "%" not in form):
            raise ValueError
    except (ValueError, re.error):
        wrong["time_format"] = "This is no form of a time: write one like %Y-%m-%d %H:%M."
    return wrong
