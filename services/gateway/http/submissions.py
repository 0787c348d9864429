"""Names of messages answered with 202: only who submitted one can ask for it, and no table is needed."""

from __future__ import annotations

import hmac
import re
from collections.abc import Mapping
from datetime import datetime
from typing import Any
from uuid import UUID

import msgspec

from services.gateway.http.answers import time_text
from services.gateway.http.gateway import Gateway
from services.gateway.http.incoming import Incoming
from services.gateway.http.problems import problem_body
from shared.bus.ids import names_of
from shared.contracts.base import FieldError, Principal
from shared.contracts.submissions import Submission, get_submission
from shared.errors import NotFound
from shared.vault import Vault

_NAME = re.compile(r"([a-z]{1,32})-([0-9a-f]{32})-([0-9a-f]{16})", re.ASCII)


class Accepted(msgspec.Struct, frozen=True):
    """A message is on disk and will be worked on; ask for `submission` to learn its outcome."""

    submission: str
    accepted: bool = True


class ProblemBody(msgspec.Struct, frozen=True, kw_only=True, rename={"kind": "type"}):
    """A problem (RFC 9457): `code` says what went wrong, `errors` where; the page at `type` what to do."""

    kind: str
    title: str
    status: int
    code: str
    detail: str
    request_id: str
    errors: tuple[FieldError, ...] = ()
    outcome: str = ""
    idempotency_key: str = ""


class SubmissionState(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What became of a submission; beside `state` stand the members of the answer it would have had."""

    submission: str
    state: str
    problem: ProblemBody | None = None


def name_of(vault: Vault, caller: Principal, owner: str, frame: UUID) -> str:
    """`<owner>-<32 hex of the frame id>-<16 hex that only this caller's submission has>`."""
    return f"{owner}-{frame.hex}-{_tag(vault, caller, owner, frame.hex)}"


async def ask(name: str, incoming: Incoming, gateway: Gateway) -> dict[str, Any]:
    """What became of it; raises NotFound for a name that is not this caller's."""
    found = _NAME.fullmatch(name)
    if found is None:
        raise NotFound("There is no such submission.")
    owner, frame, tag = found.groups()
    if not hmac.compare_digest(tag, _tag(gateway.vault, incoming.principal, owner, frame)):
        raise NotFound("There is no such submission.")
    became = await gateway.ask(get_submission(owner)(id=UUID(frame)), incoming)
    return {"submission": name, "state": became.state, **_outcome(became, incoming.request_id)}


def _outcome(became: Submission, request_id: str) -> Mapping[str, Any]:
    if became.refusal is not None:
        refusal = became.refusal
        body = problem_body(refusal.code, refusal.status, refusal.detail, request_id, refusal.errors)
        return {"problem": body}
    packed = bytes(became.reply)
    reply = _plain(msgspec.msgpack.decode(packed)) if packed else None
    return reply if isinstance(reply, dict) else {}


def _plain(value: Any) -> Any:
    if isinstance(value, datetime):
        return time_text(value)
    if isinstance(value, list):
        return [_plain(part) for part in value]
    if isinstance(value, dict):
        return {str(name): _plain(part) for name, part in value.items()}
    return value


def _tag(vault: Vault, caller: Principal, owner: str, frame: str) -> str:
    text = f"{':'.join(names_of(caller))}|{owner}|{frame}"
    return vault.digest(text, "submission")[:8].hex()
