"""The query every service answers from its inbox: what became of a message answered with 202."""

from __future__ import annotations

from functools import cache
from typing import Literal, cast
from uuid import UUID

from msgspec import Raw, Struct

from shared.contracts.base import FieldError, MessageMeta, Query


class RefusalBody(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A refusal as it crosses the wire and is kept in the inbox; `status` is an HTTP status."""

    status: int
    code: str
    detail: str = ""
    errors: tuple[FieldError, ...] = ()
    retry_after: int = 0


class Submission(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What became of a frame: `reply` is the msgpack reply when stored, `refusal` the reasons when refused.

    `queued` also stands for one that waits among the dead letters: it has had no effect so far.
    """

    state: Literal["queued", "stored", "refused"]
    reply: Raw = Raw(b"")
    refusal: RefusalBody | None = None


class GetSubmission(Query[Submission]):
    """What became of the frame `id`."""

    id: UUID


@cache
def get_submission(owner: str) -> type[GetSubmission]:
    """The class of `<owner>.get_submission`."""
    topic = f"{owner}.get_submission"
    made = MessageMeta("GetSubmission", (GetSubmission,), {"__module__": __name__}, topic=topic)
    return cast(type[GetSubmission], made)
