"""The database half of `deploy.prepare`: the database itself, roles, schemas, migrations."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

import asyncpg

from deploy.identity import derive_password
from shared.db.migrate import BadMigration, migrate

SERVICES = Path(__file__).parent.parent / "services"
NO_DATABASE = {"gateway"}


class Unprepared(Exception):
    """What is missing or wrong, in one sentence."""


def services() -> dict[str, Path]:
    """Every service that has a schema of its own, and its folder."""
    folders = sorted(path for path in SERVICES.iterdir() if path.is_dir() and path.name[0].isalpha())
    return {path.name: path for path in folders if path.name not in NO_DATABASE}


async def prepare_database(environment: Mapping[str, str]) -> None:
    """Create the database if it is missing, then roles, schemas and migrations."""
    url = _required(environment, "POSTHOUSE_DATABASE_URL")
    secret_key = _required(environment, "POSTHOUSE_SECRET_KEY")
    try:
        await create_database(url)
        await migrate(url, services(), lambda role: derive_password(secret_key, f"postgres:{role}"))
    except BadMigration as error:
        raise Unprepared(str(error)) from error
    except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
        reason = str(error) or type(error).__name__
        raise Unprepared(f"PostgreSQL at {_shown(url)} cannot be prepared: {reason}") from error


async def create_database(url: str) -> None:
    """Only when it is missing."""
    try:
        connection = await asyncpg.connect(url, timeout=10)
    except asyncpg.InvalidCatalogNameError:
        parts = urlsplit(url)
        connection = await asyncpg.connect(urlunsplit(parts._replace(path="/postgres")), timeout=10)
        name = parts.path.lstrip("/").replace('"', '""')
        await connection.execute(f'CREATE DATABASE "{name}"')
    await connection.close()


def _required(environment: Mapping[str, str], name: str) -> str:
    value = environment.get(name, "")
    if not value:
        raise Unprepared(f"{name} is missing.")
    return value


def _shown(url: str) -> str:
    parts = urlsplit(url)
    return f"{parts.hostname}:{parts.port or 5432}{parts.path}"
