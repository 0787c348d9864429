"""A service's table of handlers; importing it touches no network and leaves the functions as they are."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Generic, Literal, TypeVar
from uuid import UUID

import msgspec

from shared.contracts.base import Command, Event, Message, Principal, Query

R = TypeVar("R")
M = TypeVar("M", bound=Message)
H = TypeVar("H", bound=Callable[..., Any])
Shape = Literal["command", "batch", "query", "stream", "event"]


class Done(msgspec.Struct, Generic[R], frozen=True):
    """What a handler returns: the reply, and the events to announce once it is committed.

    A `Refusal` as the reply of a command refuses the caller and keeps what was done, unlike one that is
    raised: a stolen token is refused, and the session it came from has ended.
    """

    reply: R
    events: tuple[Event, ...] = ()


class Job(msgspec.Struct, Generic[M], frozen=True):
    """One message of a batch, with what its frame says about it.

    `id` is the frame id (a repeat has the same), `born` when the message was accepted at the door.
    """

    message: M
    id: UUID
    caller: Principal
    born: datetime


class Guess(msgspec.Struct, frozen=True):
    """What a batch comes to if what this process remembers is still so, and one statement that makes sure.

    `sql` is a list of common table expressions with parameters from $1 on, which write the effects;
    `proof` an expression over them, true when the guess was right: if it is not, nothing happens.
    `ended` is told whether it was.
    """

    results: Sequence[Done[Any]]
    sql: str
    proof: str
    arguments: Sequence[Any]
    ended: Callable[[bool], None]


class Statement(msgspec.Struct, Generic[R], frozen=True):
    """What a command of one statement returns in place of Done: it is committed together with its inbox row.

    `sql` is a list of common table expressions with parameters from $1 on; the one named `made` has one row
    with an integer `number` that nobody knows before. `reply` puts it into the reply, once and as it is; it
    is called with another number first. Such a command announces nothing.
    """

    sql: str
    arguments: Sequence[Any]
    reply: Callable[[int], R]


class Call(msgspec.Struct, frozen=True):
    """What one run of a handler works with; a service builds its `Deps` from it.

    `db` is the connection of this run's transaction (commands, batches, events), or the pool (queries,
    streams). For a batch, `caller`, `id` and `born` are those of its first job: use each job's own.
    """

    db: Any
    caller: Principal
    id: UUID
    born: datetime
    now: datetime
    client: str = ""
    attempt: int = 1


@dataclass(frozen=True)
class Route:
    """One row of the table; `make_deps` when its handler does not work with the `Deps` of the service.

    `places` run at a time, beside all other commands, when it has places of its own; of those that come when
    `most_waiting` wait for one, each is refused at once (429).
    """

    message: type[Message]
    shape: Shape
    handler: Callable[..., Any]
    inbox: bool = True
    make_deps: Callable[[Call], Any] | None = None
    guess: Callable[..., Guess | None] | None = None
    one_statement: bool = False
    places: int = 0
    most_waiting: int = 0


@dataclass
class Routes:
    """The handlers of one service, by topic.

    Handler shapes, `deps` being what the service's `main` makes of a `Call`:
    - command: `async (message, deps) -> Done`: one transaction per message; with `one_statement` it returns
      a `Statement` instead, which carries its inbox row: one journey to the database;
    - batch:   `async (jobs, deps) -> list[Done | Refusal]`: one transaction for all jobs, one outcome each;
      when it raises, each job runs alone in a batch of one; it may have a `guess`, `(jobs, deps) -> Guess |
      None`, that is tried first: a statement instead of a transaction of several;
    - query:   `async (message, deps) -> Done` without events; no transaction;
    - stream:  `async generator (message, deps)` that yields parts of the reply type;
    - event:   as command, for an event of another service.
    """

    service: str
    table: dict[str, Route] = field(default_factory=dict)

    def command(
        self,
        message: type[Command[R]],
        *,
        inbox: bool = True,
        one_statement: bool = False,
        places: int = 0,
        most_waiting: int = 32,
    ) -> Callable[[H], H]:
        """Register a command handler; `inbox=False` when a repeat has nothing to protect.

        A slow one gets a few `places` of its own, and few may wait for them (far fewer than the deliveries
        a service holds at a time): the others never wait for it.
        """
        more = {"one_statement": one_statement, "places": places, "most_waiting": most_waiting}
        return self._add(message, "command", inbox, **more)

    def batch(
        self, message: type[Command[R]], *, guess: Callable[..., Guess | None] | None = None
    ) -> Callable[[H], H]:
        """Register a set-based command handler, and what may be tried before it."""
        return self._add(message, "batch", True, guess=guess)

    def query(self, message: type[Query[R]]) -> Callable[[H], H]:
        """Register a query handler."""
        return self._add(message, "query", False)

    def stream(self, message: type[Query[R]]) -> Callable[[H], H]:
        """Register a query whose reply is a stream of parts."""
        return self._add(message, "stream", False)

    def event(self, message: type[Event], *, inbox: bool = True) -> Callable[[H], H]:
        """Listen to another service's event; `inbox=False` when hearing it twice is harmless."""
        return self._add(message, "event", inbox)

    def _add(self, message: type[Message], shape: Shape, inbox: bool, **more: Any) -> Callable[[H], H]:
        def register(handler: H) -> H:
            if message.topic in self.table:
                raise ValueError(f"{message.topic} has a handler already")
            self.table[message.topic] = Route(message, shape, handler, inbox, **more)
            return handler

        return register
