"""What the parts of the store share: the connection, and a dataset made of its row."""

from __future__ import annotations

from typing import Any

import msgspec

from services.ingest.rules import Known
from shared.contracts.ingest import Variable

Record = Any  # asyncpg's, which has no stable generic parameter between versions


_counts = msgspec.json.Decoder(dict[str, int])


class Statements:
    """Statements on an asyncpg connection or pool."""

    def __init__(self, db: Any) -> None:
        self._db = db


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
    rejected = _counts.decode(columns.pop("rejected"))
    return Known(variables=variables, rejected=rejected, **columns)


def at_most_one(row: Record | None) -> Known | None:
    """The dataset of a row, if there is one."""
    return None if row is None else known_of(row)
