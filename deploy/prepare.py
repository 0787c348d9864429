"""`python -m deploy.prepare`: the database and the broker as this version needs them."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Mapping

from deploy.broker import BrokerNotPrepared, prepare_broker
from deploy.database import Unprepared, prepare_database
from deploy.settling import settle_broker


async def _prepare(environment: Mapping[str, str]) -> None:
    await prepare_database(environment)
    await prepare_broker(environment)
    await settle_broker(environment)


def main() -> int:
    """Prepare both; 1 and one sentence on standard error when something is in the way."""
    try:
        asyncio.run(_prepare(os.environ))
    except (Unprepared, BrokerNotPrepared) as error:
        return _failed(str(error))
    except Exception as error:
        return _failed(f"Preparation failed: {type(error).__name__}: {error}")
    return 0


def _failed(sentence: str) -> int:
    print(" ".join(sentence.split()), file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main())
