"""Everybody's accounts, for administrators of the same project."""

from __future__ import annotations

from dataclasses import replace
from uuid import UUID

from services.auth import rules
from services.auth.deps import Deps
from services.auth.handlers.accounts import delete, restore
from services.auth.handlers.sessions import ended
from services.auth.rules import Person
from shared.bus.routes import Done, Routes
from shared.contracts.auth import ChangeUser, Deleted, DeleteUser, ListUsers, RestoreUser, User, UserPage
from shared.errors import Conflict, NotFound

routes = Routes("auth")

NOBODY, ABOVE_ALL = UUID(int=0), UUID(int=(1 << 128) - 1)


@routes.query(ListUsers)
async def list_users(query: ListUsers, deps: Deps) -> Done[UserPage]:
    rules.administrator(deps.caller)
    project = deps.caller.project
    if query.order == "asc":
        found = await deps.store.people(project, rules.cursor(query.after) or NOBODY, query.limit + 1)
    else:
        found = await deps.store.people_before(
            project, rules.cursor(query.after) or ABOVE_ALL, query.limit + 1
        )
    page = found[: query.limit]
    more = page[-1].id.hex if len(found) > len(page) else None
    return Done(UserPage(items=tuple(map(user_of, page)), next=more))


@routes.command(ChangeUser)
async def change_user(command: ChangeUser, deps: Deps) -> Done[User]:
    """Who loses a role is signed out, because their tokens say that they have it."""
    person = await _living(command.user_id, deps)
    changed = replace(person, roles=tuple(dict.fromkeys(command.roles)))
    if person.is_administrator and not changed.is_administrator:
        rules.keep_one(await deps.store.lock_administrators(person.project), person)
    await deps.store.change(changed)
    lost = set(person.roles) - set(changed.roles)
    sessions = await deps.store.end_sessions(person.id, deps.now) if lost else ()
    return Done(user_of(changed), events=ended(sessions))


@routes.command(DeleteUser)
async def delete_user(command: DeleteUser, deps: Deps) -> Done[Deleted]:
    by = rules.administrator(deps.caller)
    if command.user_id == by:
        raise Conflict("Delete your own account with your password: DELETE /v1/me.")
    return await delete(await _living(command.user_id, deps), by, deps)


@routes.command(RestoreUser)
async def restore_user(command: RestoreUser, deps: Deps) -> Done[User]:
    person = await _known(command.user_id, deps)
    if rules.is_gone(person, deps.now):
        raise _no_such_user()
    done = await restore(person, deps)
    return Done(user_of(replace(person, deleted_at=None, purge_at=None)), events=done.events)


async def _living(user_id: UUID, deps: Deps) -> Person:
    person = await _known(user_id, deps)
    if person.deleted_at is not None:
        raise _no_such_user()
    return person


async def _known(user_id: UUID, deps: Deps) -> Person:
    rules.administrator(deps.caller)
    person = await deps.store.person(deps.caller.project, user_id)
    if person is None:
        raise _no_such_user()
    return person


def _no_such_user() -> NotFound:
    return NotFound("There is no such user.")


def user_of(person: Person) -> User:
    """A person as administrators see them."""
    return User(
        id=person.id,
        name=person.name,
        email=person.email,
        roles=person.roles,
        created_at=person.created_at,
        last_seen_at=person.last_seen_at,
        deleted_at=person.deleted_at,
        purge_at=person.purge_at,
    )
