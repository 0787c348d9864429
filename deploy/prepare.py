"""`python -m deploy.prepare`: the database and the broker as this version needs them."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Mapping

from deploy.broker import prepare_broker
from deploy.database import prepare_database


async def _prepare(environment: Mapping[str, str]) -> None:
    await prepare_database(environment)
    await prepare_broker(environment)


def main() -> int:
    """Prepare both; 1 and one sentence on standard error when something is in the way."""
    try:
        asyncio.run(_prepare(os.environ))
    except Exception as error:
        print(" ".join(str(error).split()) or type(error).__name__, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
