"""Every error with a meaning outside the function that raises it."""

from __future__ import annotations

from collections.abc import Sequence

from shared.contracts.base import FieldError


class Refusal(Exception):
    """The request was understood and is refused; said to the caller, the same on every delivery."""

    status = 400
    code = "refused"

    def __init__(
        self, detail: str = "", *, code: str = "", errors: Sequence[FieldError] = (), status: int = 0
    ) -> None:
        super().__init__(detail)
        self.detail = detail
        self.code = code or type(self).code
        self.status = status or type(self).status
        self.errors = tuple(errors)


class Invalid(Refusal):
    """The request makes no sense; `errors` names every mistake at once."""

    status = 422
    code = "invalid"


class Unauthorized(Refusal):
    """Nobody, or nobody we know, is calling."""

    status = 401
    code = "unauthorized"


class Forbidden(Refusal):
    """The caller is known and may not do this."""

    status = 403
    code = "forbidden"


class NotFound(Refusal):
    """There is no such thing, or the caller may not know of it."""

    status = 404
    code = "not_found"


class Conflict(Refusal):
    """What is asked contradicts what is there."""

    status = 409
    code = "conflict"


class TooMany(Refusal):
    """A limit is reached; `retry_after` seconds say when it is not."""

    status = 429
    code = "too_many_requests"

    def __init__(self, detail: str = "", *, retry_after: int = 1, code: str = "") -> None:
        super().__init__(detail, code=code)
        self.retry_after = retry_after


class Retry(Exception):
    """Not now: another attempt of the same frame may succeed; this attempt left no effect."""

    def __init__(self, detail: str = "", *, after_seconds: float = 10.0) -> None:
        super().__init__(detail)
        self.after_seconds = after_seconds


class Away(Exception):
    """The database, Redis or the broker does not answer; no attempt was made."""
