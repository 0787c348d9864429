"""Accounts and sessions on a real PostgreSQL: handlers are given messages, and the tables are looked at."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any, Literal, TypeVar

import asyncpg
import jwt
import pytest
from argon2 import PasswordHasher
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from services.auth.handlers import (
    Deps,
    forget_sessions,
    list_signing_keys,
    open_session,
    set_up,
)
from services.auth.hashing import Hasher
from services.auth.store import Store
from services.auth.tokens import Issuer
from shared.bus.routes import Done
from shared.contracts.auth import (
    Account,
    ForgetSessions,
    ListSigningKeys,
    OpenSession,
    SessionOpened,
    SetUp,
)
from shared.contracts.base import ANONYMOUS, Message, Principal
from shared.db import Database
from shared.errors import Conflict, Invalid, Unauthorized
from shared.vault import Vault
from tests.servers import Place

NOW = datetime.now(UTC).replace(microsecond=0)
PASSWORD = "eleven purple kettles"
QUICK = PasswordHasher(memory_cost=64, time_cost=1, parallelism=1)

M = TypeVar("M", bound=Message)
R = TypeVar("R")


class Service:
    """Runs a handler as the bus does: a command in one transaction, a query on the pool."""

    def __init__(self, database: Database, hasher: Hasher, vault: Vault) -> None:
        self.database = database
        self.hasher = hasher
        self.vault = vault
        self.issuer = Issuer(vault, 600)
        self.now = NOW

    def deps(self, db: Any, caller: Principal = ANONYMOUS) -> Deps:
        return Deps(Store(db), caller, self.now, self.vault, self.hasher, self.issuer)

    async def command(
        self, handler: Callable[[M, Deps], Awaitable[Done[R]]], message: M, caller: Principal = ANONYMOUS
    ) -> R:
        async with self.database.transaction() as connection:
            return (await handler(message, self.deps(connection, caller))).reply

    async def set_up(
        self, name: str = "Ann", email: str = "ann@example.org", password: str = PASSWORD
    ) -> Account:
        sealed = self.vault.seal(password, "auth.password")
        return await self.command(set_up, SetUp(name=name, email=email, password=sealed))

    async def open_session(
        self, name: str = "ann", password: str = PASSWORD, caller: Principal = ANONYMOUS
    ) -> SessionOpened:
        sealed = self.vault.seal(password, "auth.password")
        return await self.command(open_session, OpenSession(name=name, password=sealed), caller)

    async def public_keys(self) -> dict[str, bytes]:
        reply = (await list_signing_keys(ListSigningKeys(), self.deps(self.database.pool))).reply
        return {key.kid: key.public_key for key in reply.keys}

    async def claims(self, session: SessionOpened) -> dict[str, Any]:
        """The token as the gateway verifies it: by the listed key its header names."""
        token = self.vault.unseal(session.access_token, "auth.token")
        public = (await self.public_keys())[jwt.get_unverified_header(token)["kid"]]
        key = Ed25519PublicKey.from_public_bytes(public)
        return jwt.decode(token, key, ["EdDSA"], audience="posthouse", issuer="posthouse")


@pytest.fixture(scope="module")
def hasher() -> Iterator[Hasher]:
    with Hasher(QUICK, workers=2, queue=64) as hasher:
        yield hasher


@pytest.fixture
async def auth(database: Place, hasher: Hasher, vault: Vault) -> AsyncIterator[Service]:
    db = Database(database.url("auth"), application_name="test")
    await db.open()
    yield Service(db, hasher, vault)
    await db.close()


async def test_the_first_account_is_an_administrator(auth: Service) -> None:
    account = await auth.set_up()
    assert (account.name, account.email, account.roles) == ("Ann", "ann@example.org", ("administrator",))


async def test_it_can_be_made_once(auth: Service) -> None:
    await auth.set_up()
    with pytest.raises(Conflict) as refused:
        await auth.set_up("Bob", "bob@example.org")
    assert refused.value.code == "already_set_up"


async def test_of_fifty_who_race_one_wins(auth: Service) -> None:
    racing = (auth.set_up(f"racer {n}", f"{n}@example.org") for n in range(50))
    results = await asyncio.gather(*racing, return_exceptions=True)
    assert len([result for result in results if isinstance(result, Account)]) == 1
    assert {result.code for result in results if isinstance(result, Conflict)} == {"already_set_up"}
    assert await auth.database.pool.fetchval("SELECT count(*) FROM account") == 1


async def test_it_stays_made_when_every_account_is_gone(auth: Service) -> None:
    await auth.set_up()
    await auth.database.pool.execute("DELETE FROM account")
    with pytest.raises(Conflict):
        await auth.set_up()


async def test_a_bad_first_account_leaves_the_place_free(auth: Service) -> None:
    with pytest.raises(Invalid) as refused:
        await auth.set_up("a@b", "a b@example.org", "short")
    assert {error.path for error in refused.value.errors} == {"name", "email", "password"}
    assert await auth.set_up()


@pytest.mark.parametrize("name", ["Ann", "ANN", "ann@example.org", "Ann@Example.Org"])
async def test_a_session_is_opened_by_name_or_address(auth: Service, name: str) -> None:
    account = await auth.set_up()
    session = await auth.open_session(name)
    claims = await auth.claims(session)
    assert (session.token_type, session.expires_in) == ("Bearer", 600)
    assert (claims["sub"], claims["name"], claims["roles"]) == (str(account.id), "Ann", ["administrator"])
    [row] = await auth.database.pool.fetch("SELECT id, account_id, expires_at FROM session")
    assert (str(row["id"]), row["account_id"]) == (claims["sid"], account.id)
    assert row["expires_at"] == NOW + timedelta(seconds=600)


async def test_the_same_password_typed_on_another_keyboard_opens_it(auth: Service) -> None:
    await auth.set_up(password="cafe\u0301 with five ﬁgs")
    assert await auth.open_session(password="café with five figs")


async def refusal(auth: Service, name: str, password: str) -> tuple[Any, ...]:
    with pytest.raises(Unauthorized) as refused:
        await auth.open_session(name, password)
    error = refused.value
    return error.status, error.code, error.detail, error.errors


async def test_an_unknown_name_and_a_wrong_password_are_refused_alike(auth: Service) -> None:
    await auth.set_up()
    wrong = await refusal(auth, "ann", "twelve purple kettles")
    assert wrong[1] == "wrong_credentials"
    assert await refusal(auth, "nobody", PASSWORD) == wrong
    assert await refusal(auth, "nobody@example.org", PASSWORD) == wrong
    assert await refusal(auth, "ann", "x" * 100_000) == wrong
    assert await auth.database.pool.fetchval("SELECT count(*) FROM session") == 0


async def test_an_unknown_name_costs_the_same_hash(auth: Service) -> None:
    """One verification each, counted rather than timed."""
    await auth.set_up()
    counted = CountingArgon2(memory_cost=64, time_cost=1, parallelism=1)
    with Hasher(counted, workers=1, queue=8) as auth.hasher:
        await refusal(auth, "ann", "wrong")
        known, counted.verified = counted.verified, 0
        await refusal(auth, "nobody", "wrong")
    assert (known, counted.verified) == (1, 1)


class CountingArgon2(PasswordHasher):
    """Knows how often it was asked."""

    verified = 0

    def verify(self, hash: str | bytes, password: str | bytes) -> Literal[True]:
        self.verified += 1
        return super().verify(hash, password)


async def test_a_deleted_account_opens_nothing(auth: Service) -> None:
    await auth.set_up()
    await auth.database.pool.execute("UPDATE account SET deleted_at = now()")
    assert (await refusal(auth, "ann", PASSWORD))[1] == "wrong_credentials"


async def test_an_account_of_another_project_opens_nothing_here(auth: Service) -> None:
    await auth.set_up()
    with pytest.raises(Unauthorized):
        await auth.open_session(caller=Principal(project="elsewhere"))


async def test_a_hash_of_old_parameters_is_replaced_as_its_owner_signs_in(auth: Service) -> None:
    await auth.set_up()
    old = await auth.database.pool.fetchval("SELECT password_hash FROM account")
    stronger = PasswordHasher(memory_cost=128, time_cost=1, parallelism=1)
    with Hasher(stronger, workers=1, queue=8) as auth.hasher:
        await auth.open_session()
        new = await auth.database.pool.fetchval("SELECT password_hash FROM account")
        await auth.open_session()
        assert await auth.database.pool.fetchval("SELECT password_hash FROM account") == new
    assert (old != new, "m=128" in new) == (True, True)


async def test_sessions_are_forgotten_a_day_after_their_end(auth: Service) -> None:
    await auth.set_up()
    await auth.open_session()
    auth.now = NOW + timedelta(days=1, seconds=500)
    await auth.open_session()
    await auth.command(forget_sessions, ForgetSessions())
    assert await auth.database.pool.fetchval("SELECT count(*) FROM session") == 2
    auth.now = NOW + timedelta(days=1, seconds=601)
    await auth.command(forget_sessions, ForgetSessions())
    assert await auth.database.pool.fetchval("SELECT count(*) FROM session") == 1


async def test_processes_that_need_the_first_key_at_once_agree_on_one(auth: Service) -> None:
    await auth.set_up()
    sessions = await asyncio.gather(*(auth.open_session() for _ in range(8)))
    assert len({(await auth.claims(session))["sid"] for session in sessions}) == 8
    assert len(await auth.public_keys()) == 1


async def test_a_key_is_there_before_anybody_signs_in_and_stays_the_same(auth: Service) -> None:
    listed = await asyncio.gather(*(auth.public_keys() for _ in range(8)))
    [kid] = listed[0]
    assert all(keys == listed[0] for keys in listed)
    await auth.set_up()
    session = await auth.open_session()
    assert jwt.get_unverified_header(auth.vault.unseal(session.access_token, "auth.token"))["kid"] == kid


async def test_a_key_made_in_a_transaction_that_failed_signs_nothing_later(auth: Service) -> None:
    await auth.set_up()
    async with auth.database.connection() as connection:
        transaction = connection.transaction()
        await transaction.start()
        sealed = auth.vault.seal(PASSWORD, "auth.password")
        await open_session(OpenSession(name="ann", password=sealed), auth.deps(connection))
        await transaction.rollback()
    assert await auth.claims(await auth.open_session())


async def test_a_retired_key_is_listed_while_its_tokens_live(auth: Service) -> None:
    await auth.set_up()
    await auth.open_session()
    await auth.database.pool.execute("UPDATE signing_key SET retired_at = $1", NOW)
    await auth.open_session()
    assert len(await auth.public_keys()) == 2
    auth.now = NOW + timedelta(seconds=601)
    assert len(await auth.public_keys()) == 1


async def test_a_dump_of_the_database_tells_no_secret(auth: Service, database: Place) -> None:
    await auth.set_up()
    session = await auth.open_session()
    token = auth.vault.unseal(session.access_token, "auth.token")
    key = await Store(auth.database.pool).signing_key()
    assert key is not None
    private_key = auth.vault.unlock(key.locked_private_key, "auth.signing_key")
    dump = await everything(database)
    assert "ann@example.org" in dump
    for secret in (PASSWORD, token, token.rpartition(".")[2], private_key):
        assert secret not in dump
        assert secret.encode().hex() not in dump


async def everything(place: Place) -> str:
    """Every row of every table, as text."""
    admin = await asyncpg.connect(place.admin_url)
    try:
        tables = await admin.fetch(
            "SELECT format('%I.%I', schemaname, tablename) AS name FROM pg_tables"
            " WHERE schemaname NOT IN ('pg_catalog', 'information_schema')"
        )
        rows = [
            await admin.fetch(
                "SELECT to_json(t)::text AS row FROM TABLE_ AS t".replace("TABLE_", table["name"])
            )
            for table in tables
        ]
        return json.dumps([row["row"] for part in rows for row in part])
    finally:
        await admin.close()
