"""What the parts of the store share: the connection, and a dataset made of its row."""

from __future__ import annotations

from typing import Any

import msgspec

from services.ingest.rules import Known
from shared.contracts.ingest import Variable

Record = Any  # asyncpg's, which has no stable generic parameter between versions


counts_of = msgspec.json.Decoder(dict[str, int]).decode
MOST_DESCRIPTIONS = 2_000


class Descriptions:
    """Datasets as a process read them, for as long as their version is the one that is stored.

    Only what is in `Known` by way of a change of the version may be used: counters are old.
    """

    def __init__(self, most: int = MOST_DESCRIPTIONS) -> None:
        self._most = most
        self._known: dict[int, Known] = {}

    def find(self, number: int, version: int) -> Known | None:
        """The dataset at this version, if it was kept."""
        known = self._known.get(number)
        return known if known is not None and known.version == version else None

    def keep(self, known: Known) -> None:
        """Keep it instead of what was kept first, when there are too many."""
        self._known.pop(known.number, None)
        if len(self._known) >= self._most:
            del self._known[next(iter(self._known))]
        self._known[known.number] = known


class Statements:
    """Statements on an asyncpg connection or pool; `descriptions` are shared by those of a process."""

    def __init__(self, db: Any, descriptions: Descriptions | None = None) -> None:
        self._db = db
        self._descriptions = descriptions or Descriptions()


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
