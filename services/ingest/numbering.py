"""What becomes of a batch of writes: which readings are stored, under which numbers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import NamedTuple
from uuid import UUID

import msgspec

from services.ingest.columns import Column, Columns
from services.ingest.formats import Item, Items, items_of
from services.ingest.rules import HAS_ELEVATION, HAS_POSITION, HAS_STATUS, Known, for_writer
from services.ingest.values import Stored
from shared.bus.routes import Done
from shared.contracts.base import FieldError, Principal
from shared.contracts.ingest import (
    EntryStored,
    ReadingRejected,
    ReadingsStored,
    ReadingsWritten,
    WriteReadings,
)
from shared.errors import Invalid, Refusal

MAX_ERRORS = 1_000  # of a refusal; the ledger counts them all

# entry, at, whole, dataset, numbers, exact, status, place: a row of ingest.reading
Row = tuple[
    int,
    datetime,
    int,
    int,
    list[float | None] | None,
    list[str | None] | None,
    str | None,
    tuple[float | None, float | None, float | None] | None,
]
OwnId = tuple[int, UUID]  # dataset number, hash of the client's id
Import = tuple[int, str]  # dataset number, source
Outcome = Done[ReadingsWritten] | Refusal


class Asked(NamedTuple):
    """One write: what it says, who sent it or why nobody did, and its readings or why its body has none."""

    write: WriteReadings
    caller: Principal | Refusal
    items: Items | Columns | Refusal


class Block(NamedTuple):
    """Rows of one dataset with numbers in the same fields, numbered from `first` on."""

    dataset: int
    first: int
    fields: Sequence[int]
    columns: Sequence[Column]
    ats: Sequence[datetime]


def own_ids_of(asked: Sequence[Asked], known: Mapping[UUID, Known]) -> set[OwnId]:
    """The ids that clients gave readings of these datasets."""
    return {
        (known[one.write.dataset_id].number, item.id_hash)
        for one in asked
        if isinstance(one.items, list)
        for item in one.items
        if isinstance(item, Item) and item.id_hash is not None and one.write.dataset_id in known
    }


def imports_of(asked: Sequence[Asked], known: Mapping[UUID, Known]) -> set[Import]:
    """The imports into these datasets."""
    writes = [one.write for one in asked if one.write.source and one.write.dataset_id in known]
    return {(known[write.dataset_id].number, write.source) for write in writes}


@dataclass
class Account:
    """The counters of a dataset while a batch is worked out; everything is written back at the end."""

    known: Known
    fields: dict[str, int]
    retired: frozenset[str]
    last_entry: int
    entries: int
    stored: int
    duplicates: int
    rejected: Counter[str]
    first_at: datetime | None
    last_at: datetime | None
    parts: int
    latest_new: datetime | None = None
    told_by: int = 0

    @classmethod
    def of(cls, known: Known) -> Account:
        """The account as it stands."""
        return cls(
            known,
            {variable.tag: variable.field for variable in known.variables if not variable.retired},
            frozenset(variable.tag for variable in known.variables if variable.retired),
            known.last_entry,
            known.entries,
            known.stored,
            known.duplicates,
            Counter(known.rejected),
            known.first_at,
            known.last_at,
            known.parts,
        )

    def book(self, ats: Sequence[datetime], outcome: int) -> int:
        """Count stored rows of these times for an outcome; answers the number of the first of them."""
        first, last = min(ats), max(ats)
        self.first_at = first if self.first_at is None else min(first, self.first_at)
        self.last_at = last if self.last_at is None else max(last, self.last_at)
        self.latest_new = last if self.latest_new is None else max(last, self.latest_new)
        self.told_by = outcome
        first_entry = self.last_entry + 1
        self.last_entry += len(ats)
        self.entries += len(ats)
        self.stored += len(ats)
        return first_entry

    @property
    def news(self) -> ReadingsStored | None:
        """What the batch stored here, in one event."""
        if self.latest_new is None:
            return None
        first = self.known.last_entry + 1
        return ReadingsStored(
            dataset_id=self.known.id, first=first, last=self.last_entry, last_at=self.latest_new
        )


@dataclass
class Plan:
    """What to write, and the outcome of each write in its order."""

    accounts: dict[int, Account] = field(default_factory=dict)
    rows: list[Row] = field(default_factory=list)
    blocks: list[Block] = field(default_factory=list)
    own_ids: dict[OwnId, EntryStored] = field(default_factory=dict)
    positions: dict[Import, int] = field(default_factory=dict)
    outcomes: list[Outcome] = field(default_factory=list)


@dataclass
class Desk:
    """Numbers the readings of a batch, write by write.

    `known` are the locked datasets, `own_ids` and `positions` what is stored of those the batch names.
    """

    known: Mapping[UUID, Known]
    own_ids: Mapping[OwnId, EntryStored]
    positions: Mapping[Import, int]
    plan: Plan = field(default_factory=Plan)

    def decide(self, asked: Sequence[Asked]) -> Plan:
        """Work out every write; none fails another. The last one that stored something tells of all."""
        outcomes = self.plan.outcomes
        for one in asked:
            try:
                outcomes.append(self._settle(one))
            except Refusal as refusal:
                outcomes.append(refusal)
        for account in self.plan.accounts.values():
            told_by = outcomes[account.told_by]
            if account.news is not None and isinstance(told_by, Done):
                outcomes[account.told_by] = Done(told_by.reply, events=(account.news,))
        return self.plan

    def _settle(self, asked: Asked) -> Outcome:
        if isinstance(asked.caller, Refusal):
            raise asked.caller
        known = for_writer(self.known.get(asked.write.dataset_id), asked.caller)
        account = self.plan.accounts.get(known.number) or Account.of(known)
        self.plan.accounts[known.number] = account
        if isinstance(asked.items, Refusal):
            account.rejected[asked.items.code] += 1
            raise asked.items
        if self._is_stored(account, asked.write):
            account.duplicates += len(asked.items)
            return Done(ReadingsWritten(entries=(), skipped=len(asked.items)))
        if isinstance(asked.items, Columns) and account.fields.keys() >= set(asked.items.tags):
            return self._take(asked.write, account, asked.items)
        sheet = _Sheet(account, self.own_ids, self.plan.own_ids)
        for item in items_of(asked.items):
            sheet.add(item)
        return self._close(asked.write, account, sheet)

    def _take(self, write: WriteReadings, account: Account, found: Columns) -> Outcome:
        """Nothing of columns whose variables are known can be wrong, or there already."""
        self._move(write, account)
        first = account.book(found.ats, len(self.plan.outcomes))
        fields = [account.fields[tag] for tag in found.tags]
        self.plan.blocks.append(Block(account.known.number, first, fields, found.columns, found.ats))
        entries = [EntryStored(entry=entry, at=at) for entry, at in enumerate(found.ats, first)]
        return Done(ReadingsWritten(entries=tuple(entries)))

    def _move(self, write: WriteReadings, account: Account) -> None:
        if write.source:
            self.plan.positions[account.known.number, write.source] = write.position

    def _is_stored(self, account: Account, write: WriteReadings) -> bool:
        if not write.source:
            return False
        key = (account.known.number, write.source)
        return write.position <= self.plan.positions.get(key, self.positions.get(key, 0))

    def _close(self, write: WriteReadings, account: Account, sheet: _Sheet) -> Outcome:
        if sheet.rejected:
            account.rejected.update(reject.code for reject in sheet.rejected)
        if write.strict and sheet.rejected:
            account.rejected["strict"] += len(sheet.entries)
            raise _refused("strict", "nothing is stored, because not all of it can be", sheet.rejected)
        if not sheet.entries:
            raise _refused("nothing_stored", "none of the readings can be stored", sheet.rejected)
        account.duplicates += len(sheet.entries) - len(sheet.rows)
        self._move(write, account)
        written = ReadingsWritten(entries=tuple(sheet.entries), rejected=tuple(sheet.rejected))
        if not sheet.rows:
            return Done(written)
        account.book([row[1] for row in sheet.rows], len(self.plan.outcomes))
        for row in sheet.rows:
            if row[6] is not None or row[7] is not None:
                account.parts |= _parts(row)
        self.plan.rows += sheet.rows
        self.plan.own_ids.update(sheet.own_ids)
        return Done(written)


class _Sheet:
    """The readings of one write as they get their numbers; nothing counts before it is closed."""

    def __init__(
        self, account: Account, stored: Mapping[OwnId, EntryStored], planned: Mapping[OwnId, EntryStored]
    ) -> None:
        self.account = account
        self.seen = (planned, stored)
        self.rows: list[Row] = []
        self.entries: list[EntryStored] = []
        self.rejected: list[ReadingRejected] = []
        self.own_ids: dict[OwnId, EntryStored] = {}

    def add(self, item: Item | ReadingRejected) -> None:
        """Number it, find that it is there already, or reject it."""
        if isinstance(item, ReadingRejected):
            self.rejected.append(item)
            return
        own_id = None if item.id_hash is None else (self.account.known.number, item.id_hash)
        if own_id is not None and (there := self._found(own_id)) is not None:
            self.entries.append(msgspec.structs.replace(there, duplicate=True))
            return
        number = self.account.last_entry + len(self.rows) + 1
        try:
            self.rows.append(row_of(number, self.account.known.number, item, self.account.fields))
        except KeyError:
            self.rejected.append(self._unknown(item))
            return
        entry = EntryStored(entry=number, at=item.at)
        self.entries.append(entry)
        if own_id is not None:
            self.own_ids[own_id] = entry

    def _found(self, own_id: OwnId) -> EntryStored | None:
        planned, stored = self.seen
        return self.own_ids.get(own_id) or planned.get(own_id) or stored.get(own_id)

    def _unknown(self, item: Item) -> ReadingRejected:
        tags = [tag for tag, _ in item.values if tag not in self.account.fields]
        retired = [tag for tag in tags if tag in self.account.retired]
        message = "; ".join(
            f"values.{tag}: {'this variable is retired' if tag in retired else 'no such variable'}"
            for tag in tags
        )
        code = "retired_variable" if len(retired) == len(tags) else "unknown_variable"
        return ReadingRejected(index=item.index, code=code, message=message)


def row_of(entry: int, dataset: int, item: Item, fields: Mapping[str, int]) -> Row:
    """The row of a reading all of whose variables are known."""
    numbers, exact, whole = arrays({fields[tag]: value for tag, value in item.values})
    return entry, item.at, whole, dataset, numbers, exact, item.status, item.place


def arrays(values: Mapping[int, Stored]) -> tuple[list[float | None] | None, list[str | None] | None, int]:
    """Values by field as the columns `numbers`, `exact`, `whole`; no array is longer than it must be."""
    numbers: list[float | None] = []
    exact: list[str | None] = []
    whole = 0
    for number_field, (number, is_whole, text) in values.items():
        if number is not None:
            numbers += [None] * (number_field - len(numbers))
            numbers[number_field - 1] = number
        if text is not None:
            exact += [None] * (number_field - len(exact))
            exact[number_field - 1] = text
        if is_whole:
            whole |= 1 << (number_field - 1)
    return numbers or None, exact or None, whole - (1 << 64) if whole >> 63 else whole


def _parts(row: Row) -> int:
    status, place = row[6], row[7]
    parts = 0 if status is None else HAS_STATUS
    if place is not None:
        latitude, longitude, elevation = place
        parts |= HAS_POSITION if latitude is not None or longitude is not None else 0
        parts |= HAS_ELEVATION if elevation is not None else 0
    return parts


def _refused(code: str, detail: str, rejected: Sequence[ReadingRejected]) -> Invalid:
    errors = [
        FieldError(path=str(one.index), code=one.code, message=one.message) for one in rejected[:MAX_ERRORS]
    ]
    return Invalid(detail, code=code, errors=errors)
