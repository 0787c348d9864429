"""Readings: written as they come, read by page, by stream or one by one."""

from __future__ import annotations

import re
from datetime import datetime
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta, Struct, structs

from services.gateway.http.answers import to_json
from services.gateway.http.incoming import Incoming
from services.gateway.http.table import ANYONE, KEY_OR_USER, Routes
from shared.contracts.base import FieldError
from shared.contracts.ingest import (
    BodyFormat,
    CorrectReading,
    DeleteReading,
    DeleteReadings,
    ExportReadings,
    GetLatestReading,
    GetReading,
    Limit,
    ListReadings,
    ReadingsWritten,
    WriteReadings,
)
from shared.errors import Invalid
from shared.vault import Vault

routes = Routes("Readings")

FORMATS: dict[str, BodyFormat] = {
    "application/json": "json",
    "application/x-ndjson": "ndjson",
    "application/ndjson": "ndjson",
    "text/csv": "csv",
}
TimeZone = Annotated[
    str, Meta(max_length=64, description="IANA name or +hh:mm: how to read times that have no offset.")
]
Start = Annotated[datetime | None, Meta(description="From this time on (RFC 3339 with an offset).")]
End = Annotated[datetime | None, Meta(description="Before this time (RFC 3339 with an offset).")]
Tags = Annotated[tuple[str, ...], Meta(description="Tags of variables, separated by commas; absent: all.")]
TimeColumn = Annotated[
    str, Meta(max_length=200, description="Name of the column that has the time; `at` when absent.")
]
TimeFormat = Annotated[
    str, Meta(max_length=100, description="How times are written, as strptime has it; else RFC 3339.")
]
Value = int | float | str | None


class ReadingIn(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A reading to store; `id` makes a repetition harmless, `at` is now when absent."""

    values: dict[str, Value]
    id: str | None = None
    at: datetime | None = None
    status: str | None = None
    latitude: float | None = None
    longitude: float | None = None
    elevation: float | None = None


class WriteQuery(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How the body is to be read; `source` and `position` make an import resumable."""

    timezone: TimeZone = ""
    source: Annotated[str, Meta(max_length=200, description="Name of an import, to resume it.")] = ""
    position: Annotated[
        int, Meta(ge=0, le=2**63 - 1, description="How far the import is with this request: a line.")
    ] = 0
    time_column: TimeColumn = ""
    time_format: TimeFormat = ""


class RangeQuery(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Which readings: start <= at < end; `variables` are tags separated by commas."""

    start: Start = None
    end: End = None
    after: Annotated[str | None, Meta(description="`next` of the page before.")] = None
    limit: Limit = 100
    order: Literal["asc", "desc"] = "desc"
    variables: Tags = ()
    timezone: TimeZone = ""


class ExportQuery(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Which readings, and how a file writes their times."""

    start: Start = None
    end: End = None
    variables: Tags = ()
    timezone: TimeZone = ""
    time_column: TimeColumn = ""
    time_format: TimeFormat = ""


class DeleteQuery(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Which readings go: start <= at < end, or `all=true`."""

    start: Start = None
    end: End = None
    all: bool = False
    timezone: TimeZone = ""


class Correction(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The values to replace, by tag."""

    values: msgspec.Raw


class CorrectionIn(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The values to replace, by tag."""

    values: dict[str, Value]


def write(incoming: Incoming, vault: Vault) -> WriteReadings:
    """The body goes on as it came: ingest reads it once, for HTTP, MQTT and imports alike."""
    given = incoming.headers["Content-Type"]
    return WriteReadings(
        dataset_id=incoming.path.dataset_id,
        format=FORMATS.get(given) or FORMATS[given.partition(";")[0].strip().lower()],
        body=incoming.body,
        strict=incoming.prefer.strict,
        **zoned(incoming.query),
    )


MANY = 20
_WHOLE_SECOND = re.compile(rb'(:\d\d)Z"')


def print_written(reply: ReadingsWritten) -> bytes | None:
    """Many entries that are all right: msgspec prints them at once, but for microseconds that are zero."""
    if reply.rejected or reply.skipped or len(reply.entries) < MANY:
        return None
    return _WHOLE_SECOND.sub(rb'\1.000000Z"', to_json(reply))


def zoned(query: Struct) -> dict[str, Any]:
    """The fields of a query; the plus of an offset that nobody encoded came as a space."""
    fields = structs.asdict(query)
    if fields["timezone"].startswith(" "):
        fields["timezone"] = "+" + fields["timezone"][1:]
    return fields


def page(incoming: Incoming, vault: Vault) -> ListReadings:
    """Times are in UTC by now; the time zone has done its work."""
    asked = structs.asdict(incoming.query)
    del asked["timezone"]
    return ListReadings(dataset_id=incoming.path.dataset_id, **asked)


def export(form: Literal["csv", "ndjson"]) -> Any:
    """What makes the message of a file of this format."""

    def make(incoming: Incoming, vault: Vault) -> ExportReadings:
        return ExportReadings(dataset_id=incoming.path.dataset_id, format=form, **zoned(incoming.query))

    return make


def correct(incoming: Incoming, vault: Vault) -> CorrectReading:
    """The values go on as they came: 22.50 stays 22.50."""
    return CorrectReading(
        dataset_id=incoming.path.dataset_id, entry=incoming.path.entry, values=bytes(incoming.form.values)
    )


def delete(incoming: Incoming, vault: Vault) -> DeleteReadings:
    """A range, or everything when it is said in so many words."""
    asked: DeleteQuery = incoming.query
    given = asked.start is not None or asked.end is not None
    if given == asked.all:
        wrong = FieldError(
            where="query",
            path="all",
            code="required" if not given else "excluded",
            message="say all=true to delete every reading, or give start or end (not both)",
        )
        raise Invalid("The request does not say what to delete.", errors=[wrong])
    return DeleteReadings(dataset_id=incoming.path.dataset_id, start=asked.start, end=asked.end)


ALL = "/v1/datasets/{dataset_id}/readings"
ONE = ALL + "/{entry:[0-9]+}"

routes.post(
    ALL,
    WriteReadings,
    who=KEY_OR_USER,
    answers=201,
    make=write,
    query_form=WriteQuery,
    accepts=tuple(FORMATS),
    reads=ReadingIn | list[ReadingIn],
    limit="readings_bytes",
    prints=print_written,
    queued=True,
    strict=True,
    proves_later=True,
    refuses=("nothing_stored", "malformed", "too_many_readings"),
)
routes.get(ALL, ListReadings, who=ANYONE, query_form=RangeQuery, make=page)
routes.delete(ALL, DeleteReadings, who=KEY_OR_USER, query_form=DeleteQuery, make=delete, queued=True)
routes.get(ALL + "/latest", GetLatestReading, who=ANYONE)
routes.stream(
    ALL + ".csv",
    ExportReadings,
    "text/csv; charset=utf-8",
    who=ANYONE,
    query_form=ExportQuery,
    make=export("csv"),
)
routes.stream(
    ALL + ".ndjson",
    ExportReadings,
    "application/x-ndjson",
    who=ANYONE,
    query_form=ExportQuery,
    make=export("ndjson"),
)
routes.get(ONE, GetReading, who=ANYONE)
routes.patch(
    ONE, CorrectReading, who=KEY_OR_USER, form=Correction, reads=CorrectionIn, make=correct, queued=True
)
routes.delete(ONE, DeleteReading, who=KEY_OR_USER, queued=True)
