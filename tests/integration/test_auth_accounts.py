"""Accounts that come, change, go and come back, on a real PostgreSQL."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest

from services.auth.handlers import accounts, invitations, sessions, users
from services.auth.handlers import routes as table
from services.auth.hashing import Hasher
from shared.contracts.auth import (
    AccountDeleted,
    AccountRestored,
    ChangeUser,
    DeleteInvitation,
    DeleteUser,
    ForgetSessions,
    GetMe,
    GetSignUpState,
    ListInvitations,
    ListUsers,
    MakeInvitation,
    PurgeAccounts,
    RestoreUser,
    SessionsEnded,
    User,
)
from shared.contracts.base import ANONYMOUS, Message, Principal, Query
from shared.db import Database
from shared.errors import Conflict, Forbidden, Invalid, NotFound, Refusal, TooMany, Unauthorized
from shared.vault import Vault
from tests.integration.auth_service import ANOTHER, NOW, PASSWORD, Auth, quick_tools, session_of
from tests.servers import Place


@pytest.fixture
async def auth(database: Place, hasher: Hasher, vault: Vault) -> AsyncIterator[Auth]:
    db = Database(database.url("auth"), size=12, application_name="test")
    await db.open()
    yield Auth(db, quick_tools(vault, hasher))
    await db.close()


@pytest.fixture
async def ann(auth: Auth) -> Principal:
    """The first administrator, signed in."""
    await auth.set_up()
    return await auth.sign_in()


def id_of(caller: Principal) -> UUID:
    return UUID(caller.id)


def code_of(error: pytest.ExceptionInfo[Refusal]) -> str:
    return error.value.code


# -- signing up ----------------------------------------------------------------------------------------


async def test_pages_learn_who_may_make_an_account(auth: Auth) -> None:
    async def state() -> tuple[bool, str, int]:
        found = await auth.query(accounts.get_sign_up_state, GetSignUpState())
        return found.set_up, found.sign_up, found.password_min_length

    assert await state() == (False, "invitation", 15)
    await auth.set_up()
    auth.with_policy(sign_up="closed", password_min_length=20)
    assert await state() == (True, "closed", 20)


async def test_nobody_signs_up_before_the_first_account_is_made(auth: Auth) -> None:
    auth.with_policy(sign_up="open")
    with pytest.raises(Conflict) as refused:
        await auth.sign_up("bob")
    assert code_of(refused) == "not_set_up"


async def test_an_invitation_lets_in_one_person(auth: Auth, ann: Principal) -> None:
    _, secret = await auth.invite(ann, note="for bob")
    bob = await auth.sign_up("bob", secret)
    assert bob.roles == ()
    with pytest.raises(Forbidden) as refused:
        await auth.sign_up("eve", secret)
    assert code_of(refused) == "invitation_needed"
    assert await auth.sql("SELECT account_id FROM invitation") == bob.id


async def test_of_ten_who_use_one_invitation_at_once_one_gets_in(auth: Auth, ann: Principal) -> None:
    _, secret = await auth.invite(ann)
    tries = (auth.sign_up(f"person {number}", secret) for number in range(10))
    results = await asyncio.gather(*tries, return_exceptions=True)
    assert [type(each) for each in results].count(Forbidden) == 9
    assert await auth.sql("SELECT count(*) FROM account") == 2


async def test_a_mistake_leaves_the_invitation(auth: Auth, ann: Principal) -> None:
    _, secret = await auth.invite(ann)
    with pytest.raises(Invalid):
        await auth.sign_up("bob", secret, password="short")
    with pytest.raises(Conflict) as refused:
        await auth.sign_up("ANN", secret)
    assert code_of(refused) == "taken"
    assert await auth.sign_up("bob", secret)


async def test_an_invitation_ends_and_can_be_taken_back(auth: Auth, ann: Principal) -> None:
    _, secret = await auth.invite(ann, days=2)
    _, other = await auth.invite(ann)
    assert len((await auth.query(invitations.list_invitations, ListInvitations(), ann)).items) == 2
    auth.now = NOW + timedelta(days=2)
    [left] = (await auth.query(invitations.list_invitations, ListInvitations(), ann)).items
    with pytest.raises(Forbidden):
        await auth.sign_up("bob", secret)
    await auth.command(invitations.delete_invitation, DeleteInvitation(invitation_id=left.id), ann)
    with pytest.raises(Forbidden):
        await auth.sign_up("bob", other)
    with pytest.raises(NotFound):
        await auth.command(invitations.delete_invitation, DeleteInvitation(invitation_id=left.id), ann)
    auth.now += timedelta(days=31)
    await auth.command(sessions.forget_sessions, ForgetSessions())
    assert await auth.sql("SELECT count(*) FROM invitation") == 0


async def test_an_invitation_can_make_an_administrator(auth: Auth, ann: Principal) -> None:
    bob = await auth.another(ann, "bob", roles=("administrator",))
    assert bob.roles == ("administrator",)


async def test_whoever_may_not_sign_up_does_not_learn_which_names_are_taken(
    auth: Auth, ann: Principal
) -> None:
    for mode in ("invitation", "closed"):
        auth.with_policy(sign_up=mode)
        answers = []
        for name in ("ann", "nobody"):
            with pytest.raises(Forbidden) as refused:
                await auth.sign_up(name)
            answers.append((refused.value.code, refused.value.detail))
        assert answers[0] == answers[1]


async def test_a_taken_name_and_a_taken_address_are_refused_alike(auth: Auth, ann: Principal) -> None:
    auth.with_policy(sign_up="open")
    answers = []
    for name, email in (("ann", "other@example.org"), ("other", "ANN@example.org")):
        with pytest.raises(Conflict) as refused:
            await auth.sign_up(name, email=email)
        answers.append((refused.value.code, refused.value.detail))
    assert answers[0] == answers[1]


async def test_an_address_makes_few_accounts_an_hour(auth: Auth, ann: Principal) -> None:
    auth.with_policy(sign_up="open")
    for number in range(20):
        await auth.sign_up(f"person {number}")
    with pytest.raises(TooMany):
        await auth.sign_up("one more")
    _, secret = await auth.invite(ann)
    auth.client = "198.51.100.1"
    assert await auth.sign_up("elsewhere", secret)


# -- one's own account ---------------------------------------------------------------------------------


async def test_a_new_password_ends_every_other_session(auth: Auth, ann: Principal) -> None:
    other = await auth.open_session()
    await auth.change(ann, PASSWORD, password=ANOTHER)
    assert auth.events == [SessionsEnded(session_ids=(session_of(other),))]
    with pytest.raises(Unauthorized):
        await auth.open_session(password=PASSWORD)
    assert await auth.open_session(password=ANOTHER)
    with pytest.raises(Unauthorized):
        await auth.refresh(auth.refresh_token(other))


async def test_a_name_changes_without_the_password_and_an_address_with_it(auth: Auth, ann: Principal) -> None:
    assert (await auth.change(ann, name="Anna")).name == "Anna"
    for current in ("", "wrong"):
        with pytest.raises(Invalid) as refused:
            await auth.change(ann, current, email="anna@example.org")
        assert [error.path for error in refused.value.errors] == ["current_password"]
    assert (await auth.change(ann, PASSWORD, email="anna@example.org")).email == "anna@example.org"
    assert await auth.open_session("ANNA")
    assert await auth.open_session("anna@example.org")
    assert auth.events == []


async def test_what_is_changed_is_judged_as_what_is_new(auth: Auth, ann: Principal) -> None:
    await auth.another(ann, "bob")
    with pytest.raises(Conflict) as taken:
        await auth.change(ann, name="Bob")
    assert code_of(taken) == "taken"
    with pytest.raises(Invalid) as refused:
        await auth.change(ann, PASSWORD, name="a@b", email="x", password="password1234567")
    assert {error.path for error in refused.value.errors} == {"name", "email", "password"}
    assert await auth.open_session("ann")


async def test_the_own_password_is_guessed_a_few_times_only(auth: Auth, ann: Principal) -> None:
    for _ in range(20):
        with pytest.raises(Invalid):
            await auth.change(ann, "wrong", password=ANOTHER)
    with pytest.raises(TooMany):
        await auth.change(ann, PASSWORD, password=ANOTHER)
    assert await auth.open_session()


# -- deleting and restoring ----------------------------------------------------------------------------


async def test_a_deleted_account_is_gone_at_once_and_comes_back_within_a_day(
    auth: Auth, ann: Principal
) -> None:
    bob = await auth.another(ann)
    with pytest.raises(Invalid):
        await auth.delete(bob, "wrong")
    purge_at = await auth.delete(bob)
    assert purge_at == NOW + timedelta(hours=24)
    assert auth.events == [
        AccountDeleted(account_id=id_of(bob), project="default", purge_at=purge_at),
        SessionsEnded(session_ids=(UUID(bob.via),)),
    ]
    with pytest.raises(NotFound):
        await auth.query(accounts.get_me, GetMe(), bob)
    with pytest.raises(Forbidden) as refused:
        await auth.open_session("bob")
    assert code_of(refused) == "account_deleted"
    auth.events.clear()
    assert (await auth.restore("BOB@example.org")).id == id_of(bob)
    assert auth.events == [AccountRestored(account_id=id_of(bob), project="default", purge_at=purge_at)]
    assert await auth.open_session("bob")
    assert (await auth.restore("bob")).id == id_of(bob)
    assert len(auth.events) == 1


async def test_only_its_password_brings_it_back(auth: Auth, ann: Principal) -> None:
    await auth.delete(await auth.another(ann))
    answers = []
    for name, password in (("bob", "wrong"), ("nobody", PASSWORD), ("ann", "wrong")):
        with pytest.raises(Unauthorized) as refused:
            await auth.restore(name, password)
        answers.append((refused.value.code, refused.value.detail))
    assert len(set(answers)) == 1
    with pytest.raises(Unauthorized) as wrong:
        await auth.open_session("bob", "wrong")
    assert (wrong.value.code, wrong.value.detail) == answers[0]


async def test_its_name_stays_taken_until_it_is_gone_for_good(auth: Auth, ann: Principal) -> None:
    await auth.delete(await auth.another(ann))
    auth.with_policy(sign_up="open")
    with pytest.raises(Conflict):
        await auth.sign_up("bob")
    auth.now = NOW + timedelta(hours=24)
    with pytest.raises(Unauthorized):
        await auth.restore("bob")
    with pytest.raises(Unauthorized):
        await auth.open_session("bob")
    await auth.command(accounts.purge_accounts, PurgeAccounts())
    assert await auth.sign_up("bob")


async def test_purging_goes_on_where_it_was_stopped_and_touches_nobody_else(
    auth: Auth, ann: Principal, monkeypatch: pytest.MonkeyPatch
) -> None:
    bob = await auth.another(ann)
    for _ in range(7):
        await auth.open_session("bob")
    kept = await auth.sql("SELECT count(*) FROM session WHERE account_id = $1", id_of(ann))
    await auth.delete(bob)
    auth.now = NOW + timedelta(hours=24)
    assert await auth.deps(auth.database.pool).store.purge_sessions(auth.now, 3) == 3
    monkeypatch.setattr(accounts, "PIECE", 2)
    await asyncio.gather(*(auth.query(accounts.purge_accounts, PurgeAccounts()) for _ in range(3)))
    assert await auth.sql("SELECT count(*) FROM session") == kept
    assert await auth.sql("SELECT count(*) FROM account") == 1
    assert await auth.sql("SELECT count(*) FROM refresh_token") == kept


async def test_the_last_administrator_stays(auth: Auth, ann: Principal) -> None:
    bob = await auth.another(ann)
    refused: pytest.ExceptionInfo[Conflict]
    with pytest.raises(Conflict) as refused:
        await auth.delete(ann)
    assert code_of(refused) == "last_administrator"
    with pytest.raises(Conflict):
        await auth.command(users.change_user, ChangeUser(user_id=id_of(ann), roles=()), ann)
    promote = ChangeUser(user_id=id_of(bob), roles=("administrator",))
    assert (await auth.command(users.change_user, promote, ann)).roles == ("administrator",)
    await auth.delete(ann)
    bob = await auth.sign_in("bob")
    with pytest.raises(Conflict):
        await auth.delete(bob)


async def test_of_two_last_administrators_who_go_at_once_one_stays(auth: Auth, ann: Principal) -> None:
    bob = await auth.another(ann, "bob", roles=("administrator",))
    results = await asyncio.gather(auth.delete(ann), auth.delete(bob), return_exceptions=True)
    assert [type(each) for each in results].count(Conflict) == 1
    living = "SELECT count(*) FROM account WHERE deleted_at IS NULL"
    assert await auth.sql(living) == 1


# -- administrators ------------------------------------------------------------------------------------


async def test_administrators_see_everybody_page_by_page(auth: Auth, ann: Principal) -> None:
    for name in ("bob", "cid", "dan"):
        await auth.another(ann, name)
    await auth.delete(await auth.sign_in("cid"))

    async def pages(order: Any) -> list[User]:
        found: list[User] = []
        after = None
        while True:
            page = await auth.query(users.list_users, ListUsers(limit=2, order=order, after=after), ann)
            found += page.items
            after = page.next
            if after is None:
                return found

    assert [user.name for user in await pages("asc")] == ["Ann", "bob", "cid", "dan"]
    newest = await pages("desc")
    assert [user.name for user in newest] == ["dan", "cid", "bob", "Ann"]
    assert [user.purge_at is not None for user in newest] == [False, True, False, False]
    assert newest[0].last_seen_at == NOW


async def test_whom_an_administrator_deletes_an_administrator_restores(auth: Auth, ann: Principal) -> None:
    bob = await auth.another(ann)
    await auth.command(users.delete_user, DeleteUser(user_id=id_of(bob)), ann)
    assert [type(event) for event in auth.events] == [AccountDeleted, SessionsEnded]
    with pytest.raises(Forbidden):
        await auth.restore("bob")
    auth.events.clear()
    restored = await auth.command(users.restore_user, RestoreUser(user_id=id_of(bob)), ann)
    assert (restored.name, restored.deleted_at, restored.purge_at) == ("bob", None, None)
    assert [type(event) for event in auth.events] == [AccountRestored]
    assert await auth.open_session("bob")


async def test_who_loses_a_role_is_signed_out(auth: Auth, ann: Principal) -> None:
    bob = await auth.another(ann, "bob", roles=("administrator",))
    await auth.command(users.change_user, ChangeUser(user_id=id_of(bob), roles=()), ann)
    assert auth.events == [SessionsEnded(session_ids=(UUID(bob.via),))]
    assert (await auth.sign_in("bob")).roles == ()


async def test_oneself_is_deleted_with_the_password_only(auth: Auth, ann: Principal) -> None:
    await auth.another(ann, "bob", roles=("administrator",))
    with pytest.raises(Conflict):
        await auth.command(users.delete_user, DeleteUser(user_id=id_of(ann)), ann)


def for_administrators(person: UUID) -> list[Message]:
    return [
        ListUsers(),
        ChangeUser(user_id=person, roles=("administrator",)),
        DeleteUser(user_id=person),
        RestoreUser(user_id=person),
        MakeInvitation(),
        ListInvitations(),
        DeleteInvitation(invitation_id=uuid4()),
    ]


async def ask(auth: Auth, message: Message, caller: Principal) -> Any:
    handler = table.table[message.topic].handler
    if isinstance(message, Query):
        return await auth.query(handler, message, caller)
    return await auth.command(handler, message, caller)


@pytest.mark.parametrize("number", range(7))
async def test_nobody_else_does_what_administrators_do(auth: Auth, ann: Principal, number: int) -> None:
    bob = await auth.another(ann)
    message = for_administrators(id_of(ann))[number]
    strangers: list[Principal] = [
        ANONYMOUS,
        bob,
        Principal(kind="key", id=ann.id, roles=ann.roles),
        Principal(kind="service", id="ingest", roles=ann.roles),
    ]
    for caller in strangers:
        with pytest.raises((Unauthorized, Forbidden)):
            await ask(auth, message, caller)


@pytest.mark.parametrize("number", [1, 2, 3])
async def test_people_of_another_project_are_not_there(auth: Auth, ann: Principal, number: int) -> None:
    elsewhere = Principal(kind="user", id=str(uuid4()), project="elsewhere", roles=ann.roles)
    with pytest.raises(NotFound) as there:
        await ask(auth, for_administrators(id_of(ann))[number], elsewhere)
    with pytest.raises(NotFound) as nowhere:
        await ask(auth, for_administrators(uuid4())[number], elsewhere)
    assert there.value.detail == nowhere.value.detail
    assert (await auth.query(users.list_users, ListUsers(), elsewhere)).items == ()
    made, secret = await auth.invite(elsewhere)
    with pytest.raises(Forbidden):
        await auth.sign_up("spy", secret)
    assert made.invitation.roles == ()
