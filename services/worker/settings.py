"""What can be set from outside; one field per environment variable."""

from __future__ import annotations

from typing import Annotated

from shared.runtime import ServiceSettings
from shared.settings import note


class Settings(ServiceSettings, frozen=True, kw_only=True):
    """What every service has, and how long log lines are kept."""

    log_days: Annotated[int, note("days that shipped log lines are kept", ge=1, le=3650)] = 30
