"""Whoever may come to the door of an instance, and the things of one owner they may come for."""

from __future__ import annotations

import asyncio
import json
import re
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple
from uuid import UUID

import aiohttp
import asyncpg

from services.auth.rules import Person as Signed
from services.auth.tokens import Issuer, LockedKey
from shared.vault import Vault
from tests.journeys.instance import NAMED, OwnPosthouse, sign_up, until_it_is

OWNER, OWNERS_BROWSER = "the owner", "the owner's browser"
OTHER, OTHERS_BROWSER = "another person", "another person's browser"
MOVED = "the owner's id in another project"
ADMIN, ADMIN_ELSEWHERE = "an administrator", "an administrator of another project"
READ_KEY, WRITE_KEY, OTHER_KEY = "the read key", "the write key", "a write key of another dataset"
OLD_KEY, GONE_KEY = "the write key before this one", "a key of a deleted dataset"
EXPIRED, ENDED = "an expired token", "the token of an ended session"
NOBODY = "nobody"

MARK = f"mark-{secrets.token_hex(8)}"
"""In everything of the owner's that has a text."""
PASSWORD = NAMED["password"]
ELSEWHERE = "elsewhere"
PARTS = {"entry": "1", "kind": "read", "source": "a-file"}
NOWHERE = {
    **dict.fromkeys(
        ("dataset_id", "user_id", "session_id", "invitation_id"), "0193ffff-0000-7000-8000-000000000000"
    ),
    "name": f"ingest-0193ffff000070008{'0' * 15}-{'0' * 16}",
}


GUESSED_AT = ("/v1/users", "/v1/sessions", "/v1/me/restore")


class Said(NamedTuple):
    """An answer; what tells one request from another is taken out of a problem."""

    status: int
    body: bytes

    @property
    def words(self) -> Any:
        """The problem, or the status alone."""
        try:
            said = json.loads(self.body)
        except ValueError:
            return self.body
        return {name: value for name, value in said.items() if name != "request_id"}


@dataclass(frozen=True)
class Person:
    """An account that has signed in."""

    id: str
    name: str
    access_token: str
    refresh_token: str
    session_id: str

    @property
    def headers(self) -> dict[str, str]:
        """Those of an app."""
        return {"Authorization": f"Bearer {self.access_token}"}


@dataclass(frozen=True)
class Caller:
    """Who sends a request, and by what they are known; some are nobody's account."""

    who: str
    headers: dict[str, str]
    person: Person | None = None


@dataclass(frozen=True)
class Thing:
    """Something to come for: the names in its path, its own keys, and what a body about it says."""

    names: dict[str, str] = field(default_factory=dict)
    keys: dict[str, dict[str, str]] = field(default_factory=dict)
    says: dict[str, str] = field(default_factory=dict)

    def is_in(self, body: bytes) -> bool:
        """Whether an answer shows what the owner wrote, or a key."""
        keys = [name for headers in self.keys.values() for name in headers.values()]
        return any(text.encode() in body for text in (MARK, *keys))


Make = Callable[["World"], Awaitable[Thing]]


@dataclass
class World:
    """An instance with its callers; `estate` are the things nobody entitled ever touches."""

    posthouse: OwnPosthouse
    client: aiohttp.ClientSession
    admin_token: str
    tables: asyncpg.Connection
    callers: dict[str, Caller] = field(default_factory=dict)
    estate: dict[Make, Thing] = field(default_factory=dict)
    requests: int = 0
    turns: asyncio.Lock = field(default_factory=asyncio.Lock)

    # -- requests

    async def send(self, method: str, path: str, headers: dict[str, str], body: Any = None) -> Said:
        """One request, its answer whole unless it has no end."""
        self.requests += 1
        url = self.posthouse.url + path
        if path in GUESSED_AT:  # each from an address of its own: no limit is reached
            headers = headers | {"X-Forwarded-For": f"2001:db8:{self.requests:x}::1"}
        async with self.client.request(
            method, url, headers=headers, json=body, allow_redirects=False
        ) as answer:
            endless = answer.status == 200 and answer.content_type == "text/event-stream"
            return Said(answer.status, b"" if endless else await answer.read())

    async def visit(self, method: str, path: str, headers: dict[str, str], form: Any = None) -> Said:
        """One request as a page of ours makes it."""
        self.requests += 1
        ours = {"Accept": "text/html", "Origin": self.posthouse.url}
        async with self.client.request(
            method, self.posthouse.url + path, headers=ours | headers, data=form, allow_redirects=False
        ) as answer:
            return Said(answer.status, await answer.read())

    async def done(self, method: str, path: str, headers: dict[str, str], body: Any = None) -> Any:
        """One request that must succeed."""
        said = await self.send(method, path, headers, body)
        assert said.status < 300, (method, path, said)
        return json.loads(said.body) if said.body else None

    @property
    def owner(self) -> Person:
        """Whose the estate is."""
        person = self.callers[OWNER].person
        assert person is not None
        return person

    @property
    def admin(self) -> dict[str, str]:
        """The headers of the first account."""
        return {"Authorization": f"Bearer {self.admin_token}"}

    async def sql(self, statement: str, *values: Any) -> list[asyncpg.Record]:
        """Straight from the tables, past everything of ours."""
        async with self.turns:
            return await self.tables.fetch(statement, *values)

    # -- people

    async def account(self, *roles: str, name: str = "", deleted: bool = False) -> tuple[str, str]:
        """The id and the name of a new account, which has the password of the first."""
        name = name or f"p-{secrets.token_hex(6)}"
        sql = """
            INSERT INTO auth.account (id, name, name_key, email, email_key, password_hash, roles, created_at,
                                      deleted_at, purge_at)
            SELECT gen_random_uuid(), $1, $1, $1 || '@example.org', $1 || '@example.org', password_hash, $2,
                   now(), CASE WHEN $3 THEN now() END, CASE WHEN $3 THEN now() + interval '1 day' END
              FROM auth.account JOIN auth.first_account ON account_id = id
            RETURNING id::text
        """
        [row] = await self.sql(sql, name, list(roles), deleted)
        return row["id"], name

    async def person(self, *roles: str, name: str = "", agent: str = "test") -> Person:
        """A new account, signed in."""
        found, name = await self.account(*roles, name=name)
        return await self.session(found, name, agent)

    async def session(self, person_id: str, name: str, agent: str = "test") -> Person:
        """A new session of an account."""
        named = {"name": name, "password": PASSWORD}
        tokens = await self.done("POST", "/v1/sessions", {"User-Agent": agent}, named)
        return _person(person_id, name, tokens)

    async def moved(self, person: Person, project: str) -> Person:
        """The same person after their account has moved; the token they had before says what it said."""
        await self.sql("UPDATE auth.account SET project = $2 WHERE id::text = $1", person.id, project)
        tokens = await self.done("POST", "/v1/sessions/refresh", {}, {"refresh_token": person.refresh_token})
        return _person(person.id, person.name, tokens)

    async def browser(self, person: Person) -> dict[str, str]:
        """The headers of a page of ours in a browser where this person has signed in."""
        url, form = self.posthouse.url + "/login", {"name": person.name, "password": PASSWORD}
        async with self.client.post(
            url, data=form, headers={"Origin": self.posthouse.url}, allow_redirects=False
        ) as answer:
            [cookie] = [text for text in answer.headers.getall("Set-Cookie") if text.startswith("posthouse=")]
        return {"Cookie": cookie.partition(";")[0], "Sec-Fetch-Site": "same-origin"}

    async def expired(self, person: Person) -> dict[str, str]:
        """What this person's token was like two hours ago."""
        [row] = await self.sql("SELECT * FROM auth.signing_key WHERE retired_at IS NULL")
        key = LockedKey(row["kid"], row["public_key"], row["locked_private_key"])
        past = datetime.now(UTC) - timedelta(hours=2)
        signed = Signed(UUID(person.id), "default", person.name, "", (), past)
        issuer = Issuer(Vault(self.posthouse.secret_key), 600)
        return {"Authorization": f"Bearer {issuer.issue(key, signed, UUID(person.session_id), past)}"}

    # -- callers

    async def gather_callers(self) -> None:
        """Everybody who comes; keys of the estate's datasets come with the dataset."""
        owner = await self.person(name=f"owner-{MARK}", agent=MARK)
        self._add(OWNER, owner.headers, owner)
        self._add(OWNERS_BROWSER, await self.browser(owner), owner)
        self._add(MOVED, (await self._while_elsewhere(owner)).headers, owner)
        for who in (OTHER, OTHERS_BROWSER, ADMIN, ADMIN_ELSEWHERE):
            self.callers[who] = await self.newcomer(who)
        for who in (READ_KEY, WRITE_KEY):
            self._add(who, (await private_dataset(self)).keys[who])
        theirs = await _dataset(self, self.callers[OTHER].headers, text="other")
        self._add(OTHER_KEY, theirs.keys[WRITE_KEY])
        self._add(OLD_KEY, await self._renewed())
        self._add(GONE_KEY, await self._orphaned())
        self._add(EXPIRED, await self.expired(owner))
        self._add(ENDED, await self._signed_out(owner))
        self._add(NOBODY, {})

    def _add(self, who: str, headers: dict[str, str], person: Person | None = None) -> None:
        self.callers[who] = Caller(who, headers, person)

    async def newcomer(self, who: str) -> Caller:
        """Somebody of this kind who has not been here before."""
        person = await self.person(*(("administrator",) if who in (ADMIN, ADMIN_ELSEWHERE) else ()))
        if who == ADMIN_ELSEWHERE:
            person = await self.moved(person, ELSEWHERE)
        in_browser = who in (OWNERS_BROWSER, OTHERS_BROWSER)
        return Caller(who, await self.browser(person) if in_browser else person.headers, person)

    async def _while_elsewhere(self, owner: Person) -> Person:
        extra = await self.session(owner.id, owner.name, MARK)
        found = await self.moved(extra, ELSEWHERE)
        await self.sql("UPDATE auth.account SET project = 'default' WHERE id::text = $1", owner.id)
        return found

    async def _renewed(self) -> dict[str, str]:
        thing = await private_dataset(self)
        path = f"/v1/datasets/{thing.names['dataset_id']}"
        await self.done("GET", path, thing.keys[WRITE_KEY])  # the gateway has seen it
        await self.done("POST", f"{path}/keys/write", self.owner.headers)
        return await self._over(thing.keys[WRITE_KEY])

    async def _orphaned(self) -> dict[str, str]:
        thing = await private_dataset(self)
        path = f"/v1/datasets/{thing.names['dataset_id']}"
        await self.done("GET", path, thing.keys[WRITE_KEY])
        await self.done("DELETE", path, self.owner.headers)
        return await self._over(thing.keys[WRITE_KEY])

    async def _signed_out(self, owner: Person) -> dict[str, str]:
        extra = await self.session(owner.id, owner.name)
        await self.done("GET", "/v1/me", extra.headers)
        await self.done("DELETE", "/v1/sessions/current", extra.headers)
        return await self._over(extra.headers)

    async def _over(self, headers: dict[str, str]) -> dict[str, str]:
        async def is_over() -> bool:
            return (await self.send("GET", "/v1/sign-up", headers)).status == 401

        await until_it_is(is_over, "the gateway knows that it ended", 10)
        return headers

    # -- the estate

    async def thing(self, make: Make) -> Thing:
        """The one of the estate; made when it is asked for first."""
        if make not in self.estate:
            self.estate[make] = await make(self)
        return self.estate[make]

    async def rows(self) -> set[str]:
        """Every row of auth and ingest but their inboxes, without what changes by looking or by itself."""
        found: set[str] = set()
        for schema, table in await self.sql(TABLES):
            sql = f"""
                SELECT row - 'last_seen_at' - 'locked_successor' AS row
                FROM {schema}.{table} t, to_jsonb(t) AS row WHERE (row ->> 'dataset')::int IS NULL
                OR NOT EXISTS (SELECT FROM ingest.dataset_counter
                               WHERE dataset = (row ->> 'dataset')::int AND cleared > 0)
            """  # noqa: S608 (what a clear has left is purged when there is time)
            found |= {f"{schema}.{table} {row['row']}" for row in await self.sql(sql)}
        return found


TABLES = """
SELECT n.nspname, c.relname FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE n.nspname IN ('auth', 'ingest') AND c.relkind IN ('r', 'p') AND NOT c.relispartition
  AND c.relname NOT IN ('inbox', 'delivery_attempt', 'migration') ORDER BY 1, 2
"""


def _person(person_id: str, name: str, tokens: dict[str, Any]) -> Person:
    return Person(person_id, name, tokens["access_token"], tokens["refresh_token"], tokens["session_id"])


@asynccontextmanager
async def world_of(posthouse: OwnPosthouse) -> AsyncIterator[World]:
    """An instance with everybody in it."""
    token = await asyncio.to_thread(sign_up, posthouse)
    tables = await asyncpg.connect(posthouse.addresses["POSTHOUSE_DATABASE_URL"], timeout=10)
    try:
        async with aiohttp.ClientSession(cookie_jar=aiohttp.DummyCookieJar()) as client:
            world = World(posthouse, client, token, tables)
            await world.gather_callers()
            yield world
    finally:
        await tables.close()


# -- things of the owner's, a new one each time


async def nothing(world: World) -> Thing:
    """What belongs to whoever asks, or to nobody."""
    return Thing()


async def _dataset(world: World, headers: dict[str, str], *, public: bool = False, text: str = MARK) -> Thing:
    new = {
        "name": f"roof {text}",
        "description": text,
        "public": public,
        "variables": [{"tag": "t"}, {"tag": text}],
    }
    made = await world.done("POST", "/v1/datasets", headers, new)
    path = f"/v1/datasets/{made['id']}/readings?source=a-file&position=7"
    await world.done("POST", path, headers, {"values": {"t": 1, text: text}, "status": text})
    keys = {who: {"X-API-Key": made[name]} for who, name in KEYS.items()}
    return Thing(PARTS | {"dataset_id": made["id"]}, keys)


KEYS = {READ_KEY: "read_key", WRITE_KEY: "write_key"}


async def private_dataset(world: World) -> Thing:
    """With a variable, a reading and an import under way."""
    return await _dataset(world, world.owner.headers)


async def public_dataset(world: World) -> Thing:
    """The same, for everybody to read."""
    return await _dataset(world, world.owner.headers, public=True)


async def deleted_dataset(world: World) -> Thing:
    """One that can still come back."""
    thing = await private_dataset(world)
    await world.done("DELETE", f"/v1/datasets/{thing.names['dataset_id']}", world.owner.headers)
    return thing


async def _submission(world: World, dataset: Thing, headers: dict[str, str]) -> Thing:
    path, wish = f"/v1/datasets/{dataset.names['dataset_id']}/readings", {"Prefer": "respond-async"}
    made = await world.done("POST", path, headers | wish, {"values": {"t": 2, MARK: MARK}})
    return Thing({"name": made["submission"]}, dataset.keys)


async def owners_submission(world: World) -> Thing:
    """A write the owner did not wait for."""
    return await _submission(world, await private_dataset(world), world.owner.headers)


async def devices_submission(world: World) -> Thing:
    """A write a device did not wait for."""
    dataset = await private_dataset(world)
    return await _submission(world, dataset, dataset.keys[WRITE_KEY])


async def owners_session(world: World) -> Thing:
    """Another place where the owner is signed in."""
    return Thing({"session_id": (await world.session(world.owner.id, world.owner.name, MARK)).session_id})


async def user(world: World) -> Thing:
    """Somebody's account."""
    found, name = await world.account()
    return Thing({"user_id": found}, says={"name": name})


async def deleted_user(world: World) -> Thing:
    """Somebody's account that can come back."""
    found, name = await world.account(deleted=True)
    return Thing({"user_id": found}, says={"name": name})


async def session(world: World) -> Thing:
    """A session somebody is about to go on with."""
    return Thing(says={"refresh_token": (await world.person()).refresh_token})


async def invitation(world: World) -> Thing:
    """One nobody has used."""
    made = await world.done("POST", "/v1/invitations", world.admin, {"note": MARK})
    return Thing({"invitation_id": made["id"]}, says={"invitation": made["secret"]})


async def logged(world: World) -> Thing:
    """A line about something the owner did."""
    name = f"{MARK}-{secrets.token_hex(4)}"
    new = {"name": f"named {MARK}"}
    await world.done("POST", "/v1/datasets", world.owner.headers | {"X-Request-Id": name}, new)

    async def is_there() -> bool:
        said = await world.send("GET", f"/v1/logs?request_id={name}", world.admin)
        return bool(re.search(rb'"items":\[\{', said.body))

    await until_it_is(is_there, "the line is stored", 20)
    return Thing(says={"request_id": name})
