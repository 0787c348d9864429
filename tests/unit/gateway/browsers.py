"""What tests of browsers work with: a strict auth, a clock, and cookies as browsers send them."""

from __future__ import annotations

import re
import secrets
from collections.abc import Callable, Mapping
from typing import Any
from uuid import UUID, uuid4

from multidict import CIMultiDict

from services.gateway.http.incoming import Incoming
from services.gateway.http.proxies import Peer
from shared.bus.requests import Caller
from shared.contracts.auth import EndSession, RefreshSession, SessionOpened
from shared.contracts.base import Command, Nothing, Query
from shared.errors import Unauthorized
from shared.vault import Vault
from tests.unit.gateway.services import Services

TOKEN_SECONDS = 300
_SET = re.compile(r"(?P<name>[^=]+)=(?P<value>[^;]*); (?P<attributes>.*)")


class Clock:
    """Seconds that pass when told to."""

    def __init__(self, now: float) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


class Auth(Services):
    """Rotates refresh tokens without any grace: whoever comes with a used one ends the session.

    A repeat of a frame is answered as before, as every service does. `losing` loses that many answers.
    """

    def __init__(self, vault: Vault, clock: Callable[[], float]) -> None:
        super().__init__(vault)
        self.clock = clock
        self.sessions: dict[str, str] = {}
        self.used: dict[str, str] = {}
        self.rotations = 0
        self.losing: list[Exception] = []
        self._handlers |= {RefreshSession: self._refresh, EndSession: self._end}

    def open(self, session: UUID | None = None) -> SessionOpened:
        """A session and its first tokens."""
        return self._pair(str(session or uuid4()))

    async def ask(self, message: Command[Any] | Query[Any], caller: Caller) -> Any:
        """As a service does; the answer may get lost afterwards."""
        reply = await super().ask(message, caller)
        if isinstance(message, RefreshSession) and self.losing:
            raise self.losing.pop()
        return reply

    @property
    def ended(self) -> list[str]:
        """The sessions somebody was signed out of."""
        return [caller.principal.via for message, caller in self.asked if isinstance(message, EndSession)]

    def _pair(self, session: str) -> SessionOpened:
        refresh = self.sessions[session] = f"phr_{secrets.token_hex(8)}"
        token = self.token(sid=session, exp=int(self.clock()) + TOKEN_SECONDS)
        return SessionOpened(
            access_token=self.vault.seal(token, "auth.token"),
            expires_in=TOKEN_SECONDS,
            refresh_token=self.vault.seal(refresh, "auth.refresh"),
            session_id=UUID(session),
        )

    def _refresh(self, cmd: RefreshSession, caller: Caller) -> SessionOpened:
        token = self.vault.unseal(cmd.refresh_token, "auth.refresh")
        session = next((name for name, live in self.sessions.items() if live == token), None)
        if session is None:
            self.sessions.pop(self.used.get(token, ""), None)
            raise Unauthorized("the refresh token is not valid")
        self.used[token] = session
        self.rotations += 1
        return self._pair(session)

    def _end(self, cmd: EndSession, caller: Caller) -> Nothing:
        self.sessions.pop(caller.principal.via, None)
        return Nothing()


def incoming(*cookies: str, method: str = "GET", is_tls: bool = False, **headers: str) -> Incoming:
    """A request with these cookies; header names with underscores."""
    fields: CIMultiDict[str] = CIMultiDict({"Host": "posthouse.test:8080"})
    if cookies:
        fields["Cookie"] = "; ".join(cookies)
    fields.update({name.replace("_", "-"): value for name, value in headers.items()})
    return Incoming(method, fields, "", Peer("192.0.2.7", is_tls))


def cookie(set_cookie: str) -> str:
    """What a browser sends back."""
    return set_cookie.partition(";")[0]


def attributes(set_cookie: str) -> Mapping[str, str]:
    """Its parts: `name`, `value`, `attributes`."""
    found = _SET.fullmatch(set_cookie)
    assert found, set_cookie
    return found.groupdict()
