"""What crosses the wire to and from ingest: datasets and readings."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal
from uuid import UUID

from msgspec import Meta, Struct

from shared.contracts.base import Command, Event, Nothing, Principal, Query

Tag = Annotated[str, Meta(min_length=1, max_length=64, pattern=r"^[A-Za-z0-9_][A-Za-z0-9_.-]*$(?!\n)")]
NO_NUL = r"^[^\0]*$"  # PostgreSQL keeps every character but this one
Title = Annotated[str, Meta(min_length=1, max_length=200, pattern=NO_NUL)]
Text = Annotated[str, Meta(max_length=8_000, pattern=NO_NUL)]
Moment = Annotated[datetime, Meta(tz=True)]
Entry = Annotated[int, Meta(ge=1, le=2**63 - 1)]
Source = Annotated[str, Meta(max_length=200, pattern=NO_NUL)]
Limit = Annotated[int, Meta(ge=1, le=1_000)]
KeyKind = Literal["read", "write"]
BodyFormat = Literal["json", "ndjson", "csv"]
MAX_VARIABLES = 64
MAX_BODY = 1_048_576


class VariableSpec(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A variable as its owner describes it; `field` asks for a position (1..64), else the next free one."""

    tag: Tag
    name: Annotated[str, Meta(max_length=200, pattern=NO_NUL)] = ""
    unit: Annotated[str, Meta(max_length=40, pattern=NO_NUL)] = ""
    field: Annotated[int, Meta(ge=1, le=MAX_VARIABLES)] | None = None


class Variable(Struct, frozen=True, kw_only=True):
    """A variable of a dataset; `field` is its position for ever, a retired one keeps its values."""

    tag: str
    field: int
    name: str
    unit: str
    retired: bool


class Dataset(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A series of readings and its description; `version` goes into the ETag.

    `entries` counts the readings that are there, `last_entry_at` is the latest `at` among them;
    `version` grows with each change of the description, not with readings. A deleted one has `deleted_at`,
    and `purge_at`, until which it can come back.
    """

    id: UUID
    channel_id: int
    name: str
    description: str
    public: bool
    variables: tuple[Variable, ...]
    entries: int
    created_at: datetime
    last_entry_at: datetime | None
    version: int
    deleted_at: datetime | None = None
    purge_at: datetime | None = None


class DatasetKeys(Struct, frozen=True, kw_only=True):
    """The two keys of a dataset, each sealed with the context `ingest.key`."""

    read_key: bytes
    write_key: bytes


class DatasetCreated(Struct, frozen=True, kw_only=True):
    """A new dataset and its keys (sealed)."""

    dataset: Dataset
    keys: DatasetKeys


class DatasetPage(Struct, frozen=True, kw_only=True):
    """One page of datasets, newest first; `next` continues it."""

    items: tuple[Dataset, ...]
    next: str | None


class CreateDataset(Command[DatasetCreated], topic="ingest.create_dataset"):
    """Make a dataset that belongs to the caller, with a new read key and a new write key."""

    name: Title
    description: Text = ""
    public: bool = False
    variables: Annotated[tuple[VariableSpec, ...], Meta(max_length=MAX_VARIABLES)] = ()


class ListDatasets(Query[DatasetPage], topic="ingest.list_datasets"):
    """The caller's datasets, or with `deleted` those that were deleted and can still come back."""

    limit: Limit = 100
    after: str | None = None
    order: Literal["asc", "desc"] = "desc"
    deleted: bool = False


class GetDataset(Query[Dataset], topic="ingest.get_dataset"):
    """One dataset, for its owner, a holder of one of its keys, or anyone when it is public."""

    dataset_id: UUID


class ChangeDataset(Command[Dataset], topic="ingest.change_dataset"):
    """Change what is given; `variables` is the whole list: absent tags are retired, new ones added.

    `if_version` refuses (412 `changed_meanwhile`) when the dataset is not at that version.
    """

    dataset_id: UUID
    name: Title | None = None
    description: Text | None = None
    public: bool | None = None
    variables: Annotated[tuple[VariableSpec, ...], Meta(max_length=MAX_VARIABLES)] | None = None
    if_version: int | None = None


class DeleteDataset(Command[Nothing], topic="ingest.delete_dataset"):
    """Make the dataset disappear at once; `RestoreDataset` undoes it for 24 h, then its rows are purged."""

    dataset_id: UUID


class RestoreDataset(Command[Dataset], topic="ingest.restore_dataset"):
    """Undo the deletion of a dataset within 24 h."""

    dataset_id: UUID


class GetDatasetKeys(Command[DatasetKeys], topic="ingest.get_dataset_keys"):
    """Reveal the keys to the owner; a command, because each reveal is written to the audit log."""

    dataset_id: UUID


class RotateDatasetKey(Command[DatasetKeys], topic="ingest.rotate_dataset_key"):
    """A new read or write key; the old one ends at once."""

    dataset_id: UUID
    kind: KeyKind


class KeyHolder(Struct, frozen=True, kw_only=True):
    """What a dataset key opens: the dataset, `read` or `write`, and the project both belong to."""

    dataset_id: UUID
    kind: KeyKind
    project: str


class ResolveKey(Query[KeyHolder], topic="ingest.resolve_key"):
    """Which dataset a key opens; `digest` is the HMAC of the key (the key itself never crosses the wire).

    Refused with NotFound when no dataset has such a key.
    """

    digest: bytes


_UNPROVED = "key:"


def unproved(digest: bytes) -> str:
    """The scope of a caller whose key could not be asked about: whatever the key opens when ingest looks.

    Understood by `WriteReadings` alone; 401 when the key opens nothing then.
    """
    return f"{_UNPROVED}{digest.hex()}"


def unproved_digest(caller: Principal) -> bytes | None:
    """The digest in such a scope; None for a caller who was proved."""
    scope = caller.scopes[0] if caller.scopes else ""
    return bytes.fromhex(scope.removeprefix(_UNPROVED)) if scope.startswith(_UNPROVED) else None


class DatasetKeyRevoked(Event, topic="ingest.dataset_key_revoked"):
    """A key ended: gateways drop it from their caches; `digests` are HMACs as in `ResolveKey`."""

    dataset_id: UUID
    digests: tuple[bytes, ...]


class DatasetDeleted(Event, topic="ingest.dataset_deleted"):
    """A dataset is gone; it may come back within 24 h."""

    dataset_id: UUID


class ReadingsStored(Event, topic="ingest.readings_stored"):
    """Readings are on disk: entries `first`..`last` without holes, the newest at `last_at`."""

    dataset_id: UUID
    first: int
    last: int
    last_at: datetime


class EntryStored(Struct, frozen=True, kw_only=True, omit_defaults=True, gc=False):
    """A stored reading: its entry number and its time."""

    entry: int
    at: datetime
    duplicate: bool = False


class ReadingRejected(Struct, frozen=True, kw_only=True, gc=False):
    """A reading that was not stored: its index in the request (NDJSON and CSV: its line, from 1) and why."""

    index: int
    code: str
    message: str


class ReadingsWritten(Struct, frozen=True, kw_only=True, omit_defaults=True, gc=False):
    """What became of every reading of a `WriteReadings`, in order of the request.

    `skipped` counts the readings of an import batch that had been stored before: nothing else is said
    about them.
    """

    entries: tuple[EntryStored, ...]
    rejected: tuple[ReadingRejected, ...] = ()
    skipped: int = 0


class WriteReadings(Command[ReadingsWritten], topic="ingest.write_readings"):
    """Append readings to a dataset; entries are numbered in order of commit, without holes.

    `body` is what the client sent, in `format`: one reading, a list, NDJSON or CSV, UTF-8, at most 1 MiB
    and 50,000 readings. A reading is `{id?, at?, values: {tag: value}, status?, latitude?, longitude?,
    elevation?}`; the `entry` of an exported one is passed over. A reading that cannot be stored is
    rejected by itself, or with `strict` refuses all.

    Refusals: 400 `malformed` when the body cannot be told apart into readings; 422 `nothing_stored`
    (and `strict`) with one FieldError per rejected reading, whose `path` is its index (the first 1,000);
    413 `too_many_readings`; 404 and 403.

    `timezone` (IANA name or +hh:mm) reads times that have no offset. `source` and `position` make an
    import resumable: a batch at or below the position stored for its source changes nothing; one of
    which nothing is stored does not move it. `time_column`/`time_format` (strptime) say where a CSV has
    its time, else it is `at` in RFC 3339; without such a column all are of the time of the request.
    A local time that clocks skipped (`no_such_time`) or had twice (`ambiguous_time`) is rejected.
    """

    dataset_id: UUID
    format: BodyFormat
    body: Annotated[bytes, Meta(max_length=MAX_BODY)]
    strict: bool = False
    timezone: str = ""
    source: Source = ""
    position: Annotated[int, Meta(ge=0, le=2**63 - 1)] = 0
    time_column: str = ""
    time_format: str = ""


class Reading(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A reading as it is answered; `values` maps tags to the JSON the client sent, number, text or null."""

    entry: int
    at: datetime
    values: dict[str, int | float | str | None]
    status: str | None = None
    latitude: float | None = None
    longitude: float | None = None
    elevation: float | None = None


class ReadingPage(Struct, frozen=True, kw_only=True):
    """One page of readings in order of time, then entry; `next` continues it."""

    items: tuple[Reading, ...]
    next: str | None


class ListReadings(Query[ReadingPage], topic="ingest.list_readings"):
    """Readings with start <= at < end; `variables` limits the values to these tags."""

    dataset_id: UUID
    start: Moment | None = None
    end: Moment | None = None
    after: str | None = None
    limit: Limit = 100
    order: Literal["asc", "desc"] = "desc"
    variables: tuple[str, ...] = ()


class GetLatestReading(Query[Reading], topic="ingest.get_latest_reading"):
    """The reading with the latest time; NotFound while there is none."""

    dataset_id: UUID
    variables: tuple[str, ...] = ()


class GetReading(Query[Reading], topic="ingest.get_reading"):
    """One reading by its entry number."""

    dataset_id: UUID
    entry: Entry


class ExportReadings(Query[bytes], topic="ingest.export_readings"):
    """Every reading of a range, oldest first, streamed as parts of CSV or NDJSON text.

    CSV: a header line, `time_column` first (default `at`), then the tags in order of field, then (without
    `variables`) `status`, `latitude`, `longitude`, `elevation` when the dataset has ever had them; lines end
    with LF and the last one has no line break (RFC 4180 leaves it open). `timezone` (IANA name or +hh:mm)
    and for CSV `time_format` (strftime) say how times are written, RFC 3339 in UTC with microseconds when
    absent. Imported with the same options, either format gives the same readings: a text that would be
    read as a number is quoted.
    """

    dataset_id: UUID
    format: Literal["csv", "ndjson"]
    start: Moment | None = None
    end: Moment | None = None
    variables: tuple[str, ...] = ()
    timezone: str = ""
    time_column: str = ""
    time_format: str = ""


class CorrectReading(Command[Reading], topic="ingest.correct_reading"):
    """Replace the given values of one reading; its entry number, its time and its other values stay.

    For the owner and holders of the write key. `values` is the JSON object `{tag: value}` as the
    client sent it.
    """

    dataset_id: UUID
    entry: Entry
    values: bytes


class DeletedReadings(Struct, frozen=True, kw_only=True):
    """How many readings went."""

    deleted: int


class DeleteReading(Command[DeletedReadings], topic="ingest.delete_reading"):
    """Delete one reading, for the owner; its entry number is never given again, its own id is free."""

    dataset_id: UUID
    entry: Entry


class DeleteReadings(Command[DeletedReadings], topic="ingest.delete_readings"):
    """Delete readings with start <= at < end, for the owner; entry numbers go on.

    Without both, all of them are gone at once (the disk follows), and imports may start again.
    """

    dataset_id: UUID
    start: Moment | None = None
    end: Moment | None = None


class Ledger(Struct, frozen=True, kw_only=True):
    """Where every reading went; all but `in_flight` change in the transaction that stores the rows.

    A body refused as a whole counts as one reading under the code of its refusal (`malformed`); a correct
    reading refused with its neighbours as `strict`. Readings deleted later stay counted as stored.
    Not measured yet, hence 0: `in_flight`, the estimate of accepted (202) readings that wait in the
    queue, and `expired`, for a frame that runs out of time never reaches a handler.
    """

    stored: int
    duplicates: int
    rejected: dict[str, int]
    expired: int
    in_flight: int
    last_entry: int


class GetLedger(Query[Ledger], topic="ingest.get_ledger"):
    """The loss ledger of a dataset, for its owner and holders of a key."""

    dataset_id: UUID


class ImportPosition(Struct, frozen=True, kw_only=True):
    """How far an import came: the last position stored for its source, 0 before the first batch."""

    source: str
    position: int


class GetImport(Query[ImportPosition], topic="ingest.get_import"):
    """Where an interrupted import of `source` stopped, for whoever may write."""

    dataset_id: UUID
    source: Source


class MakePartitions(Command[Nothing], topic="ingest.make_partitions", senders=frozenset()):
    """Make the partitions of the coming months; sent by ingest to itself."""


class PurgeDatasets(Command[Nothing], topic="ingest.purge_datasets", senders=frozenset()):
    """Delete some pieces of the rows of datasets deleted more than 24 h ago; sent by ingest to itself."""
