"""What ingest can be told from outside, beside what every service needs."""

from __future__ import annotations

from datetime import date
from typing import Annotated

from shared.runtime import ServiceSettings
from shared.settings import note


class Settings(ServiceSettings, frozen=True, kw_only=True):
    """One field per variable."""

    oldest_reading: Annotated[date, note("readings before this day (UTC) are rejected")] = date(2000, 1, 1)
    newest_ahead_hours: Annotated[
        int, note("how many hours a reading may be in the future", ge=0, le=87_600)
    ] = 24
