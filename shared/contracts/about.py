"""What every service answers about itself, over the same path as everything else and without a database."""

from __future__ import annotations

from datetime import datetime
from functools import cache
from typing import Annotated, cast

from msgspec import Meta, Struct

from shared.contracts.base import Command, MessageMeta, Query

SENDERS = frozenset({"gateway", "doctor"})


class About(Struct, frozen=True, kw_only=True):
    """One process of a service as it is now; another process may answer the next time.

    `since` is when it started; `waiting` frames have no place to run yet, `running` places are taken,
    `held` frames wait for a database that is away.
    """

    service: str
    version: str
    commit: str
    since: datetime
    waiting: int
    running: int
    held: int
    process: str


class GetAbout(Query[About], senders=SENDERS):
    """What the process that answers is and how busy it is."""


class Probed(Struct, frozen=True, kw_only=True):
    """The `text` of a probe come back, with who answered and when."""

    service: str
    text: str
    process: str
    at: datetime


class Probe(Command[Probed], senders=SENDERS):
    """Try the whole path of a command without changing anything: `text` comes back."""

    text: Annotated[str, Meta(max_length=1_000)]


@cache
def get_about(owner: str) -> type[GetAbout]:
    """The class of `<owner>.get_about`."""
    made = MessageMeta("GetAbout", (GetAbout,), {"__module__": __name__}, topic=f"{owner}.get_about")
    return cast(type[GetAbout], made)


@cache
def probe(owner: str) -> type[Probe]:
    """The class of `<owner>.probe`."""
    made = MessageMeta("Probe", (Probe,), {"__module__": __name__}, topic=f"{owner}.probe")
    return cast(type[Probe], made)
