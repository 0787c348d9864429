"""What the parts of the store share: the connection, and a dataset made of its row."""

from __future__ import annotations

from typing import Any
from uuid import UUID

import msgspec

from services.ingest.rules import Known
from shared.contracts.ingest import Variable

Record = Any  # asyncpg's, which has no stable generic parameter between versions


counts_of = msgspec.json.Decoder(dict[str, int]).decode
MOST_DESCRIPTIONS = 2_000
WRITES_IN_DOUBT = 8


class Descriptions:
    """Datasets as a process read them, for as long as their version is the one that is stored.

    Only what is in `Known` by way of a change of the version may be used: counters are old.
    """

    def __init__(self, most: int = MOST_DESCRIPTIONS) -> None:
        self._most = most
        self._known: dict[int, Known] = {}
        self._numbers: dict[UUID, int] = {}
        self._last_entries: dict[int, int] = {}
        self._doubts: dict[int, int] = {}

    def find(self, number: int, version: int) -> Known | None:
        """The dataset at this version, if it was kept."""
        known = self._known.get(number)
        return known if known is not None and known.version == version else None

    def keep(self, known: Known) -> None:
        """Keep it instead of what was kept first, when there are too many."""
        self._known.pop(known.number, None)
        if len(self._known) >= self._most:
            oldest = self._known.pop(next(iter(self._known)))
            self._numbers.pop(oldest.id, None)
            self._last_entries.pop(oldest.number, None)
            self._doubts.pop(oldest.number, None)
        self._known[known.number] = known
        self._numbers[known.id] = known.number

    def numbered(self, number: int, last_entry: int) -> None:
        """The last entry a dataset has if all goes well."""
        if self._doubts.get(number):
            self._doubts[number] -= 1
        elif number in self._known:
            self._last_entries[number] = last_entry

    def doubt(self, number: int) -> None:
        """It was another one: somebody else writes there too. Believe nothing for a while."""
        self._last_entries.pop(number, None)
        if number in self._known:
            self._doubts[number] = WRITES_IN_DOUBT

    def as_if_now(self, dataset_id: UUID) -> Known | None:
        """The dataset with the last entry this process believes it to have, all other counters at nothing."""
        known = self._known.get(self._numbers.get(dataset_id, 0))
        last_entry = 0 if known is None else self._last_entries.get(known.number, 0)
        if known is None or not last_entry:
            return None
        return msgspec.structs.replace(
            known,
            last_entry=last_entry,
            entries=0,
            stored=0,
            duplicates=0,
            rejected={},
            first_at=None,
            last_at=None,
            parts=0,
        )


class Statements:
    """Statements on an asyncpg connection or pool; `descriptions` are shared by those of a process."""

    def __init__(self, db: Any, descriptions: Descriptions | None = None) -> None:
        self._db = db
        self._descriptions = descriptions or Descriptions()

    @property
    def remembered(self) -> Descriptions:
        """What this process knows of datasets without asking."""
        return self._descriptions


def known_of(row: Record) -> Known:
    """A row of the view `described`."""
    columns = dict(row)
    arrays = zip(
        columns.pop("tags"),
        columns.pop("fields"),
        columns.pop("names"),
        columns.pop("units"),
        columns.pop("retired"),
        strict=True,
    )
    variables = tuple(
        Variable(tag=tag, field=field, name=name, unit=unit, retired=retired)
        for tag, field, name, unit, retired in arrays
    )
    rejected = counts_of(columns.pop("rejected"))
    return Known(variables=variables, rejected=rejected, **columns)


def at_most_one(row: Record | None) -> Known | None:
    """The dataset of a row, if there is one."""
    return None if row is None else known_of(row)
