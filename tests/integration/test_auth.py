"""Accounts and sessions on a real PostgreSQL: handlers are given messages, and the tables are looked at."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from datetime import timedelta
from typing import Any, Literal

import jwt
import pytest
from argon2 import PasswordHasher

from services.auth.handlers import sessions, signing_keys
from services.auth.handlers.sessions import open_session
from services.auth.hashing import Hasher
from services.auth.store import Store
from services.gateway.tokens import AccessTokens
from shared.contracts.auth import Account, ForgetSessions, OpenSession, RotateSigningKey
from shared.contracts.base import Principal
from shared.db import Database
from shared.errors import Conflict, Invalid, Unauthorized
from shared.vault import Vault
from tests.integration.auth_service import NOW, PASSWORD, QUICK, Auth, everything, quick_tools
from tests.servers import Place


@pytest.fixture(scope="module")
def hasher() -> Iterator[Hasher]:
    with Hasher(QUICK, workers=2, queue=64) as hasher:
        yield hasher


@pytest.fixture
async def auth(database: Place, hasher: Hasher, vault: Vault) -> AsyncIterator[Auth]:
    db = Database(database.url("auth"), application_name="test")
    await db.open()
    yield Auth(db, quick_tools(vault, hasher))
    await db.close()


async def test_the_first_account_is_an_administrator(auth: Auth) -> None:
    account = await auth.set_up()
    assert (account.name, account.email, account.roles) == ("Ann", "ann@example.org", ("administrator",))


async def test_it_can_be_made_once(auth: Auth) -> None:
    await auth.set_up()
    with pytest.raises(Conflict) as refused:
        await auth.set_up("Bob", "bob@example.org")
    assert refused.value.code == "already_set_up"


async def test_of_fifty_who_race_one_wins(auth: Auth) -> None:
    racing = (auth.set_up(f"racer {n}", f"{n}@example.org") for n in range(50))
    results = await asyncio.gather(*racing, return_exceptions=True)
    assert len([result for result in results if isinstance(result, Account)]) == 1
    assert {result.code for result in results if isinstance(result, Conflict)} == {"already_set_up"}
    assert await auth.sql("SELECT count(*) FROM account") == 1


async def test_it_stays_made_when_every_account_is_gone(auth: Auth) -> None:
    await auth.set_up()
    await auth.database.pool.execute("DELETE FROM account")
    with pytest.raises(Conflict):
        await auth.set_up()


async def test_a_bad_first_account_leaves_the_place_free(auth: Auth) -> None:
    with pytest.raises(Invalid) as refused:
        await auth.set_up("a@b", "a b@example.org", "short")
    assert {error.path for error in refused.value.errors} == {"name", "email", "password"}
    assert await auth.set_up()


async def test_a_leaked_password_is_refused_however_long_it_is(auth: Auth) -> None:
    for password in ("password1234567", "IloveYouForever1", "correcthorsebatterystaple"):
        with pytest.raises(Invalid) as refused:
            await auth.set_up(password=password)
        assert [error.code for error in refused.value.errors] == ["too_common"]


@pytest.mark.parametrize("name", ["Ann", "ANN", "ann@example.org", "Ann@Example.Org"])
async def test_a_session_is_opened_by_name_or_address(auth: Auth, name: str) -> None:
    account = await auth.set_up()
    session = await auth.open_session(name)
    claims = await auth.claims(session)
    assert (session.token_type, session.expires_in) == ("Bearer", 600)
    assert (claims["sub"], claims["name"], claims["roles"]) == (str(account.id), "Ann", ["administrator"])
    [row] = await auth.database.pool.fetch("SELECT id, account_id, expires_at, client FROM session")
    assert (str(row["id"]), row["account_id"], row["client"]) == (claims["sid"], account.id, "192.0.2.1")
    assert row["expires_at"] == session.refresh_expires_at == NOW + timedelta(days=7)
    assert await auth.sql("SELECT last_seen_at FROM account") == NOW


async def test_the_same_password_typed_on_another_keyboard_opens_it(auth: Auth) -> None:
    await auth.set_up(password="cafe\u0301 with five ﬁgs")
    assert await auth.open_session(password="café with five figs")


async def refusal(auth: Auth, name: str, password: str) -> tuple[Any, ...]:
    with pytest.raises(Unauthorized) as refused:
        await auth.open_session(name, password)
    error = refused.value
    return error.status, error.code, error.detail, error.errors


async def test_an_unknown_name_and_a_wrong_password_are_refused_alike(auth: Auth) -> None:
    await auth.set_up()
    wrong = await refusal(auth, "ann", "twelve purple kettles")
    assert wrong[1] == "wrong_credentials"
    assert await refusal(auth, "nobody", PASSWORD) == wrong
    assert await refusal(auth, "nobody@example.org", PASSWORD) == wrong
    assert await refusal(auth, "ann", "x" * 100_000) == wrong
    assert await auth.sql("SELECT count(*) FROM session") == 0


async def test_an_unknown_name_costs_the_same_hash(auth: Auth) -> None:
    """One verification each, counted rather than timed."""
    await auth.set_up()
    counted = CountingArgon2(memory_cost=64, time_cost=1, parallelism=1)
    with Hasher(counted, workers=1, queue=8) as hasher:
        auth.tools = replace(auth.tools, hasher=hasher)
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


async def test_an_account_of_another_project_opens_nothing_here(auth: Auth) -> None:
    await auth.set_up()
    with pytest.raises(Unauthorized):
        await auth.open_session(caller=Principal(project="elsewhere"))


async def test_a_hash_of_old_parameters_is_replaced_as_its_owner_signs_in(auth: Auth) -> None:
    await auth.set_up()
    old = await auth.sql("SELECT password_hash FROM account")
    stronger = PasswordHasher(memory_cost=128, time_cost=1, parallelism=1)
    with Hasher(stronger, workers=1, queue=8) as hasher:
        auth.tools = replace(auth.tools, hasher=hasher)
        await auth.open_session()
        new = await auth.sql("SELECT password_hash FROM account")
        await auth.open_session()
        assert await auth.sql("SELECT password_hash FROM account") == new
    assert (old != new, "m=128" in new) == (True, True)


async def test_sessions_are_forgotten_a_month_after_their_end(auth: Auth) -> None:
    await auth.set_up()
    await auth.open_session()
    auth.now = NOW + timedelta(days=37)
    await auth.command(sessions.forget_sessions, ForgetSessions())
    assert await auth.sql("SELECT count(*) FROM session") == 1
    auth.now += timedelta(seconds=1)
    await auth.command(sessions.forget_sessions, ForgetSessions())
    assert await auth.sql("SELECT count(*) FROM session") == 0
    assert await auth.sql("SELECT count(*) FROM refresh_token") == 0


# -- guessing ------------------------------------------------------------------------------------------


async def test_guesses_from_many_places_stop_and_a_known_device_still_gets_in(auth: Auth) -> None:
    await auth.set_up()
    device = auth.device_token(await auth.open_session())
    codes = []
    for number in range(40):
        auth.client = f"198.51.100.{number}"
        codes.append(await auth.tried(password="wrong"))
    assert codes == ["wrong_credentials"] * 30 + ["too_many_requests"] * 10
    assert await auth.tried() == "too_many_requests"
    assert await auth.tried(device=device) == ""
    auth.client = "198.51.100.99"
    assert await auth.tried(device="phd_" + "0" * 32 + "_x") == "too_many_requests"


async def test_its_owner_gets_in_from_where_they_signed_in_before(auth: Auth) -> None:
    await auth.set_up()
    auth.client = "2001:db8:1:2::3"
    await auth.open_session()
    for number in range(31):
        auth.client = f"198.51.100.{number}"
        await auth.tried(password="wrong")
    auth.client = "2001:db8:1:2:ffff::4"
    assert await auth.tried() == ""
    auth.client = "2001:db8:1:3::3"
    assert await auth.tried() == "too_many_requests"


async def test_the_right_password_costs_nothing(auth: Auth) -> None:
    await auth.set_up()
    for _ in range(150):
        assert await auth.open_session()


async def test_one_address_tries_a_hundred_passwords_whatever_the_names(auth: Auth) -> None:
    await auth.set_up()
    device = auth.device_token(await auth.open_session())
    codes = [await auth.tried(f"somebody {number}") for number in range(120)]
    assert codes.count("too_many_requests") in range(15, 21)
    assert await auth.tried() == "too_many_requests"
    assert await auth.tried(device=device) == ""
    auth.client = "198.51.100.7"
    assert await auth.tried() == ""


async def test_a_device_helps_only_whom_it_knows(auth: Auth) -> None:
    await auth.set_up()
    auth.with_policy(sign_up="open")
    await auth.sign_up("bob")
    device = auth.device_token(await auth.open_session("bob"))
    for number in range(31):
        auth.client = f"198.51.100.{number}"
        await auth.tried(password="wrong", device=device)
    assert await auth.tried(device=device) == "too_many_requests"


# -- signing keys --------------------------------------------------------------------------------------


async def test_processes_that_need_the_first_key_at_once_agree_on_one(auth: Auth) -> None:
    await auth.set_up()
    opened = await asyncio.gather(*(auth.open_session() for _ in range(8)))
    assert len({(await auth.claims(session))["sid"] for session in opened}) == 8
    assert len(await auth.public_keys()) == 1


async def test_a_key_is_there_before_anybody_signs_in_and_stays_the_same(auth: Auth) -> None:
    listed = await asyncio.gather(*(auth.public_keys() for _ in range(8)))
    [kid] = listed[0]
    assert all(keys == listed[0] for keys in listed)
    await auth.set_up()
    assert await kid_of(auth) == kid


async def kid_of(auth: Auth) -> str:
    """The key a new token is signed with."""
    session = await auth.open_session()
    token = auth.vault.unseal(session.access_token, "auth.token")
    return str(jwt.get_unverified_header(token)["kid"])


async def test_a_key_made_in_a_transaction_that_failed_signs_nothing_later(auth: Auth) -> None:
    await auth.set_up()
    async with auth.database.connection() as connection:
        transaction = connection.transaction()
        await transaction.start()
        message = OpenSession(name="ann", password=auth.vault.seal(PASSWORD, "auth.password"))
        await open_session(message, auth.deps(connection))
        await transaction.rollback()
    assert await auth.claims(await auth.open_session())


async def rotate(auth: Auth) -> None:
    await auth.command(signing_keys.rotate_signing_key, RotateSigningKey())


async def test_the_next_key_is_listed_before_it_signs_and_the_old_one_while_its_tokens_live(
    auth: Auth,
) -> None:
    await auth.set_up()
    first = await kid_of(auth)
    auth.now = NOW + timedelta(days=30)
    await rotate(auth)
    assert list(await auth.public_keys()) == [first]
    auth.now += timedelta(seconds=1)
    await asyncio.gather(*(rotate(auth) for _ in range(8)))
    [_, second] = await auth.public_keys()
    assert await kid_of(auth) == first
    auth.now += timedelta(minutes=10)
    assert await kid_of(auth) == second
    await rotate(auth)
    auth.now += timedelta(seconds=600 + 59)
    assert list(await auth.public_keys()) == [first, second]
    auth.now += timedelta(seconds=1)
    assert list(await auth.public_keys()) == [second]
    auth.now += timedelta(days=2)
    await rotate(auth)
    assert await auth.sql("SELECT count(*) FROM signing_key") == 1


class Asking:
    """A gateway's way to auth, which counts."""

    def __init__(self, auth: Auth) -> None:
        self.auth = auth
        self.asked = 0

    async def ask(self, message: Any, caller: Any) -> Any:
        self.asked += 1
        return await self.auth.signing_keys()


async def test_a_gateway_knows_the_next_key_before_the_first_token_it_signs(auth: Auth) -> None:
    auth.now = NOW - timedelta(days=31)
    await auth.set_up()
    first = await kid_of(auth)
    auth.now = NOW - timedelta(minutes=11)
    await rotate(auth)
    way = Asking(auth)
    tokens = AccessTokens(way)  # type: ignore[arg-type]
    await tokens.learn()
    auth.now = NOW
    session = await auth.open_session()
    token = auth.vault.unseal(session.access_token, "auth.token")
    assert jwt.get_unverified_header(token)["kid"] != first
    assert (await tokens.verify(token)).principal.via == str(session.session_id)
    assert way.asked == 1


# -- a dump --------------------------------------------------------------------------------------------


async def test_a_dump_of_the_database_tells_no_secret(auth: Auth, database: Place) -> None:
    await auth.set_up()
    session = await auth.open_session()
    token = auth.vault.unseal(session.access_token, "auth.token")
    refresh = auth.refresh_token(session)
    again = auth.refresh_token(await auth.refresh(refresh))
    _, invitation = await auth.invite(auth.principal(await auth.claims(session)))
    key = await Store(auth.database.pool).signing_key(auth.now)
    assert key is not None
    private_key = auth.vault.unlock(key.locked_private_key, "auth.signing_key")
    dump = await everything(database)
    assert "ann@example.org" in dump
    secrets = [PASSWORD, token, token.rpartition(".")[2], private_key]
    secrets += [part for each in (refresh, again, invitation) for part in (each, each.split("_", 2)[2])]
    for secret in secrets:
        assert secret not in dump
        assert secret.encode().hex() not in dump
