"""Every code a problem can carry, in one table: its status, its title and what to do about it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Any

from msgspec import Struct

from shared.contracts.base import FieldError
from shared.errors import Refusal


class Problem(Struct, frozen=True):
    """One page of /problems."""

    code: str
    status: int
    title: str
    advice: str


class Turned(Refusal):
    """Refused by the gateway itself, with the headers HTTP wants beside the status."""

    def __init__(
        self,
        code: str,
        detail: str = "",
        *,
        errors: Sequence[FieldError] = (),
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(
            detail or PROBLEMS[code].advice, code=code, status=PROBLEMS[code].status, errors=errors
        )
        self.headers = dict(headers or {})


def _table(*problems: Problem) -> dict[str, Problem]:
    return {problem.code: problem for problem in problems}


PROBLEMS = _table(
    Problem(
        "bad_request",
        400,
        "The request is not HTTP as it should be",
        "Check the request line, the headers and how the body is framed.",
    ),
    Problem(
        "malformed_json",
        400,
        "The body is not JSON",
        "Send one JSON value in UTF-8; the detail says where reading stopped.",
    ),
    Problem(
        "not_utf8",
        400,
        "The body is not UTF-8",
        "Encode text as UTF-8 and send it again.",
    ),
    Problem(
        "too_deep",
        400,
        "The body is nested too deeply",
        "No request of this API needs more than a few levels of lists and objects.",
    ),
    Problem(
        "bad_header",
        400,
        "A header has a value that cannot be used",
        "`errors` names the header and what it may hold.",
    ),
    Problem(
        "malformed",
        400,
        "The body cannot be read",
        "The service found neither readings nor values in it; the detail says where reading stopped.",
    ),
    Problem("refused", 400, "The request is refused", "The detail says why."),
    Problem(
        "unauthorized",
        401,
        "Nobody we know is calling",
        "Send `Authorization: Bearer <access token>` (from POST /v1/sessions), or `X-API-Key` with a dataset "
        "key where keys are accepted. A token ends after some minutes: open a session again.",
    ),
    Problem(
        "wrong_credentials",
        401,
        "Name and password do not fit",
        "Check both; the answer is the same whether the account exists or not.",
    ),
    Problem(
        "session_over",
        401,
        "The session is over",
        "Sign in again. A refresh token is good for one exchange; using it once more ends the session.",
    ),
    Problem(
        "forbidden",
        403,
        "The caller may not do this",
        "Use an account or a key that may; the detail says what is needed.",
    ),
    Problem(
        "account_deleted",
        403,
        "The account was deleted",
        "Within 24 hours POST /v1/me/restore with its name and password brings it back.",
    ),
    Problem(
        "invitation_needed",
        403,
        "Making an account needs an invitation",
        "Ask an administrator for one; it can be used once, and ends.",
    ),
    Problem(
        "sign_up_closed",
        403,
        "Nobody makes an account here",
        "The operator decides that with POSTHOUSE_SIGN_UP.",
    ),
    Problem(
        "setup_code_needed",
        403,
        "The first account is made with a code",
        "From another machine than the server's, send the `code` that `./posthouse up` prints there.",
    ),
    Problem(
        "https_needed",
        403,
        "This is asked over HTTPS only",
        "Use the https address of this server: what was sent could be read on its way.",
    ),
    Problem(
        "cross_site",
        403,
        "Another site's page sent this",
        "Who is signed in by cookie changes things from this server's own pages only. Apps and scripts send "
        "`Authorization: Bearer <access token>` instead of a cookie.",
    ),
    Problem(
        "not_found",
        404,
        "There is nothing here",
        "Check the path and the id. What the caller may not know of is answered the same way.",
    ),
    Problem(
        "method_not_allowed",
        405,
        "The path does not know this method",
        "The `Allow` header lists the methods it knows.",
    ),
    Problem(
        "slow_request",
        408,
        "The request came too slowly",
        "Headers must be complete in 15 seconds, and a body must keep coming. Send it in smaller pieces.",
    ),
    Problem(
        "conflict",
        409,
        "What is asked contradicts what is there",
        "Read the current state, then decide again.",
    ),
    Problem(
        "already_set_up",
        409,
        "The server has its first account already",
        "Open a session with that account; its owner can make more.",
    ),
    Problem(
        "not_set_up",
        409,
        "The server has no account yet",
        "The first account is made with POST /v1/setup, and looks after the others.",
    ),
    Problem(
        "taken",
        409,
        "The name or the e-mail address belongs to somebody",
        "Choose another one. Those of a deleted account are free when it can come back no more.",
    ),
    Problem(
        "last_administrator",
        409,
        "Somebody has to look after the others",
        "Make another account an administrator first.",
    ),
    Problem(
        "still_running",
        409,
        "The same request is being worked on",
        "Repeat with the same Idempotency-Key after `Retry-After` seconds to get its answer.",
    ),
    Problem("gone", 410, "It was here and is gone for good", "Nothing can bring it back."),
    Problem(
        "changed_meanwhile",
        412,
        "Somebody changed it since it was read",
        "Read it again, apply the change to that, and send the new ETag in If-Match.",
    ),
    Problem(
        "too_large",
        413,
        "The body is too large",
        "The detail names the limit of this path. Split the body into several requests.",
    ),
    Problem(
        "too_many_readings",
        413,
        "There are too many readings in one request",
        "Split them into several requests; the detail names the limit.",
    ),
    Problem(
        "uri_too_long", 414, "The address is too long", "Shorten the path or the query; put data in the body."
    ),
    Problem(
        "unsupported_media_type",
        415,
        "The content type is not read here",
        "Send one of the content types the detail lists, in UTF-8 and without compression.",
    ),
    Problem(
        "expectation_failed", 417, "The expectation cannot be met", "Only `Expect: 100-continue` is known."
    ),
    Problem(
        "invalid",
        422,
        "The request makes no sense",
        "`errors` names every mistake: where it is (`in`), its `path` there, a `code` and a sentence.",
    ),
    Problem(
        "key_reused",
        422,
        "The Idempotency-Key belongs to another request",
        "A key stands for one request: use a new key for a new body.",
    ),
    Problem(
        "search_too_wide",
        422,
        "The search took too long",
        "Narrow it: say `since` and `until`, a `service`, or a `level`.",
    ),
    Problem(
        "nothing_stored",
        422,
        "No reading of the request could be stored",
        "`errors` says for each reading why; correct them and send them again.",
    ),
    Problem(
        "too_many_requests",
        429,
        "A limit is reached",
        "Wait `Retry-After` seconds, then go on more slowly.",
    ),
    Problem(
        "headers_too_large",
        431,
        "The headers are too large",
        "A header may have 8 KiB, all of them 32 KiB, and there may be 100.",
    ),
    Problem(
        "internal",
        500,
        "A mistake on our side",
        "The request is kept with its reason for the operator; tell them the `request_id`.",
    ),
    Problem(
        "unknown_topic",
        502,
        "An older version runs behind this server",
        "Try again when the update is complete.",
    ),
    Problem(
        "unavailable",
        503,
        "It did not happen and will not happen",
        "Something this needs is away for now. Repeat after `Retry-After` seconds: that is safe.",
    ),
    Problem(
        "outcome_unknown",
        504,
        "It may have happened, or may still happen",
        "No answer came in time. Repeat the request with the same Idempotency-Key to learn its outcome; "
        "repeated without a key it may be done twice.",
    ),
)

_OF_STATUS = {
    400: "refused",
    401: "unauthorized",
    403: "forbidden",
    404: "not_found",
    409: "conflict",
    412: "changed_meanwhile",
    413: "too_large",
    415: "unsupported_media_type",
    422: "invalid",
    429: "too_many_requests",
    502: "unknown_topic",
    503: "unavailable",
    504: "outcome_unknown",
}


# What a refusal without a code of its own means.
_UNNAMED = {409: "still_running", 422: "invalid"}


def code_of(refusal: Refusal) -> str:
    """The code of a refusal; the bus sends some without one."""
    return _UNNAMED.get(refusal.status, refusal.code) if refusal.code == Refusal.code else refusal.code


def problem_of(code: str, status: int) -> Problem:
    """The page of a code, or the general page of its status when the code has none."""
    general = "refused" if status < 500 else "internal"
    return PROBLEMS.get(code) or PROBLEMS[_OF_STATUS.get(status, general)]


def problem_body(
    code: str,
    status: int,
    detail: str,
    request_id: str,
    errors: Sequence[FieldError] = (),
    **more: Any,
) -> dict[str, Any]:
    """The members of a problem (RFC 9457); `more` are the extension members of its type."""
    page = problem_of(code, status)
    body = {
        "type": f"/problems/{page.code}",
        "title": page.title if page.status == status else HTTPStatus(status).phrase,
        "status": status,
        "code": code,
        "detail": detail or page.advice,
        "request_id": request_id,
    }
    if errors:
        body["errors"] = [
            {"in": error.where, "path": error.path, "code": error.code, "message": error.message}
            for error in errors
        ]
    return body | more
