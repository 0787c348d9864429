"""Logging as a service has it, for as long as a test needs it."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TextIO

import structlog

from shared import logs


@contextmanager
def configured(stream: TextIO) -> Iterator[None]:
    """Lines of the service `auth` go to `stream`; afterwards all is as it was."""
    root, before = logging.getLogger(), structlog.get_config()
    handlers, level = root.handlers[:], root.level
    logs.configure("auth", "info", stream)
    try:
        yield
    finally:
        logs.on_ship(None)
        structlog.configure(**before)
        root.handlers[:] = handlers
        root.setLevel(level)
