"""Handlers of auth on a real PostgreSQL, run as the bus runs them, with whatever a person would send."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any, TypeVar
from uuid import UUID

import asyncpg
import jwt
from argon2 import PasswordHasher
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from services.auth.deps import Deps, Policy, Tools
from services.auth.handlers import accounts, invitations, sessions, signing_keys
from services.auth.hashing import Hasher
from services.auth.store import Store
from services.auth.throttle import Throttle
from services.auth.tokens import Issuer
from shared.bus.routes import Done
from shared.contracts.auth import (
    Account,
    ChangeMe,
    DeleteMe,
    InvitationMade,
    ListSigningKeys,
    MakeInvitation,
    OpenSession,
    RefreshSession,
    RestoreMe,
    SessionOpened,
    SetUp,
    SigningKeys,
    SignUp,
)
from shared.contracts.base import ANONYMOUS, Event, Message, Principal
from shared.db import Database
from shared.errors import Refusal
from shared.limits import Limiter
from shared.vault import Vault
from tests.servers import Place

NOW = datetime.now(UTC).replace(microsecond=0)
PASSWORD = "eleven purple kettles"
ANOTHER = "nine orange teaspoons"
QUICK = PasswordHasher(memory_cost=64, time_cost=1, parallelism=1)

M = TypeVar("M", bound=Message)
R = TypeVar("R")


def quick_tools(vault: Vault, hasher: Hasher, **more: Any) -> Tools:
    """Tools whose hashes cost nothing and whose limits are this process's own."""
    return Tools(vault, hasher, Issuer(vault, 600), Throttle(Limiter(None, "test")), **more)


@dataclass
class Auth:
    """Runs a handler as the bus does: a command in one transaction, a query on the pool."""

    database: Database
    tools: Tools
    now: datetime = NOW
    client: str = "192.0.2.1"
    events: list[Event] = field(default_factory=list)

    @property
    def vault(self) -> Vault:
        """Seals what people type."""
        return self.tools.vault

    def with_policy(self, **changes: Any) -> None:
        """Other settings from now on."""
        self.tools = replace(self.tools, policy=replace(self.tools.policy or Policy(), **changes))

    def deps(self, db: Any, caller: Principal = ANONYMOUS) -> Deps:
        """What a handler is given."""
        return Deps(Store(db), caller, self.now, self.client, self.tools)

    async def command(
        self,
        handler: Callable[[M, Deps], Awaitable[Done[R | Refusal]]] | Callable[[M, Deps], Awaitable[Done[R]]],
        message: M,
        caller: Principal = ANONYMOUS,
    ) -> R:
        """One transaction; what was announced goes to `events`, a refusal is raised after the commit."""
        async with self.database.transaction() as connection:
            done = await handler(message, self.deps(connection, caller))
        self.events.extend(done.events)
        if isinstance(done.reply, Refusal):
            raise done.reply
        return done.reply

    async def query(
        self, handler: Callable[[M, Deps], Awaitable[Done[R]]], message: M, caller: Principal = ANONYMOUS
    ) -> R:
        """On the pool."""
        return (await handler(message, self.deps(self.database.pool, caller))).reply

    # -- what people do --------------------------------------------------------------------------------

    async def set_up(
        self, name: str = "Ann", email: str = "ann@example.org", password: str = PASSWORD
    ) -> Account:
        """Make the first account."""
        sealed = self.vault.seal(password, "auth.password")
        return await self.command(accounts.set_up, SetUp(name=name, email=email, password=sealed))

    async def sign_up(
        self, name: str, invitation: str = "", password: str = PASSWORD, email: str = ""
    ) -> Account:
        """Make an account for oneself."""
        message = SignUp(
            name=name,
            email=email or f"{name.replace(' ', '-')}@example.org",
            password=self.vault.seal(password, "auth.password"),
            invitation=self.vault.seal(invitation, "auth.invitation") if invitation else b"",
        )
        return await self.command(accounts.sign_up, message)

    async def invite(self, by: Principal, **more: Any) -> tuple[InvitationMade, str]:
        """An invitation and its secret."""
        made = await self.command(invitations.make_invitation, MakeInvitation(**more), by)
        return made, self.vault.unseal(made.secret, "auth.invitation")

    async def another(self, by: Principal, name: str = "bob", **more: Any) -> Principal:
        """A second person, signed in."""
        _, secret = await self.invite(by, **more)
        await self.sign_up(name, secret)
        return await self.sign_in(name)

    async def open_session(
        self,
        name: str = "ann",
        password: str = PASSWORD,
        caller: Principal = ANONYMOUS,
        device: str = "",
    ) -> SessionOpened:
        """Sign in; raises what refuses it."""
        message = OpenSession(
            name=name,
            password=self.vault.seal(password, "auth.password"),
            device=self.vault.seal(device, "auth.device") if device else b"",
        )
        return await self.command(sessions.open_session, message, caller)

    async def tried(self, name: str = "ann", password: str = PASSWORD, device: str = "") -> str:
        """The code an attempt to sign in is refused with; empty when it is not."""
        try:
            await self.open_session(name, password, device=device)
        except Refusal as refusal:
            return refusal.code
        return ""

    async def sign_in(self, name: str = "ann", password: str = PASSWORD) -> Principal:
        """The caller a gateway would make of a new session's token."""
        return self.principal(await self.claims(await self.open_session(name, password)))

    async def refresh(self, token: str) -> SessionOpened:
        """Exchange a refresh token."""
        sealed = self.vault.seal(token, "auth.refresh")
        return await self.command(sessions.refresh_session, RefreshSession(refresh_token=sealed))

    async def change(self, caller: Principal, current: str = "", password: str = "", **more: str) -> Account:
        """Change one's account."""
        message = ChangeMe(
            password=self.vault.seal(password, "auth.password") if password else None,
            current_password=self.vault.seal(current, "auth.password") if current else b"",
            **more,
        )
        return await self.command(accounts.change_me, message, caller)

    async def delete(self, caller: Principal, password: str = PASSWORD) -> datetime:
        """Delete one's account; until when it can come back."""
        message = DeleteMe(password=self.vault.seal(password, "auth.password"))
        return (await self.command(accounts.delete_me, message, caller)).purge_at

    async def restore(self, name: str, password: str = PASSWORD) -> Account:
        """Undo that."""
        message = RestoreMe(name=name, password=self.vault.seal(password, "auth.password"))
        return await self.command(accounts.restore_me, message)

    # -- what others see -------------------------------------------------------------------------------

    def refresh_token(self, session: SessionOpened) -> str:
        """The refresh token, as a client gets it."""
        return self.vault.unseal(session.refresh_token, "auth.refresh")

    def device_token(self, session: SessionOpened) -> str:
        """The device token, as a client gets it."""
        return self.vault.unseal(session.device_token, "auth.device")

    async def signing_keys(self) -> SigningKeys:
        """What a gateway learns."""
        return await self.query(signing_keys.list_signing_keys, ListSigningKeys())

    async def public_keys(self) -> dict[str, bytes]:
        """The listed keys by their names."""
        return {key.kid: key.public_key for key in (await self.signing_keys()).keys}

    async def claims(self, session: SessionOpened) -> dict[str, Any]:
        """The token as the gateway verifies it: by the listed key its header names."""
        token = self.vault.unseal(session.access_token, "auth.token")
        public = (await self.public_keys())[jwt.get_unverified_header(token)["kid"]]
        key = Ed25519PublicKey.from_public_bytes(public)
        options = {"verify_exp": False, "verify_iat": False, "verify_nbf": False}
        return jwt.decode(token, key, ["EdDSA"], options, audience="posthouse", issuer="posthouse")  # type: ignore[arg-type]

    @staticmethod
    def principal(claims: dict[str, Any]) -> Principal:
        """The caller these claims tell of."""
        return Principal(
            kind="user",
            id=claims["sub"],
            via=claims["sid"],
            project=claims["project"],
            roles=tuple(claims["roles"]),
        )

    async def sql(self, statement: str, *values: Any) -> Any:
        """One value straight from the tables."""
        return await self.database.pool.fetchval(statement, *values)


def session_of(session: SessionOpened) -> UUID:
    """The id of a session; it has one."""
    assert session.session_id is not None
    return session.session_id


async def everything(place: Place) -> str:
    """Every row of every table, as text."""
    admin = await asyncpg.connect(place.admin_url)
    try:
        tables = await admin.fetch(
            "SELECT format('%I.%I', schemaname, tablename) AS name FROM pg_tables"
            " WHERE schemaname NOT IN ('pg_catalog', 'information_schema')"
        )
        rows = [
            await admin.fetch(
                "SELECT to_json(t)::text AS row FROM TABLE_ AS t".replace("TABLE_", table["name"])
            )
            for table in tables
        ]
        return json.dumps([row["row"] for part in rows for row in part])
    finally:
        await admin.close()
