"""Who may do what with a dataset, and what its variables can become: no await, no I/O, no clock."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from uuid import UUID

import msgspec

from shared.contracts.base import FieldError, Principal
from shared.contracts.ingest import MAX_VARIABLES, Dataset, KeyHolder, Ledger, Variable, VariableSpec
from shared.errors import Forbidden, Invalid, NotFound, Refusal, Unauthorized

Bounds = tuple[datetime, datetime]
UNDO = timedelta(hours=24)
# Beyond that for what went with its owner: the word that the owner is back may be on its way.
WORD_ON_ITS_WAY = timedelta(hours=1)
OWNERS_KEPT = timedelta(days=30)
# Columns of a CSV that are not variables, whatever the dataset.
RESERVED_TAGS = frozenset({"id", "entry", "at", "status", "latitude", "longitude", "elevation"})
HAS_STATUS, HAS_POSITION, HAS_ELEVATION = 1, 2, 4


class Known(msgspec.Struct, frozen=True, kw_only=True):
    """A dataset as its row, its variables and its counters say; `first_at` is a bound, not exact."""

    number: int
    id: UUID
    project: str
    owner: str
    name: str
    description: str
    public: bool
    version: int
    created_at: datetime
    deleted_at: datetime | None
    variables: tuple[Variable, ...]
    last_entry: int
    entries: int
    stored: int
    duplicates: int
    expired: int
    rejected: dict[str, int]
    first_at: datetime | None
    last_at: datetime | None
    cleared: int
    parts: int

    def shown(self) -> Dataset:
        """What a client sees of it."""
        return Dataset(
            id=self.id,
            channel_id=self.number,
            name=self.name,
            description=self.description,
            public=self.public,
            variables=self.variables,
            entries=self.entries,
            created_at=self.created_at,
            last_entry_at=self.last_at,
            version=self.version,
            deleted_at=self.deleted_at,
            purge_at=None if self.deleted_at is None else self.deleted_at + UNDO,
        )

    def ledger(self) -> Ledger:
        """Where its readings went."""
        return Ledger(
            stored=self.stored,
            duplicates=self.duplicates,
            rejected=self.rejected,
            expired=self.expired,
            in_flight=0,
            last_entry=self.last_entry,
        )


def is_owner(known: Known, caller: Principal) -> bool:
    """Whether the caller is the person the dataset belongs to, not limited by scopes."""
    owner = caller.kind == "user" and caller.id == known.owner and not caller.scopes
    return owner and caller.project == known.project


def holder(caller: Principal, found: KeyHolder | None) -> Principal | Refusal:
    """A caller by what his key opens, which the door could not ask about."""
    if found is None or (found.project, str(found.dataset_id)) != (caller.project, caller.id):
        return Unauthorized("no dataset has this key (any more)")
    return msgspec.structs.replace(caller, scopes=(f"dataset:{found.dataset_id}:{found.kind}",))


def can_write(known: Known, caller: Principal) -> bool:
    """Whether the caller may append readings."""
    return is_owner(known, caller) or _holds(known, caller, "write")


def can_read_all(known: Known, caller: Principal) -> bool:
    """Whether the caller may read also what is not public: the write key reads too."""
    return can_write(known, caller) or _holds(known, caller, "read")


def can_read(known: Known, caller: Principal) -> bool:
    """Whether the caller may know of the dataset."""
    return can_read_all(known, caller) or (known.public and caller.project == known.project)


def _holds(known: Known, caller: Principal, right: str) -> bool:
    return caller.project == known.project and f"dataset:{known.id}:{right}" in caller.scopes


def for_reader(known: Known | None, caller: Principal) -> Known:
    """The dataset, for whoever may read it; for others there is none."""
    if known is None or not can_read(known, caller):
        raise NotFound("no such dataset")
    return known


def for_key_holder(known: Known | None, caller: Principal) -> Known:
    """The dataset, for its owner and holders of a key; being public is not enough."""
    found = for_reader(known, caller)
    if not can_read_all(found, caller):
        raise Forbidden("only the owner and holders of a key may see this")
    return found


def for_writer(known: Known | None, caller: Principal) -> Known:
    """The dataset, for whoever may append to it."""
    if known is None or not can_write(known, caller):
        for_reader(known, caller)
        raise Forbidden("this takes the owner or the write key")
    return known


def for_owner(known: Known | None, caller: Principal) -> Known:
    """The dataset, for its owner."""
    found = for_reader(known, caller)
    if not is_owner(found, caller):
        raise Forbidden("only the owner may do this")
    return found


def restorable(known: Known | None, caller: Principal, now: datetime) -> Known:
    """The deleted dataset, for its owner, within 24 h."""
    if known is None or known.deleted_at is None or not is_owner(known, caller):
        raise NotFound("no such deleted dataset")
    if now - known.deleted_at >= UNDO:
        raise NotFound("deleted more than 24 hours ago")
    return known


def person(caller: Principal) -> Principal:
    """The caller, who must be a person without limits."""
    if caller.kind == "anonymous":
        raise Unauthorized("sign in first")
    if caller.kind != "user" or caller.scopes:
        raise Forbidden("only a person may own datasets")
    return caller


def at_version(known: Known, wanted: int | None) -> None:
    """Refuse a change that was made up from an older description."""
    if wanted is not None and wanted != known.version:
        raise Refusal(
            f"the dataset is at version {known.version}: read it again", code="changed_meanwhile", status=412
        )


def planned(current: Sequence[Variable], wanted: Sequence[VariableSpec]) -> tuple[Variable, ...]:
    """The variables after a change, in order of field; raises Invalid with every mistake.

    A variable keeps its field for ever; one that is not wanted is retired, and comes back with its tag.
    """
    by_tag = {variable.tag: variable for variable in current}
    errors = _mistakes(by_tag, wanted)
    taken = {variable.field for variable in current} | {spec.field for spec in wanted if spec.field}
    free = iter([field for field in range(1, MAX_VARIABLES + 1) if field not in taken])
    plan = {variable.tag: msgspec.structs.replace(variable, retired=True) for variable in current}
    for index, spec in enumerate(wanted):
        known = by_tag.get(spec.tag)
        field = known.field if known else spec.field or next(free, 0)
        if field == 0:
            message = f"a dataset has at most {MAX_VARIABLES} variables, retired ones included"
            errors.append(FieldError(path=f"variables.{index}", code="too_many_variables", message=message))
            break
        plan[spec.tag] = Variable(tag=spec.tag, field=field, name=spec.name, unit=spec.unit, retired=False)
    if errors:
        raise Invalid("the variables cannot be like this", errors=errors)
    return tuple(sorted(plan.values(), key=lambda variable: variable.field))


def _mistakes(by_tag: dict[str, Variable], wanted: Sequence[VariableSpec]) -> list[FieldError]:
    errors: list[FieldError] = []
    tags: set[str] = set()
    holders = {variable.field: variable.tag for variable in by_tag.values()}

    def wrong(index: int, name: str, code: str, message: str) -> None:
        errors.append(FieldError(path=f"variables.{index}.{name}", code=code, message=message))

    for index, spec in enumerate(wanted):
        known = by_tag.get(spec.tag)
        if spec.tag in tags:
            wrong(index, "tag", "tag_twice", f"{spec.tag} is there already")
        if spec.tag in RESERVED_TAGS:
            wrong(index, "tag", "reserved_tag", f"{spec.tag} is the name of a part of every reading")
        if known and spec.field not in (None, known.field):
            wrong(index, "field", "field_is_for_ever", f"{spec.tag} has field {known.field}")
        elif spec.field is not None and holders.setdefault(spec.field, spec.tag) != spec.tag:
            wrong(index, "field", "field_taken", f"field {spec.field} is that of {holders[spec.field]}")
        tags.add(spec.tag)
    return errors


def bounds(known: Known, start: datetime | None, end: datetime | None) -> Bounds | None:
    """The part of start <= at < end that can have readings: partitions outside of it are never opened."""
    if known.first_at is None or known.last_at is None:
        return None
    after_last = known.last_at + timedelta(microseconds=1)
    return max(start or known.first_at, known.first_at), min(end or after_last, after_last)


def rows_like(rows: int, size: int, wanted: int) -> int:
    """How many rows to take next, when so many had this size, to have about nine tenths of the wanted one."""
    return max(1, min(rows * 4, rows * wanted * 9 // 10 // max(size, 1)))


def selected(known: Known, tags: Sequence[str]) -> tuple[Variable, ...]:
    """The variables to answer: those asked for, retired or not, else all that are not retired."""
    if not tags:
        return tuple(variable for variable in known.variables if not variable.retired)
    by_tag = {variable.tag: variable for variable in known.variables}
    errors = [
        FieldError(where="query", path="variables", code="unknown_variable", message=f"there is no {tag}")
        for tag in tags
        if tag not in by_tag
    ]
    if errors:
        raise Invalid("the dataset has no such variable", errors=errors)
    return tuple(sorted({by_tag[tag] for tag in tags}, key=lambda variable: variable.field))
