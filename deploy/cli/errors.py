"""What ends a command, in words for the person who typed it."""

from __future__ import annotations


class Stopped(Exception):
    """One sentence that says what is wrong and what to do; exit status 2."""
