"""S13: what is secret is in no log, queue, dead letter, dump, refusal or list of processes afterwards."""

from __future__ import annotations

import asyncio
import base64
import json
import re
import secrets
import sys
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import asyncpg
import pytest
import redis.asyncio

from deploy.identity import derive_password
from shared.bus.topology import SERVICES
from shared.db.migrate import role_of
from tests.faults.canaries import MARK, Canaries, everywhere, forms, hits
from tests.journeys.instance import OwnPosthouse, own_posthouse, until_it_is

pytestmark = pytest.mark.timeout(300)

# Every query leaves a line, every line is written: what is in no log then is in none at all.
LOUD = {"POSTHOUSE_LOG_LEVEL": "debug", "POSTHOUSE_LOG_QUERY_SAMPLE": "1", "POSTHOUSE_SIGN_UP": "open"}
LOUD["POSTHOUSE_RATE_SIGN_IN"] = "0"  # whoever tries so often would be refused before anybody looked
# The broker's own file of settings, which only its owner can read; and a name, which is no secret on its way.
MEANT = (
    "the administrator's password in POSTHOUSE_MANAGEMENT_URL: in rabbitmq/rabbitmq.conf",
    "a password given as the name: in rabbitmq/mnesia/",
)
VISIBLE = "plain-" + secrets.token_hex(12)  # no secret: it must be found


@dataclass
class Person:
    """Sends what people, devices and programs send, and keeps what they are answered."""

    url: str
    canaries: Canaries
    client: aiohttp.ClientSession
    refused: list[tuple[str, bytes]] = field(default_factory=list)
    answers: Counter[int] = field(default_factory=Counter)

    async def send(self, method: str, path: str, **more: Any) -> Any:
        """One request; what it is answered, when it is JSON."""
        headers = {"Origin": self.url} | dict(more.pop("headers", {}))
        async with self.client.request(
            method, self.url + path, headers=headers, allow_redirects=False, **more
        ) as answer:
            body = await answer.read()
            self.answers[answer.status] += 1
            if answer.status >= 400:
                said = json.dumps([*answer.headers.items()]).encode() + body
                self.refused.append((f"the refusal of {method} {path.partition('?')[0]}", said))
            return json.loads(body) if answer.content_type.endswith("json") else answer.headers

    async def ask(self, path: str, body: Any = None, token: str = "", **headers: str) -> Any:
        """POST with a body, else GET."""
        if token:
            headers["Authorization"] = f"Bearer {token}"
        return await self.send("GET" if body is None else "POST", path, json=body, headers=headers)

    def opened(self, answer: Any, whose: str) -> str:
        """Keep the tokens of a session; answers the access token."""
        for name in ("access_token", "refresh_token", "device_token"):
            if answer.get(name):
                self.canaries.keep(f"{name} of {whose}", answer[name])
        return str(answer["access_token"])


@asynccontextmanager
async def person(posthouse: OwnPosthouse, canaries: Canaries) -> AsyncIterator[Person]:
    async with aiohttp.ClientSession(cookie_jar=aiohttp.DummyCookieJar()) as client:
        yield Person(posthouse.url, canaries, client)


async def test_no_secret_is_left_anywhere(tmp_path: Path) -> None:
    canaries = Canaries()
    async with own_posthouse(tmp_path / "instance", **LOUD) as posthouse:
        keep_own(posthouse, canaries)
        async with person(posthouse, canaries) as ann:
            token = await come_in(ann)
            await refuse_all_kinds(ann, token)
            await use_keys(ann, token)
            await invite(ann, token)
            await use_a_browser(ann)
            await die_with_a_password(posthouse, ann)
            await change_and_go(ann)
        await settled(posthouse)
        async with in_plain_sight(posthouse):
            places = await everywhere(posthouse) + ann.refused
        found = [hit for hit in hits(canaries, places) if not hit.startswith(MEANT)]
        print(
            f"S13: {len(canaries.known)} secrets, requests by status {dict(sorted(ann.answers.items()))}, "
            f"{len(places)} places, "
            f"{sum(len(content) for _, content in places) >> 10:,} KiB: {len(found)} hits"
        )
        assert not found, "\n".join(found)
        missed = unseen(places)
        assert not missed, f"what is no secret is not found there: {missed}"


# -- where secrets are given -------------------------------------------------------------------------------


def keep_own(posthouse: OwnPosthouse, canaries: Canaries) -> None:
    """What the parts of the instance tell each other by."""
    key = canaries.keep("the secret key", posthouse.secret_key)
    for name in (*SERVICES, "gateway"):
        canaries.keep(f"RabbitMQ's password of {name}", derive_password(key, f"amqp:{name}"))
    for name in SERVICES:
        canaries.keep(f"PostgreSQL's password of {name}", derive_password(key, f"postgres:{role_of(name)}"))
    for name, url in posthouse.addresses.items():
        if found := re.search(r"//[^/:]*:([^/@]{16,})@", url):
            canaries.keep(f"the administrator's password in {name}", found[1])


async def come_in(ann: Person) -> str:
    """The first account, wrong passwords, and sessions in every way."""
    new = ann.canaries.new
    account = {"name": "ann", "email": "ann@example.org"}
    await ann.ask("/v1/setup", {"name": "", "email": "no address", "password": new("a refused setup")})
    await ann.ask("/v1/setup", {**account, "password": new("an unknown field"), "colour": "red"})
    from_elsewhere = {"password": new("a setup from elsewhere"), "code": new("a setup code")}
    await ann.ask("/v1/setup", account | from_elsewhere, **{"X-Forwarded-For": "203.0.113.9"})
    password = new("the password at setup")
    await ann.ask("/v1/setup", {**account, "password": password})
    named = {"name": "ann", "password": password}
    first = await ann.ask("/v1/sessions", named)
    ann.opened(first, "the first session")
    known = await ann.ask("/v1/sessions", {**named, "device_token": first["device_token"]})
    token = ann.opened(known, "a known device")
    await ann.ask("/v1/sessions", {"name": "ann", "password": new("a wrong password")})
    await ann.ask("/v1/sessions", {"name": "nobody", "password": new("the password of nobody")})
    await ann.ask("/v1/sessions", {"name": new("a password given as the name"), "password": "x" * 20})
    forged = f"phd_{secrets.token_hex(16)}_{new('a forged device token')}"
    await ann.ask("/v1/sessions", {**named, "password": new("beside it"), "device_token": forged})
    next_one = await ann.ask("/v1/sessions/refresh", {"refresh_token": known["refresh_token"]})
    token = ann.opened(next_one, "a refreshed session")
    await ann.ask("/v1/sessions/refresh", {"refresh_token": new("a forged refresh token")})
    await ann.ask("/v1/users", {"name": "bob", "email": "b@example.org", "password": new("of bob")})
    await ann.ask("/v1/users", {"name": "eve", "email": "bad", "password": "pw", "invitation": new("forged")})
    return token


async def refuse_all_kinds(ann: Person, token: str) -> None:
    """Secrets where they are wrong: other schemes, other places, bodies that cannot be read."""
    new = ann.canaries.new
    basic = base64.b64encode(f"ann:{new('a password as Basic')}".encode()).decode()
    ann.canaries.keep("the whole of Basic", basic)
    for value in (
        f"Basic {basic}",
        f"Bearer {new('no token')}",
        f"Bearer a.{new('inside')}.c",
        new("no scheme"),
    ):
        await ann.ask("/v1/me", Authorization=value)
    await ann.ask("/v1/me", token=token[:-4] + "AAAA")
    ann.canaries.keep("a token with another signature", token[:-4] + "AAAA")
    for name in ("access_token", "token", "api_key", "key", "password"):
        await ann.ask(f"/v1/me?{name}={new(f'{name} in the query')}")
    await ann.ask(f"/v1/datasets/{new('in the path')}")
    await ann.ask(f"/https://ann:{new('in an address')}@example.org/")
    await ann.ask(
        "/v1/sign-up", Referer=f"https://ann:{new('the referrer')}@example.org/", Cookie=new("no cookie")
    )
    for path in ("/v1/sessions", "/v1/setup", "/v1/users", "/v1/sessions/refresh", "/v1/me/restore"):
        text = json.dumps({"name": "ann", "password": new(f"a broken body to {path}")})[:-3]
        for kind in ("application/json", "text/plain", "application/x-www-form-urlencoded"):
            await ann.send("POST", path, data=text.encode(), headers={"Content-Type": kind})
        await ann.ask(path, [{"password": new(f"in a list to {path}")}])
        await ann.ask(path, {"password": {"is": new(f"deeper, to {path}")}, "refresh_token": 7})
        await ann.ask(path, {"password": new(f"too long, to {path}") * 20_000})
    await ann.ask("/v1/datasets", {"password": new("in a dataset"), "name": 7}, token)


async def use_keys(ann: Person, token: str) -> None:
    """Keys of datasets: made, shown, used, renewed, and some that are none."""
    made = await ann.ask("/v1/datasets", {"name": VISIBLE, "variables": [{"tag": "temp"}]}, token)
    path = f"/v1/datasets/{made['id']}"
    for kind in ("read", "write"):
        ann.canaries.keep(f"the {kind} key", made[f"{kind}_key"])
    reading = {"values": {"temp": 1}}
    await ann.ask(f"{path}/readings", reading, **{"X-API-Key": made["write_key"]})
    await ann.ask(f"{path}/readings", reading, **{"X-API-Key": made["read_key"]})
    await ann.ask(f"{path}/readings", {"values": {"temp": []}}, **{"X-API-Key": made["write_key"]})
    await ann.ask(f"{path}/readings/latest", **{"X-API-Key": made["read_key"]})
    await ann.ask(f"{path}/readings?api_key={made['write_key']}", reading)
    await ann.ask(f"/update?api_key={made['write_key']}&field1=7")
    await ann.ask(f"{path}/keys", None, token)
    forged = ann.canaries.keep("a forged key", "".join(secrets.choice("0123456789ABCDEF") for _ in range(16)))
    await ann.ask(f"{path}/readings", reading, **{"X-API-Key": forged})
    await ann.ask(f"{path}/readings", reading, **{"X-API-Key": ann.canaries.new("no key at all")})
    renewed = await ann.send("POST", f"{path}/keys/write", headers={"Authorization": f"Bearer {token}"})
    ann.canaries.keep("the renewed key", renewed["write_key"])
    await ann.ask(f"{path}/readings", reading, **{"X-API-Key": made["write_key"]})  # over by now


async def invite(ann: Person, token: str) -> None:
    """An invitation, used, used again, and one nobody made."""
    made = await ann.ask("/v1/invitations", {"note": "for carl"}, token)
    secret = ann.canaries.keep("an invitation", made["secret"])
    carl = {"name": "carl", "email": "carl@example.org", "password": ann.canaries.new("of carl")}
    await ann.ask("/v1/users", carl | {"invitation": secret})
    await ann.ask("/v1/users", carl | {"name": "dora", "email": "dora@example.org", "invitation": secret})


async def use_a_browser(ann: Person) -> None:
    """Pages: signed in by a form, with a cookie; forms with secrets that are refused; cookies nobody gave."""
    [password] = [secret for secret, place in ann.canaries.known.items() if place == "the password at setup"]
    answer = await ann.send("POST", "/login", data={"name": "ann", "password": password})
    [cookie] = [text for text in answer.getall("Set-Cookie", []) if text.startswith("posthouse=")]
    value = ann.canaries.keep("the cookie of a browser", cookie.partition("=")[2].partition(";")[0])
    for path in ("/", "/settings", "/sessions", "/logs", "/users"):
        await ann.ask(path, Cookie=f"posthouse={value}", Accept="text/html")
    forged = secrets.token_urlsafe(32)
    await ann.ask("/v1/me", Cookie=f"posthouse={ann.canaries.keep('a forged cookie', forged)}")
    new = ann.canaries.new
    for path in ("/login", "/sign-up", "/setup", "/restore"):
        typed = new(f"typed at {path}")
        form = {"name": "ann", "email": "x", "password": typed, "password_again": new(f"again at {path}")}
        await ann.send("POST", path, data=form)
    other = {"Origin": "https://evil.test", "Cookie": f"posthouse={value}"}
    await ann.send("POST", "/login", data={"password": new("from another site")}, headers=other)


async def die_with_a_password(posthouse: OwnPosthouse, ann: Person) -> None:
    """A handler that fails during a sign-in: its frame goes to the dead letters, with a traceback."""
    administrator = await asyncpg.connect(posthouse.addresses["POSTHOUSE_DATABASE_URL"])
    await administrator.execute("ALTER TABLE auth.account RENAME TO elsewhere")
    try:
        named = {"name": "ann", "password": ann.canaries.new("of a sign-in that fails")}
        failed = await ann.ask("/v1/sessions", named, **{"X-Request-Id": VISIBLE})
        assert failed["status"] == 500
    finally:
        await administrator.execute("ALTER TABLE auth.elsewhere RENAME TO account")
        await administrator.close()


async def change_and_go(ann: Person) -> None:
    """Another password, then no account any more, then one again."""
    new = ann.canaries.new
    [old] = [secret for secret, place in ann.canaries.known.items() if place == "of bob"]
    token = ann.opened(await ann.ask("/v1/sessions", {"name": "bob", "password": old}), "bob")
    me = {"Authorization": f"Bearer {token}"}
    for change in (
        {"password": new("a new one without the old")},
        {"password": new("beside a wrong old one"), "current_password": new("the wrong old one")},
        {"password": "short", "current_password": old},
        {"password": (password := new("the changed password")), "current_password": old},
    ):
        await ann.send("PATCH", "/v1/me", json=change, headers=me)
    await ann.send("DELETE", "/v1/me", json={"password": new("a wrong one at the end")}, headers=me)
    await ann.send("DELETE", "/v1/me", json={"password": password}, headers=me)
    await ann.ask("/v1/me/restore", {"name": "bob", "password": new("a wrong one to come back")})
    await ann.ask("/v1/me/restore", {"name": "bob", "password": password})
    ann.opened(await ann.ask("/v1/sessions", {"name": "bob", "password": password}), "bob who is back")


# -- where they are looked for -----------------------------------------------------------------------------


async def settled(posthouse: OwnPosthouse) -> None:
    """Every line that will be stored is."""

    async def is_stored() -> bool:
        sql = "SELECT count(*) FROM worker.log_line WHERE request_id = $1 AND level >= 40"
        return bool((await posthouse.sql(sql, VISIBLE))[0][0]) and not await posthouse.depth("worker.logs")

    await until_it_is(is_stored, "the failure is in the log", 30)


@asynccontextmanager
async def in_plain_sight(posthouse: OwnPosthouse) -> AsyncIterator[None]:
    """What is no secret, where nothing of ours would have put it: the search must see those places too."""
    client = redis.asyncio.Redis.from_url(posthouse.addresses["POSTHOUSE_REDIS_URL"])
    await client.set("canary", VISIBLE)
    sleeper = await asyncio.create_subprocess_exec(
        sys.executable, "-c", "input()", VISIBLE, stdin=asyncio.subprocess.PIPE
    )
    try:
        yield
    finally:
        sleeper.kill()
        await sleeper.wait()
        await client.aclose()


SEEN = (
    *(
        "logs/auth.log",
        "./posthouse logs",
        "the database",
        "the queue dead.auth",
        "rabbitmq/mnesia/",
        "Redis",
    ),
    *("the list of processes", "the refusal of POST /v1/sessions"),
)


def unseen(places: list[tuple[str, bytes]]) -> list[str]:
    """The places where the text that is no secret should be, and is not."""
    seen = {where for where, content in places if any(form in content for form in forms(VISIBLE))}
    return [place for place in SEEN if not any(where.startswith(place) for where in seen)]


def test_a_secret_is_found_however_it_is_written() -> None:
    canaries = Canaries()
    secret = canaries.new("somewhere")
    key = canaries.keep("a key", "0123456789ABCDEF")
    for before in range(3):
        text = base64.b64encode(b"x" * before + secret.encode() + b"yz")
        assert canaries.found_in("here", text) == ["somewhere: in here"]
        assert canaries.found_in("here", text.replace(b"+", b"-").replace(b"/", b"_")) == [
            "somewhere: in here"
        ]
    assert canaries.found_in("here", b"\\x" + secret.encode().hex().encode()) == ["somewhere: in here"]
    assert canaries.found_in("here", b"a" + key.encode() + b"b") == ["a key: in here"]
    assert canaries.found_in("here", f"{MARK}-{'0' * 32} {key[1:]}".encode()) == []
