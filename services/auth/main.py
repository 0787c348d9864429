"""Wiring only."""

from __future__ import annotations

from services.auth.handlers import Deps, routes
from services.auth.hashing import Hasher
from services.auth.settings import Settings
from services.auth.store import Store
from services.auth.tokens import Issuer
from shared.contracts.auth import ForgetSessions
from shared.runtime import run_service, running
from shared.settings import load
from shared.vault import Vault

FORGET_EVERY_SECONDS = 600.0


async def main() -> None:
    """Serve until told to stop."""
    settings = load(Settings)
    vault = Vault(settings.secret_key)
    issuer = Issuer(vault, settings.access_token_seconds)
    async with running(settings) as service:
        service.every(FORGET_EVERY_SECONDS, ForgetSessions())
        with Hasher.of(settings) as hasher:
            await service.serve(
                routes,
                lambda call: Deps(
                    Store(call.db), call.caller, call.now, vault, hasher, issuer, settings.password_min_length
                ),
            )


def run() -> None:
    """Entry of the process."""
    run_service(main)
