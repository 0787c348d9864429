"""The servers tests run on, and a migrated database of its own for every test that asks."""

from __future__ import annotations

import os
import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from urllib.parse import urlsplit, urlunsplit

import asyncpg
import pytest

from deploy.database import prepare_database
from deploy.identity import derive_password
from shared.db.migrate import role_of

# Fixed, because roles belong to the whole server: every run on one server must agree on their passwords.
SECRET_KEY = "dGVzdHMgb25seTogdGhpcyBrZXkgcHJvdGVjdHMgbm90aGluZw"


def required(name: str) -> str:
    """The address in an environment variable; without it the test fails."""
    value = os.environ.get(name, "")
    if not value:
        pytest.fail(f"{name} is missing: this test needs the server; run the tests with ./posthouse test.")
    return value


@dataclass(frozen=True)
class Place:
    """One database: the administrator's address, and each service's."""

    admin_url: str

    @property
    def name(self) -> str:
        """The database's name."""
        return urlsplit(self.admin_url).path.lstrip("/")

    def url(self, service: str) -> str:
        """The address a service works with."""
        role = role_of(service)
        parts = urlsplit(self.admin_url)
        host = parts.netloc.rpartition("@")[2]
        account = f"{role}:{derive_password(SECRET_KEY, f'postgres:{role}')}"
        return urlunsplit(parts._replace(netloc=f"{account}@{host}"))

    def sibling(self, name: str) -> Place:
        """Another database of the same server."""
        return Place(urlunsplit(urlsplit(self.admin_url)._replace(path=f"/{name}")))


@asynccontextmanager
async def empty_database(server: Place) -> AsyncIterator[Place]:
    """A new database with nothing in it, dropped afterwards."""
    async with _created(server, "") as place:
        yield place


@asynccontextmanager
async def migrated_database(server: Place) -> AsyncIterator[Place]:
    """A new database as a start of Posthouse leaves it: the template of all others."""
    async with _created(server, "") as place:
        await prepare_database(
            {"POSTHOUSE_DATABASE_URL": place.admin_url, "POSTHOUSE_SECRET_KEY": SECRET_KEY}
        )
        yield place


@asynccontextmanager
async def cloned_database(template: Place) -> AsyncIterator[Place]:
    """A copy of a database nobody is connected to."""
    async with _created(template, f" TEMPLATE {template.name}") as place:
        yield place


@asynccontextmanager
async def _created(beside: Place, clause: str) -> AsyncIterator[Place]:
    place = beside.sibling(f"posthouse_test_{secrets.token_hex(6)}")
    await _server(beside, f"CREATE DATABASE {place.name}{clause}")
    try:
        yield place
    finally:
        await _server(beside, f"DROP DATABASE {place.name} WITH (FORCE)")


async def _server(beside: Place, sql: str) -> None:
    connection = await asyncpg.connect(beside.sibling("postgres").admin_url, timeout=10)
    try:
        await connection.execute(sql)
    finally:
        await connection.close()
