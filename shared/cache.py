"""Redis or Valkey: what may be lost without harm, such as cached answers and rate limits."""

from __future__ import annotations

from redis import exceptions
from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from shared.errors import Away

MOST_CONNECTIONS = 32
ANSWER_SECONDS = 2.0


def connect(url: str, *, client_name: str, seconds: float = ANSWER_SECONDS) -> Redis:
    """A client that connects when first used; every call ends within about `seconds` of waiting at each step.

    The pool makes callers wait for a free connection; redis-py's default pool raises instead. A connection
    the server has closed meanwhile is opened once more and asked again: what is asked may be done twice.
    """
    pool = BlockingConnectionPool.from_url(
        url,
        max_connections=MOST_CONNECTIONS,
        timeout=seconds,
        socket_timeout=seconds,
        socket_connect_timeout=seconds,
        health_check_interval=30,
        client_name=client_name,
        retry=Retry(NoBackoff(), 1, supported_errors=(exceptions.ConnectionError,)),
        decode_responses=False,
    )
    return Redis.from_pool(pool)


def away(error: BaseException) -> bool:
    """Whether an error means that Redis does not answer, still loads, or cannot write: not a bug of ours."""
    if isinstance(error, exceptions.AuthenticationError | exceptions.AuthorizationError):
        return False
    return isinstance(error, _AWAY)


_AWAY = (
    Away,
    exceptions.ConnectionError,  # BusyLoadingError and MaxConnectionsError among them
    exceptions.TimeoutError,
    exceptions.ReadOnlyError,  # a replica before its promotion
    exceptions.OutOfMemoryError,
    ConnectionError,
    TimeoutError,
)
