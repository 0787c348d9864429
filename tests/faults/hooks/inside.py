"""Faults that only the process itself can time, and protections taken away to show what they are for."""

from __future__ import annotations

import os
import signal
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import asyncpg

from shared.bus import link
from shared.bus.amqp import Publisher
from shared.bus.codec import Frame
from shared.bus.endings import Endings, Outcome
from shared.bus.inbox import BLANK_PACKED, Entry, PostgresInbox, PostgresUnit
from shared.bus.routes import Guess, Statement
from shared.bus.running import Runner
from shared.bus.service import Service
from shared.bus.topology import REPLIES
from shared.bus.verdict import Broker, Ending, Verdict

LATE_SECONDS = 4.0


def arm() -> None:
    """Change the inbox of this process as the environment says."""
    if os.environ.get("FAULTS_INBOX") == "off":
        _forget_everything()
    if trigger := os.environ.get("FAULTS_KILL_FILE"):
        _die_after_commits(Path(trigger))
    for name, take_away in PROTECTIONS.items():
        if os.environ.get(f"FAULTS_{name}") == "off":
            take_away()
    if os.environ.get("FAULTS_POISON") == "on":
        _be_poisoned()
    if os.environ.get("FAULTS_REPLIES") == "again":
        _reply_again()
    if everybody := os.environ.get("FAULTS_OWNERS_FILE"):
        _own_everything(Path(everybody))


def _own_everything(trigger: Path) -> None:
    """While the file is there, whoever calls ingest is taken for the owner."""
    from services.ingest import rules  # the other services have no owners

    is_owner = rules.is_owner
    rules.is_owner = lambda known, caller: trigger.exists() or is_owner(known, caller)


def _die_after_commits(trigger: Path) -> None:
    """While the file is there, count commits; after as many as it says, take it away and die.

    It says a number, and perhaps which way they have to go: unit, at_once or with_row. The death comes when
    the server has confirmed the commit and before any reply or ack has left.
    """
    unit, at_once, with_row = PostgresInbox.unit, PostgresInbox.at_once, PostgresInbox.with_row
    seen: Counter[str] = Counter()

    def committed(way: str) -> None:
        with suppress(FileNotFoundError):
            wanted, _, only = trigger.read_text().partition(" ")
            if only not in ("", way):
                return
            seen[only] += 1
            if seen[only] >= int(wanted):
                trigger.unlink()  # of several processes one gets here
                os.kill(os.getpid(), signal.SIGKILL)

    @asynccontextmanager
    async def deadly_unit(self: PostgresInbox) -> AsyncIterator[PostgresUnit]:
        async with unit(self) as opened:
            yield opened
        committed("unit")

    async def deadly_at_once(self: PostgresInbox, guess: Guess, entries: Sequence[Entry]) -> bool:
        right = await at_once(self, guess, entries)
        if right:
            committed("at_once")
        return right

    async def deadly_with_row(self: PostgresInbox, statement: Statement[Any], entry: Entry) -> bytes:
        reply = await with_row(self, statement, entry)
        committed("with_row")
        return reply

    PostgresInbox.unit = deadly_unit  # type: ignore[method-assign]
    PostgresInbox.at_once = deadly_at_once  # type: ignore[method-assign]
    PostgresInbox.with_row = deadly_with_row  # type: ignore[method-assign]


def _forget_everything() -> None:
    async def find(self: Any, ids: Any) -> dict[Any, Any]:
        return {}

    async def keep(self: Any, entries: Any) -> set[Any]:
        return {entry.id for entry in entries}

    async def lock(self: Any, ids: Any) -> set[Any]:
        return set(ids)

    async def record(self: Any, entries: Any) -> None:
        return None

    async def at_once(self: PostgresInbox, guess: Guess, entries: Any) -> bool:
        sql = f"WITH {guess.sql} SELECT 1 / ({guess.proof})::integer"
        try:
            async with unit(self) as opened:
                await opened.db.execute(sql, *guess.arguments)
        except asyncpg.DivisionByZeroError:
            return False
        return True

    async def with_row(self: PostgresInbox, statement: Any, entry: Any) -> bytes:
        async with unit(self) as opened:
            number = await opened.carry_out(statement)
        return entry.reply.replace(BLANK_PACKED, b"\xce" + number.to_bytes(4, "big"))

    unit = PostgresInbox.unit
    PostgresInbox.at_once = at_once  # type: ignore[method-assign]
    PostgresInbox.with_row = with_row  # type: ignore[method-assign]
    PostgresInbox.find = find  # type: ignore[method-assign]
    PostgresInbox.keep = keep  # type: ignore[method-assign]
    PostgresUnit.lock = lock  # type: ignore[method-assign]
    PostgresUnit.record = record  # type: ignore[method-assign]


def _believe_without_confirms() -> None:
    def post(self: Publisher, message: link.Outgoing, settled: link.Settled) -> None:
        sent = self.send(message)
        self._tap.loop.call_soon(settled, None if sent else link.LinkDown(self.closed))

    Publisher.post = post  # type: ignore[method-assign]


def _let_unroutable_fall() -> None:
    frames = Publisher._frames

    def careless(self: Publisher, message: link.Outgoing) -> bytes:
        message.mandatory = False
        return frames(self, message)

    Publisher._frames = careless  # type: ignore[method-assign]


def _hold_nothing() -> None:
    """While the database is away, what arrives has failed."""

    def hold(self: Service, work: Any, outcome: Outcome) -> None:
        self._ended_so(work, outcome.ending)
        self._endings.carry_out(work, Outcome(Ending.FAILED, error=outcome.error), Verdict(Broker.ACK, 500))

    Service._hold = hold  # type: ignore[method-assign]


def _forget_deadlines() -> None:
    Frame.seconds_left = lambda self, now: None  # type: ignore[method-assign]


def _fail_together() -> None:
    """Frames of a batch that fails are not tried one by one."""

    async def many(self: Runner, route: Any, works: Any) -> Any:
        ended: dict[Any, Any] = {}
        try:
            ready, messages = await self._sift(works, ended)
            if ready:
                ended.update(zip(ready, await self._batch(route, ready, messages), strict=True))
        except Exception as error:
            failed = self._failed(error)
            return [ended.get(work, failed) for work in works]
        return [ended[work] for work in works]

    Runner.many = many  # type: ignore[method-assign]


def _count_together() -> None:
    """What is delivered again runs with the others, and an attempt of one is an attempt of all of them.

    As it is when the broker counts deliveries.
    """
    sift = Runner._sift

    async def counted(self: Runner, works: Any, ended: dict[Any, Any]) -> Any:
        again = [work for work in works if work.taken.delivery.redelivered]
        ended.update(await self._look(again) if again else {})
        for work in again:
            if work not in ended and (often := await self._counted(work.frame)):
                ended[work] = often
        return await sift(self, [work for work in works if work not in ended], ended)

    Runner._sift = counted  # type: ignore[method-assign]
    Service._track_of = lambda self, place, work: place.track  # type: ignore[method-assign]


def _bury_unconfirmed() -> None:
    """What goes to the dead letters is sent once, and has arrived."""

    async def once(self: Endings, message: link.Outgoing) -> None:
        with suppress(Exception):
            await self._link.publish(message)

    Endings._publish_until_confirmed = once  # type: ignore[method-assign]


PROTECTIONS = {
    "BURIED": _bury_unconfirmed,
    "COUNT": _count_together,
    "ALONE": _fail_together,
    "CONFIRMS": _believe_without_confirms,
    "MANDATORY": _let_unroutable_fall,
    "HOLD": _hold_nothing,
    "DEADLINE": _forget_deadlines,
}


def _be_poisoned() -> None:
    """A request whose id says so makes the handler raise, or ends the process.

    Each run of one is written down, with how many ran together.
    """
    batch = Runner._batch
    book = os.open(os.environ["FAULTS_POISON_BOOK"], os.O_WRONLY | os.O_CREAT | os.O_APPEND)

    async def poisoned(self: Runner, route: Any, works: Any, messages: Any) -> Any:
        for each in [work.frame.request_id for work in works]:
            if each.startswith("poison-"):
                os.write(book, f"{each} {len(works)}\n".encode())
            if each.startswith("poison-kills"):
                os.kill(os.getpid(), signal.SIGKILL)
            if each.startswith("poison-raises"):
                raise ValueError("poison")
        return await batch(self, route, works, messages)

    Runner._batch = poisoned  # type: ignore[method-assign]


def _reply_again() -> None:
    """Every reply leaves twice, and a third time when whoever asked has given up long ago."""
    post = Publisher.post

    def again(self: Publisher, message: link.Outgoing, settled: link.Settled) -> None:
        post(self, message, settled)
        if message.exchange == REPLIES:
            self._tap.loop.call_soon(self.send, message)
            self._tap.loop.call_later(LATE_SECONDS, self.send, message)

    Publisher.post = again  # type: ignore[method-assign]
