"""Wiring only."""

from __future__ import annotations

from contextlib import AsyncExitStack

from services.auth.deps import Policy, Tools, deps_of
from services.auth.handlers import routes
from services.auth.hashing import Hasher
from services.auth.settings import Settings
from services.auth.throttle import Throttle
from services.auth.tokens import Issuer
from shared import cache
from shared.contracts.auth import ForgetSessions, PurgeAccounts, RotateSigningKey
from shared.limits import Limiter
from shared.runtime import run_service, running
from shared.settings import load
from shared.vault import Vault

FORGET_EVERY_SECONDS = 600.0
ROTATE_EVERY_SECONDS = 3_600.0


async def main() -> None:
    """Serve until told to stop."""
    settings = load(Settings)
    vault = Vault(settings.secret_key)
    async with running(settings) as service, AsyncExitStack() as stack:
        redis = None
        if settings.redis_url:
            redis = cache.connect(settings.redis_url, client_name="posthouse-auth")
            stack.push_async_callback(redis.aclose)
        hasher = stack.enter_context(Hasher.of(settings))
        issuer = Issuer(vault, settings.access_token_seconds)
        tools = Tools(vault, hasher, issuer, Throttle(Limiter(redis, "auth")), Policy.of(settings))
        service.every(FORGET_EVERY_SECONDS, ForgetSessions())
        service.every(FORGET_EVERY_SECONDS, PurgeAccounts())
        service.every(ROTATE_EVERY_SECONDS, RotateSigningKey())
        await service.serve(routes, lambda call: deps_of(call, tools))


def run() -> None:
    """Entry of the process."""
    run_service(main)
