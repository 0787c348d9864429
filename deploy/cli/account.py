"""`account`: broker accounts for services written elsewhere, in any language."""

from __future__ import annotations

import argparse
from typing import Any


def add_parsers(commands: Any) -> None:
    """The sub-commands of `account`."""


__all__ = ["add_parsers"]
_ = argparse
