"""What can be set from outside; one field per environment variable."""

from __future__ import annotations

from typing import Annotated, Literal

from shared.runtime import ServiceSettings
from shared.settings import note


class Settings(ServiceSettings, frozen=True, kw_only=True):
    """What every service has, and how passwords and tokens are treated."""

    access_token_seconds: Annotated[int, note("seconds an access token lasts", ge=30, le=86_400)] = 600
    session_days: Annotated[int, note("days a session lasts after its last use", ge=2, le=365)] = 7
    session_most_days: Annotated[
        int, note("days after which a session ends however often it was used", ge=2, le=3650)
    ] = 90
    signing_key_days: Annotated[int, note("days a key signs access tokens before the next one", ge=1)] = 30
    sign_up: Annotated[
        Literal["open", "invitation", "closed"], note("who may make an account: anybody, the invited, nobody")
    ] = "invitation"
    # Of shorter ones the list of leaked passwords has none.
    password_min_length: Annotated[
        int, note("characters a password has at least; NIST SP 800-63B-4 asks for 15", ge=10, le=64)
    ] = 15
    # OWASP Password Storage: m=19456 KiB, t=2, p=1; a change is applied to each account as it signs in.
    argon2_memory_kib: Annotated[int, note("Argon2id: memory of one hash in KiB", ge=7168)] = 19_456
    argon2_passes: Annotated[int, note("Argon2id: passes over the memory", ge=1)] = 2
    argon2_lanes: Annotated[int, note("Argon2id: lanes", ge=1)] = 1
    hash_workers: Annotated[int, note("password hashes at a time; 0: one for each CPU", ge=0)] = 0
    hash_queue: Annotated[int, note("password hashes that may wait; more are refused with 429", ge=0)] = 32
