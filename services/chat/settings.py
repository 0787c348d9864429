"""What can be set from outside; one field per environment variable."""

from __future__ import annotations

from shared.runtime import ServiceSettings


class Settings(ServiceSettings, frozen=True, kw_only=True):
    """Nothing of its own yet."""
