"""What the parts of the store have in common."""

from __future__ import annotations

from typing import Any


class Base:
    """Works on one connection, or on the pool."""

    def __init__(self, db: Any) -> None:
        self._db = db
