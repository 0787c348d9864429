"""A Redis at the end of a line that a test can freeze and cut, and hashes that cost nothing."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from urllib.parse import urlsplit

import pytest
from redis.asyncio import Redis

from services.auth.hashing import Hasher
from shared import cache
from tests.integration.auth_service import QUICK
from tests.line import Line, line_to


@pytest.fixture
async def line(redis_url: str) -> AsyncIterator[Line]:
    """The line to Redis."""
    parts = urlsplit(redis_url)
    async with line_to(parts.hostname or "", parts.port or 6379) as line:
        yield line


@pytest.fixture
async def redis(redis_url: str, line: Line) -> AsyncIterator[Redis]:
    """A client at the end of it."""
    parts = urlsplit(redis_url)
    account = parts.netloc.rpartition("@")[0]
    netloc = f"{account}@127.0.0.1:{line.port}" if account else f"127.0.0.1:{line.port}"
    redis = cache.connect(parts._replace(netloc=netloc).geturl(), client_name="test", seconds=1.0)
    yield redis
    await redis.aclose()


@pytest.fixture(scope="module")
def hasher() -> Iterator[Hasher]:
    """Argon2id at its cheapest, in two threads."""
    with Hasher(QUICK, workers=2, queue=64) as hasher:
        yield hasher
