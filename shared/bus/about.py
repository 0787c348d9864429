"""What every service answers by itself: who answers, that a command arrives, what became of a frame."""

from __future__ import annotations

import os
import platform
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from uuid import UUID

import msgspec

from shared.bus.routes import Call, Done, Route
from shared.contracts.about import About, GetAbout, Probe, Probed, get_about, probe
from shared.contracts.submissions import GetSubmission, Submission, get_submission


def _name_of_process() -> str:
    return f"{platform.node()}-{os.getpid()}"


class Identity(msgspec.Struct, frozen=True, kw_only=True):
    """Which process answers: its version and commit, its name among its like, when it started."""

    version: str = ""
    commit: str = ""
    process: str = msgspec.field(default_factory=_name_of_process)
    since: datetime = msgspec.field(default_factory=lambda: datetime.now(UTC))


def own_routes(
    service: str,
    identity: Identity,
    counts: Callable[[], dict[str, int]],
    submission: Callable[[UUID], Awaitable[Submission]],
) -> dict[str, Route]:
    """The routes of these messages by topic; their handlers work with the `Call` itself."""

    async def about(_: GetAbout, call: Call) -> Done[About]:
        now = counts()
        return Done(
            About(
                service=service,
                version=identity.version,
                commit=identity.commit,
                since=identity.since,
                waiting=now["waiting"],
                running=now["running"],
                held=now["held"],
                process=identity.process,
            )
        )

    async def probed(message: Probe, call: Call) -> Done[Probed]:
        return Done(Probed(service=service, text=message.text, process=identity.process, at=call.now))

    async def became(message: GetSubmission, call: Call) -> Done[Submission]:
        return Done(await submission(message.id))

    routes = (
        Route(get_about(service), "query", about, inbox=False, make_deps=_itself),
        Route(probe(service), "command", probed, inbox=False, make_deps=_itself),
        Route(get_submission(service), "query", became, inbox=False, make_deps=_itself),
    )
    return {route.message.topic: route for route in routes}


def _itself(call: Call) -> Call:
    return call
