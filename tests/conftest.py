"""Fixtures every test may ask for; servers come from `./posthouse test`."""

from __future__ import annotations

import importlib.util
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
import structlog

from shared.vault import Vault
from tests.servers import SECRET_KEY, Place, cloned_database, migrated_database, required


@pytest.fixture(scope="session", autouse=True)
def plain_log_lines() -> None:
    """What a failing test shows of the log: a line per event and short tracebacks."""
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.format_exc_info,
            structlog.processors.JSONRenderer(default=str),
        ]
    )


@pytest.fixture(scope="session")
def seattle_file() -> Path:
    """Hourly temperatures of 2010: 8,759 lines in Pacific standard time, no line break at the end.

    Found without an import: the package would want pandas, which nothing else here needs.
    """
    spec = importlib.util.find_spec("vega_datasets")
    assert spec is not None
    assert spec.origin is not None
    return Path(spec.origin).parent / "_data" / "seattle-temps.csv"


@pytest.fixture(scope="session")
def secret_key() -> str:
    """The server key of all tests."""
    return SECRET_KEY


@pytest.fixture(scope="session")
def vault(secret_key: str) -> Vault:
    """Seals and locks under the server key of all tests."""
    return Vault(secret_key)


@pytest.fixture(scope="session")
def database_server() -> Place:
    """The administrator's database of the PostgreSQL under test."""
    return Place(required("POSTHOUSE_TEST_DATABASE_URL"))


@pytest.fixture(scope="session")
async def database_template(database_server: Place) -> AsyncIterator[Place]:
    """A migrated database that is only copied, never used."""
    async with migrated_database(database_server) as place:
        yield place


@pytest.fixture
async def database(database_template: Place) -> AsyncIterator[Place]:
    """A migrated database for one test: `database.url("ingest")`, `database.admin_url`."""
    async with cloned_database(database_template) as place:
        yield place


@pytest.fixture
def database_url(database: Place) -> Callable[[str], str]:
    """`database_url("ingest")`: the address of that service in this test's database."""
    return database.url


@pytest.fixture(scope="session")
def amqp_url() -> str:
    """The administrator's address of the RabbitMQ under test."""
    return required("POSTHOUSE_TEST_AMQP_URL")


@pytest.fixture(scope="session")
def management_url() -> str:
    """Its management address, with account."""
    return required("POSTHOUSE_TEST_MANAGEMENT_URL")


@pytest.fixture(scope="session")
def redis_url() -> str:
    """The Redis or Valkey under test; shared by all tests, so use keys of your own."""
    return required("POSTHOUSE_TEST_REDIS_URL")
