"""Refreshing, listing and ending sessions on a real PostgreSQL."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta

import pytest

from services.auth.handlers import sessions
from services.auth.hashing import Hasher
from shared.contracts.auth import EndOtherSessions, EndSession, ForgetSessions, ListSessions, SessionsEnded
from shared.contracts.base import Principal
from shared.db import Database
from shared.errors import Forbidden, NotFound, Unauthorized
from shared.vault import Vault
from tests.integration.auth_service import NOW, Auth, quick_tools, session_of
from tests.servers import Place


@pytest.fixture
async def auth(database: Place, hasher: Hasher, vault: Vault) -> AsyncIterator[Auth]:
    db = Database(database.url("auth"), size=12, application_name="test")
    await db.open()
    service = Auth(db, quick_tools(vault, hasher))
    await service.set_up()
    yield service
    await db.close()


async def test_a_refresh_token_gets_the_next_pair(auth: Auth) -> None:
    first = await auth.open_session()
    auth.now += timedelta(minutes=9)
    second = await auth.refresh(auth.refresh_token(first))
    old, new = await auth.claims(first), await auth.claims(second)
    assert (old["sid"], old["sub"]) == (new["sid"], new["sub"])
    assert new["exp"] - old["exp"] == 540
    assert auth.refresh_token(first) != auth.refresh_token(second)
    assert second.refresh_expires_at == auth.now + timedelta(days=7)
    assert auth.refresh_token(first).startswith(f"phr_{session_of(first).hex}_")


async def test_for_ten_seconds_a_used_token_gets_the_same_successor(auth: Auth) -> None:
    first = auth.refresh_token(await auth.open_session())
    second = auth.refresh_token(await auth.refresh(first))
    third = auth.refresh_token(await auth.refresh(second))
    auth.now += timedelta(seconds=10)
    assert auth.refresh_token(await auth.refresh(first)) == second
    assert auth.refresh_token(await auth.refresh(second)) == third
    assert auth.events == []


@pytest.mark.parametrize("forgotten", [False, True])
async def test_later_its_use_ends_the_session_at_once(auth: Auth, forgotten: bool) -> None:
    opened = await auth.open_session()
    first = auth.refresh_token(opened)
    second = auth.refresh_token(await auth.refresh(first))
    auth.now += timedelta(seconds=11 if not forgotten else 61)
    if forgotten:
        await auth.command(sessions.forget_sessions, ForgetSessions())
    with pytest.raises(Unauthorized) as refused:
        await auth.refresh(first)
    assert refused.value.code == "session_over"
    assert auth.events == [SessionsEnded(session_ids=(session_of(opened),))]
    for token in (first, second):
        with pytest.raises(Unauthorized):
            await auth.refresh(token)
    assert len(auth.events) == 1
    assert (await auth.signing_keys()).ended == (session_of(opened),)


async def test_other_sessions_of_the_person_go_on(auth: Auth) -> None:
    stolen, other = await auth.open_session(), await auth.open_session()
    await auth.refresh(auth.refresh_token(stolen))
    auth.now += timedelta(minutes=1)
    with pytest.raises(Unauthorized):
        await auth.refresh(auth.refresh_token(stolen))
    assert await auth.refresh(auth.refresh_token(other))


async def test_two_tabs_that_refresh_all_the_time_stay_signed_in(auth: Auth) -> None:
    """Each with the token it has: whoever is late gets what the other got."""
    first = auth.refresh_token(await auth.open_session())
    made: dict[str, set[str]] = {}

    async def tab() -> None:
        token = first
        for _ in range(100):
            successor = auth.refresh_token(await auth.refresh(token))
            made.setdefault(token, set()).add(successor)
            token = successor

    await asyncio.gather(tab(), tab())
    assert all(len(successors) == 1 for successors in made.values())
    assert await auth.sql("SELECT count(*) FROM refresh_token") == 101
    assert auth.events == []


async def test_fifty_at_once_with_one_token_get_one_successor(auth: Auth) -> None:
    first = auth.refresh_token(await auth.open_session())
    answers = await asyncio.gather(*(auth.refresh(first) for _ in range(50)))
    assert len({auth.refresh_token(each) for each in answers}) == 1


@pytest.mark.parametrize("token", ["", "phr", "phr_x_y", "phr_" + "0" * 32 + "_" + "A" * 43, "é" * 80])
async def test_what_was_never_issued_ends_nothing(auth: Auth, token: str) -> None:
    opened = await auth.open_session()
    with pytest.raises(Unauthorized):
        await auth.refresh(token)
    mine = auth.refresh_token(opened)
    with pytest.raises(Unauthorized):
        await auth.refresh(mine[:-1] + ("A" if mine[-1] != "A" else "B"))
    assert await auth.refresh(mine)


async def test_a_session_ends_a_week_after_its_last_use_and_after_ninety_days_anyhow(auth: Auth) -> None:
    token = auth.refresh_token(await auth.open_session())
    for _ in range(15):
        auth.now += timedelta(days=6)
        if auth.now - NOW >= timedelta(days=90):
            break
        last = await auth.refresh(token)
        token = auth.refresh_token(last)
    assert last.refresh_expires_at == NOW + timedelta(days=90)
    with pytest.raises(Unauthorized):
        await auth.refresh(token)
    idle = auth.refresh_token(await auth.open_session())
    auth.now += timedelta(days=7)
    with pytest.raises(Unauthorized):
        await auth.refresh(idle)


async def test_tokens_used_a_week_ago_are_forgotten_and_end_nothing(auth: Auth) -> None:
    first = auth.refresh_token(await auth.open_session())
    second = auth.refresh_token(await auth.refresh(first))
    auth.now += timedelta(days=6)
    third = auth.refresh_token(await auth.refresh(second))
    auth.now += timedelta(days=2)
    await auth.command(sessions.forget_sessions, ForgetSessions())
    with pytest.raises(Unauthorized):
        await auth.refresh(first)
    assert await auth.refresh(third)


async def test_sessions_are_listed_the_last_used_first(auth: Auth) -> None:
    old = await auth.open_session()
    auth.now += timedelta(minutes=1)
    auth.client = "192.0.2.9"
    caller = await auth.sign_in()
    listed = (await auth.query(sessions.list_sessions, ListSessions(), caller)).items
    assert [(each.current, each.client) for each in listed] == [(True, "192.0.2.9"), (False, "192.0.2.1")]
    auth.now += timedelta(minutes=1)
    await auth.refresh(auth.refresh_token(old))
    listed = (await auth.query(sessions.list_sessions, ListSessions(), caller)).items
    assert [each.id for each in listed] == [session_of(old), listed[1].id]
    assert listed[0].last_used_at == auth.now


async def test_signing_out_ends_the_session_and_twice_is_no_mistake(auth: Auth) -> None:
    opened = await auth.open_session()
    caller = auth.principal(await auth.claims(opened))
    for _ in range(2):
        await auth.command(sessions.end_session, EndSession(), caller)
    assert auth.events == [SessionsEnded(session_ids=(session_of(opened),))]
    with pytest.raises(Unauthorized):
        await auth.refresh(auth.refresh_token(opened))


async def test_one_ends_a_session_of_ones_own_and_nobody_elses(auth: Auth) -> None:
    ann = await auth.sign_in()
    bob = await auth.another(ann)
    other = await auth.open_session("ann")
    with pytest.raises(NotFound):
        await auth.command(sessions.end_session, EndSession(session_id=session_of(other)), bob)
    await auth.command(sessions.end_session, EndSession(session_id=session_of(other)), ann)
    assert auth.events == [SessionsEnded(session_ids=(session_of(other),))]
    with pytest.raises(NotFound):
        await auth.command(sessions.end_session, EndSession(session_id=session_of(other)), ann)


async def test_all_others_end_but_the_one_that_asks(auth: Auth) -> None:
    mine = await auth.open_session()
    others = {session_of(await auth.open_session()) for _ in range(3)}
    caller = auth.principal(await auth.claims(mine))
    await auth.command(sessions.end_other_sessions, EndOtherSessions(), caller)
    [event] = auth.events
    assert isinstance(event, SessionsEnded)
    assert set(event.session_ids) == others
    assert await auth.refresh(auth.refresh_token(mine))


@pytest.mark.parametrize("kind", ["anonymous", "key", "device", "service"])
async def test_only_people_have_sessions(auth: Auth, kind: str) -> None:
    caller = Principal(kind=kind, id="x")  # type: ignore[arg-type]
    with pytest.raises((Unauthorized, Forbidden)):
        await auth.query(sessions.list_sessions, ListSessions(), caller)
    with pytest.raises((Unauthorized, Forbidden)):
        await auth.command(sessions.end_other_sessions, EndOtherSessions(), caller)
