"""A small service that does what a message tells it to, for tests of the bus."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from msgspec import Struct

from shared.bus.routes import Call, Done, Job, Routes, Statement
from shared.contracts.base import Command, Event, Query
from shared.errors import Conflict, Refusal, Retry, TooMany


class Added(Struct, frozen=True):
    """How many effects there were, this one included."""

    count: int


class Add(Command[Added], topic="probe.add"):
    """Add an effect, or fail as `how` says."""

    text: str
    how: str = ""


class AddOne(Command[Added], topic="probe.add_one"):
    """As Add, in one statement."""

    text: str
    how: str = ""


class AddMany(Command[Added], topic="probe.add_many"):
    """As Add, in batches."""

    text: str
    how: str = ""


class Ask(Query[str], topic="probe.ask"):
    """Answer with the text, or fail as `how` says."""

    text: str
    how: str = ""


class Stream(Query[int], topic="probe.stream"):
    """Count to `most`."""

    most: int
    how: str = ""


class Stranger(Query[str], topic="stranger.ask"):
    """Nobody takes it."""

    text: str


class TextAdded(Event, topic="probe.text_added"):
    """An effect is there."""

    text: str


class Internal(Command[Added], topic="probe.internal", senders=frozenset()):
    """Only probe itself may send this."""

    text: str


class Shouted(Event, topic="intruder.shouted"):
    """Another service has something to say."""

    text: str


@dataclass
class Script:
    """What the handlers share with the test: who has entered, what they wait for, what they made."""

    entered: asyncio.Queue[str] = field(default_factory=asyncio.Queue)
    gate: asyncio.Event = field(default_factory=asyncio.Event)
    runs: list[str] = field(default_factory=list)
    batches: list[int] = field(default_factory=list)
    refuse: bool = True
    produced: int = 0
    making: int = 0
    most_making: int = 0
    stopped: asyncio.Event = field(default_factory=asyncio.Event)


@dataclass(frozen=True)
class Deps:
    """What the handlers work with."""

    call: Call
    script: Script
    effects: Any


def make_routes() -> Routes:
    """The routes of probe."""
    routes = Routes("probe")
    routes.command(Add)(add)
    routes.command(Internal)(internal)
    routes.command(AddOne, one_statement=True)(add_one)
    routes.batch(AddMany)(add_many)
    routes.query(Ask)(ask)
    routes.stream(Stream)(stream)
    routes.event(Shouted)(heard)
    return routes


async def act(text: str, how: str, deps: Deps) -> None:
    """Fail, wait or go on."""
    script = deps.script
    script.runs.append(text)
    script.entered.put_nowait(text)
    if how == "refuse" and script.refuse:
        raise Conflict("not now", code="not_now")
    if how == "too many" and script.refuse:
        raise TooMany("slower")
    if how == "retry":
        raise Retry("later", after_seconds=0.1)
    if how == "retry once" and deps.call.attempt == 1:
        raise Retry("later", after_seconds=0.1)
    if how == "crash":
        raise ZeroDivisionError("a bug")
    if how == "wait":
        await script.gate.wait()
    if how == "away":
        raise ConnectionError("gone")


async def add(message: Add, deps: Deps) -> Done[Added | Refusal]:
    await act(message.text, message.how, deps)
    count = await deps.effects.add(deps.call.db, message.text)
    if message.how == "refuse and keep":
        return Done(Conflict("kept", code="kept"), events=(TextAdded(text=message.text),))
    if message.how == "crash late":
        raise ZeroDivisionError("a bug after the effect")
    return Done(Added(count), events=(TextAdded(text=message.text),))


async def add_one(message: AddOne, deps: Deps) -> Statement[Added]:
    await act(message.text, message.how, deps)
    sql = "made AS (INSERT INTO effect (text) VALUES ($1) RETURNING 1 AS number)"
    return Statement(sql, (message.text,), Added)


async def internal(message: Internal, deps: Deps) -> Done[Added]:
    return Done(Added(await deps.effects.add(deps.call.db, message.text)))


async def add_many(jobs: Sequence[Job[AddMany]], deps: Deps) -> list[Done[Added | Refusal] | Refusal]:
    deps.script.batches.append(len(jobs))
    outcomes: list[Done[Added | Refusal] | Refusal] = []
    for job in jobs:
        if job.message.how == "refuse":
            outcomes.append(Conflict("not now", code="not_now"))
            continue
        await act(job.message.text, job.message.how, deps)
        count = await deps.effects.add(deps.call.db, job.message.text)
        if job.message.how == "refuse and keep":
            outcomes.append(Done(Conflict("kept", code="kept"), events=(TextAdded(text=job.message.text),)))
            continue
        outcomes.append(Done(Added(count), events=(TextAdded(text=job.message.text),)))
    return outcomes


async def heard(message: Shouted, deps: Deps) -> Done[None]:
    await deps.effects.add(deps.call.db, message.text)
    return Done(None)


async def ask(message: Ask, deps: Deps) -> Done[str]:
    await act(message.text, message.how, deps)
    return Done(message.text)


async def stream(message: Stream, deps: Deps) -> AsyncIterator[int]:
    script = deps.script
    try:
        if message.how == "refuse":
            raise Conflict("not now", code="not_now")
        for number in range(message.most):
            if message.how == "crash" and number == message.most // 2:
                raise ZeroDivisionError("a bug")
            script.produced += 1
            if message.how == "slow":
                script.making += 1
                script.most_making = max(script.most_making, script.making)
                await asyncio.sleep(0.01)
                script.making -= 1
            yield number
    finally:
        script.stopped.set()
