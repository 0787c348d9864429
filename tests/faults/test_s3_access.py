"""S3: every operation there is, from every kind of caller: nobody does or sees what is not theirs."""

from __future__ import annotations

import asyncio
import re
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from itertools import compress
from pathlib import Path
from typing import Any

import pytest

from services.gateway.pages.table import SITES
from tests.faults.access import (
    ADMIN,
    MARK,
    NOBODY,
    OTHERS_BROWSER,
    OWNERS_BROWSER,
    Caller,
    Said,
    Thing,
    World,
    private_dataset,
    world_of,
)
from tests.faults.access_pages import PAGES, WITHOUT_A_TRACE
from tests.faults.access_table import BAD, OWNERS, PRIVATE, ROWS, Row
from tests.faults.kills import HOOKS
from tests.journeys.instance import own_posthouse, until_it_is

pytestmark = pytest.mark.timeout(300)

AT_ONCE = 4
PATTERN = re.compile(r":[^{}]+(\{\d+\})?\}")
SETTINGS = {"POSTHOUSE_RATE_SIGN_IN": "0", "POSTHOUSE_RATE_ANONYMOUS": "0"}
SETTINGS["POSTHOUSE_TRUSTED_PROXIES"] = "127.0.0.1"
NOT_WAITING = {"Prefer": "respond-async"}


@dataclass
class Matrix:
    """Goes through rows and writes down what should not be."""

    world: World
    rows: Sequence[Row]
    carried_out: list[str] = field(default_factory=list)
    """Done for somebody who may not."""
    shown: list[str] = field(default_factory=list)
    """What the owner wrote, in an answer to somebody else."""
    told: list[str] = field(default_factory=list)
    """An answer that differs from that for a thing that is not there, or is none of those expected."""
    held_back: list[str] = field(default_factory=list)
    """Refused to somebody who may."""
    queued: int = 0
    cells: int = 0

    async def run(self) -> None:
        """Each row, first to those who may not; some rows at once."""
        lanes = asyncio.Semaphore(AT_ONCE)

        async def whole(row: Row) -> None:
            async with lanes:
                await self.refuse(row)
                for who in sorted(row.may):
                    self.cells += 1
                    await self._entitled(row, who)

        await asyncio.gather(*map(whole, self.rows))

    # -- those who may not

    async def refuse(self, row: Row) -> None:
        """Everybody who may not, on the estate."""
        thing = await self.world.thing(row.thing)
        body = row.body(thing) if row.body else None
        denied = self._denied(row)
        self.cells += len(denied)
        await _each(denied, lambda who: self._refused(row, thing, who, body))
        if row.queued:
            await _each(denied, lambda who: self._refused_later(row, thing, who, body))

    async def _refused(self, row: Row, thing: Thing, who: str, body: Any) -> None:
        headers = self._headers(who, thing)
        said = await self.world.send(row.method, row.path(thing), headers, body)
        self._judge(row, thing, who, said)
        nowhere = row.nowhere(thing)
        if nowhere and not row.knows(who):
            other = await self.world.send(row.method, nowhere, headers, body)
            if (said.status, said.words) != (other.status, other.words):
                self.told.append(f"{row.name} to {who}: {said}, of what is not there: {other}")

    def _judge(self, row: Row, thing: Thing, who: str, said: Said) -> None:
        if said.status < 400:
            self.carried_out.append(f"{row.name} for {who}: {said.status}")
        elif said.status not in row.refused:
            self.told.append(f"{row.name} to {who}: {said}")
        if thing.is_in(said.body):
            self.shown.append(f"{row.name} to {who}")

    async def _refused_later(self, row: Row, thing: Thing, who: str, body: Any) -> None:
        """What nobody waits for is taken in and refused by the service: ask what became of it."""
        headers = self._headers(who, thing)
        said = await self.world.send(row.method, row.path(thing), headers | NOT_WAITING, body)
        if said.status != 202:
            self._judge(row, thing, who, said)
            return
        self.queued += 1
        path, became = f"/v1/submissions/{said.words['submission']}", {}

        async def is_over() -> bool:
            nonlocal became
            became = (await self.world.send("GET", path, headers)).words
            return bool(became["state"] != "queued")

        await until_it_is(is_over, f"{row.name} for {who} has come to an end", 20)
        if became["state"] != "refused":
            self.carried_out.append(f"{row.name} for {who}, not waiting: {became}")

    # -- those who may

    async def _entitled(self, row: Row, who: str) -> None:
        """The very request that is refused to all others, before and after, under the same key."""
        thing = await (row.thing(self.world) if row.changes else self.world.thing(row.thing))
        caller = await self._fresh(row, who)
        body = row.body(thing) if row.body else None
        key = {"Idempotency-Key": secrets.token_hex(8)} if row.changes else {}
        if row.changes:
            await self._with_key(row, thing, body, key)
        headers = thing.keys.get(who, caller.headers)
        said = await self.world.send(row.method, row.path(thing), headers | key, body)
        if not 200 <= said.status < 300:
            self.held_back.append(f"{row.name} from {who}: {said}")
        if row.changes:
            await self._with_key(row, thing, body, key)
        self._look(row, who, said)

    def _look(self, row: Row, who: str, said: Said) -> None:
        is_shown = MARK.encode() in said.body
        if row.sees is None or not said.body:
            return
        if is_shown and who not in row.sees:
            self.shown.append(f"{row.name} to {who}")
        if who in row.sees and not is_shown:
            self.held_back.append(f"{row.name} shows {who} nothing")

    async def _with_key(self, row: Row, thing: Thing, body: Any, key: dict[str, str]) -> None:
        """Those whose secret is no good are turned away before the key is looked at."""

        async def attempt(who: str) -> None:
            headers = self._headers(who, thing) | key
            said = await self.world.send(row.method, row.path(thing), headers, body)
            if said.status < 400:
                self.carried_out.append(f"{row.name} for {who}, with the key of another: {said.status}")

        await _each([who for who in self._denied(row) if who not in BAD], attempt)

    async def _fresh(self, row: Row, who: str) -> Caller:
        """Who is not the same afterwards is not needed again."""
        return await self.world.newcomer(who) if row.spends else self.world.callers[who]

    def _denied(self, row: Row) -> list[str]:
        return [who for who in self.world.callers if who not in row.may]

    def _headers(self, who: str, thing: Thing) -> dict[str, str]:
        return thing.keys.get(who, self.world.callers[who].headers)

    @property
    def found(self) -> list[str]:
        """Everything that should not be."""
        return [*self.carried_out, *self.shown, *self.told, *self.held_back]


async def _each(callers: Sequence[str], act: Callable[[str], Awaitable[None]]) -> None:
    await asyncio.gather(*map(act, callers))


@pytest.fixture(scope="module")
def trigger(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """While this file is there, ingest takes everybody for the owner."""
    return tmp_path_factory.mktemp("s3") / "everybody-owns"


@pytest.fixture(scope="module")
async def world(tmp_path_factory: pytest.TempPathFactory, trigger: Path) -> AsyncIterator[World]:
    hooked = {
        "PYTHONPATH": str(HOOKS),
        "FAULTS_IN": "services.ingest",
        "FAULTS_OWNERS_FILE": str(trigger),
    }
    directory = tmp_path_factory.mktemp("instance")
    async with own_posthouse(directory, **SETTINGS, **hooked) as posthouse, world_of(posthouse) as opened:
        yield opened


async def test_every_operation_that_is_described_has_a_row(world: World) -> None:
    found = await world.done("GET", "/openapi.json", {})
    described = {
        f"{method.upper()} {path}": "202" in operation["responses"]
        for path, methods in found["paths"].items()
        for method, operation in methods.items()
    }
    assert described == {row.operation: row.queued for row in ROWS}


async def test_nobody_does_or_sees_what_is_not_theirs(world: World) -> None:
    for row in ROWS:
        await world.thing(row.thing)
    before = await world.rows()
    world.requests = 0
    matrix = Matrix(world, ROWS)
    await matrix.run()
    changed = before - await world.rows()
    print(
        f"S3: {len({row.operation for row in ROWS})} operations ({len(ROWS)} with what they are done to) x"
        f" {len(world.callers)} callers, {matrix.cells} cells, {world.requests} requests ({matrix.queued}"
        f" not waited for), unauthorised 2xx {len(matrix.carried_out)}, foreign rows {len(matrix.shown)},"
        f" of {len(before)} rows changed {len(changed)}"
    )
    assert not matrix.found, "\n".join(matrix.found)
    assert not changed, "\n".join(sorted(changed))


async def test_every_page_has_a_row() -> None:
    pages = {f"{row.method} {PATTERN.sub('}', row.path)}" for site in SITES for row in site.rows}
    assert pages == {row.operation for row in PAGES}


async def test_no_page_shows_and_no_form_does_more(world: World) -> None:
    """A form answers in many ways: what counts is that no row changes, and that the right sender's does."""
    shown, changed, without_effect = [], [], []
    for row in PAGES:
        await world.thing(row.thing)
        before = await world.rows()
        outsiders = _outsiders(world, row)
        seen = await asyncio.gather(*(_is_shown(world, row, who) for who in outsiders))
        shown += [f"{row.name} to {who}" for who in compress(outsiders, seen)]
        changed += [f"{row.name}: {each}" for each in before ^ await world.rows()]
        without_effect += await _entitled(world, row)
    print(
        f"S3: {len(PAGES)} pages and forms x {len(world.callers)} callers, foreign rows {len(shown)},"
        f" rows changed {len(changed)}"
    )
    wrong = shown + changed + without_effect
    assert not wrong, "\n".join(wrong)


def _outsiders(world: World, row: Row) -> list[str]:
    """Those who may not, and of a page also those whose own it shows."""
    insiders = row.may if row.changes or row.sees is None else row.may & row.sees
    return [who for who in world.callers if who not in insiders]


async def _is_shown(world: World, row: Row, who: str) -> bool:
    """Whether somebody sees a page that is not for them, or more than the own name at its top."""
    thing = await world.thing(row.thing)
    headers = thing.keys.get(who, world.callers[who].headers)
    said = await world.visit(row.method, row.path(thing), headers, _form(row, thing))
    is_open = not row.changes and who not in row.may and said.status == 200
    return is_open or (who not in OWNERS and thing.is_in(said.body))


async def _entitled(world: World, row: Row) -> list[str]:
    """The same form from whoever may, from nobody where anybody may: what it should have done and did not."""
    [who, *_] = [who for who in (NOBODY, OWNERS_BROWSER, ADMIN) if who in row.may] or [""]
    if not who:
        return []
    caller = await world.newcomer(OTHERS_BROWSER) if row.spends else world.callers[who]
    thing = await (row.thing(world) if row.changes else world.thing(row.thing))
    before = await world.rows()
    said = await world.visit(row.method, row.path(thing), caller.headers, _form(row, thing))
    if said.status not in (200, 303):
        return [f"{row.name}: {said.status}"]
    if not row.changes:
        return [f"{row.name} shows nothing"] if row.sees and not thing.is_in(said.body) else []
    has_effect = row.operation in WITHOUT_A_TRACE or before != await world.rows()
    return [] if has_effect else [f"{row.name} has changed nothing"]


def _form(row: Row, thing: Thing) -> Any:
    return row.body(thing) if row.body else None


async def test_without_the_check_of_ownership_the_same_requests_find_it_missing(
    world: World, trigger: Path
) -> None:
    world.estate.clear()
    matrix = Matrix(world, sorted(PRIVATE, key=lambda row: row.method == "DELETE"))
    await world.thing(private_dataset)
    before = await world.rows()
    trigger.touch()
    try:
        for row in matrix.rows:
            await matrix.refuse(row)
    finally:
        trigger.unlink()
    changed = before - await world.rows()
    print(
        f"S3 without the check of ownership: unauthorised 2xx {len(matrix.carried_out)}, foreign rows"
        f" {len(matrix.shown)}, of {len(before)} rows changed {len(changed)}"
    )
    assert matrix.carried_out
    assert matrix.shown
    assert changed
