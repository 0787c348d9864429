"""The HTTP API of Posthouse as a command uses it: says who is calling, and repeats what may be repeated."""

from __future__ import annotations

import asyncio
import json
import ssl
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import aiohttp

from deploy.cli.errors import Stopped

AGAIN = frozenset({429, 502, 503, 504})
FIRST_PAUSE_SECONDS = 0.5
LONGEST_PAUSE_SECONDS = 5.0
ANSWER_SECONDS = 45.0  # more than the longest wait the server grants, 30 s


class Problem(Exception):
    """An answer of 4xx or 5xx: its status, code, words and list of mistakes (RFC 9457)."""

    def __init__(self, status: int, body: Mapping[str, Any], retry_after: float | None = None) -> None:
        self.status = status
        self.code = str(body.get("code", ""))
        self.detail = str(body.get("detail") or body.get("title") or "")
        self.errors: list[dict[str, Any]] = list(body.get("errors", ()))
        self.body = body
        self.retry_after = retry_after
        super().__init__(f"{status} {self.code}: {self.detail}")

    def passes(self) -> bool:
        """Whether the same request may be answered otherwise a little later."""
        return self.status in AGAIN or (self.status == 409 and self.retry_after is not None)

    def text(self) -> str:
        """All of it, for a person."""
        lines = [f"The server answered {self.status} ({self.code}): {self.detail}"]
        return "\n".join(lines + [f"  {e.get('path', '')}: {e.get('message', '')}" for e in self.errors[:20]])


@dataclass(frozen=True)
class Credentials:
    """One of: a bearer token, a key of one dataset, or a name and a password that open a session."""

    token: str = ""
    key: str = ""
    name: str = ""
    password: str = field(default="", repr=False)


@dataclass
class Patience:
    """How long a server that is away is waited for; `say` hears why."""

    seconds: float = 60.0
    say: Callable[[str], None] = lambda words: None
    clock: Callable[[], float] = time.monotonic
    pause: Callable[[float], Awaitable[None]] = asyncio.sleep

    async def through(self, attempt: Callable[[], Awaitable[Any]]) -> Any:
        """The first result there is; gives up `seconds` after the first attempt that had none."""
        end, wait = None, FIRST_PAUSE_SECONDS
        while True:
            try:
                return await attempt()
            except Problem as problem:
                if not problem.passes():
                    raise
                reason, least = f"the server answers {problem.status}", problem.retry_after or 0.0
            except aiohttp.ClientConnectorCertificateError as error:
                raise Stopped(f"The certificate of {error.host} is not to be trusted: {error}") from error
            except (aiohttp.ClientError, TimeoutError) as error:
                reason, least = str(error) or type(error).__name__, 0.0
            end = end or self.clock() + self.seconds
            pause = max(wait, least)
            if self.clock() + pause > end:
                raise Stopped(f"Given up after {self.seconds:.0f} s: {reason}.")
            self.say(f"waiting: {reason}")
            await self.pause(pause)
            wait = min(wait * 2, LONGEST_PAUSE_SECONDS)


class Server:
    """A running Posthouse; use `connected`."""

    def __init__(self, http: aiohttp.ClientSession, credentials: Credentials, patience: Patience) -> None:
        self._http, self._credentials, self._patience = http, credentials, patience
        self._headers = _said(credentials)

    async def get(self, path: str, **params: str) -> Any:
        """The JSON of a GET."""
        return await self._ask("GET", path, {}, params=params)

    async def post(self, path: str, *, key: str, **rest: Any) -> Any:
        """The JSON answer of a POST, repeated with the same Idempotency-Key while the server is away."""
        headers = {"Prefer": "wait=30", "Idempotency-Key": key, **rest.pop("headers", {})}
        return await self._ask("POST", path, headers, **rest)

    @asynccontextmanager
    async def download(self, path: str, **params: str) -> AsyncIterator[AsyncIterator[bytes]]:
        """The body of a GET as it comes; a stream that breaks raises `aiohttp.ClientError`."""
        timeout = aiohttp.ClientTimeout(total=None, sock_read=ANSWER_SECONDS)

        async def open_it() -> aiohttp.ClientResponse:
            answer = await self._http.get(path, params=params, headers=self._headers, timeout=timeout)
            return await _good(answer)

        async with await self._signed_in(open_it) as answer:
            yield answer.content.iter_any()

    async def _ask(self, method: str, path: str, headers: Mapping[str, str], **rest: Any) -> Any:
        async def once() -> Any:
            sent = {**self._headers, **headers}
            async with await _good(await self._http.request(method, path, headers=sent, **rest)) as answer:
                return await answer.json() if answer.content_type.endswith("json") else None

        return await self._signed_in(once)

    async def _signed_in(self, attempt: Callable[[], Awaitable[Any]]) -> Any:
        """Open a session first, or once again when it has expired on the way."""
        if self._credentials.name and not self._headers:
            await self._sign_in()
        try:
            return await self._patience.through(attempt)
        except Problem as problem:
            if problem.status != 401 or not self._credentials.name:
                raise
        await self._sign_in()
        return await self._patience.through(attempt)

    async def _sign_in(self) -> None:
        named = {"name": self._credentials.name, "password": self._credentials.password}

        async def once() -> Any:
            async with await _good(await self._http.post("/v1/sessions", json=named)) as answer:
                return await answer.json()

        opened = await self._patience.through(once)
        self._headers = {"Authorization": f"Bearer {opened['access_token']}"}


@asynccontextmanager
async def connected(
    url: str, credentials: Credentials, patience: Patience, trust: ssl.SSLContext | bool = True
) -> AsyncIterator[Server]:
    """A server at this address, verified with `trust`; closes its connections at the end."""
    timeout = aiohttp.ClientTimeout(total=ANSWER_SECONDS)
    connector = aiohttp.TCPConnector(ssl=trust)
    async with aiohttp.ClientSession(url, timeout=timeout, connector=connector) as http:
        yield Server(http, credentials, patience)


def _said(credentials: Credentials) -> dict[str, str]:
    if credentials.token:
        return {"Authorization": f"Bearer {credentials.token}"}
    return {"X-API-Key": credentials.key} if credentials.key else {}


async def _good(answer: aiohttp.ClientResponse) -> aiohttp.ClientResponse:
    """The answer when it is 2xx; else raises Problem."""
    if answer.ok:
        return answer
    async with answer:
        text = await answer.text(errors="replace")
    try:
        body = json.loads(text)
    except ValueError:
        body = {"detail": text[:200]}
    raise Problem(answer.status, body if isinstance(body, dict) else {"detail": text[:200]}, _seconds(answer))


def _seconds(answer: aiohttp.ClientResponse) -> float | None:
    text = answer.headers.get("Retry-After", "")
    return float(text) if text.isdecimal() else None
