"""What can be set from outside; one field per environment variable."""

from __future__ import annotations

from typing import Annotated

from shared.runtime import ServiceSettings
from shared.settings import note


class Settings(ServiceSettings, frozen=True, kw_only=True):
    """What every service has, and how passwords and tokens are treated."""

    access_token_seconds: Annotated[
        int, note("seconds an access token and its session last", ge=30, le=86_400)
    ] = 600
    password_min_length: Annotated[
        int, note("characters a password has at least; NIST SP 800-63B-4 asks for 15", ge=8, le=64)
    ] = 15
    # OWASP Password Storage: m=19456 KiB, t=2, p=1; a change is applied to each account as it signs in.
    argon2_memory_kib: Annotated[int, note("Argon2id: memory of one hash in KiB", ge=7168)] = 19_456
    argon2_passes: Annotated[int, note("Argon2id: passes over the memory", ge=1)] = 2
    argon2_lanes: Annotated[int, note("Argon2id: lanes", ge=1)] = 1
    hash_workers: Annotated[int, note("password hashes at a time; 0: one for each CPU", ge=0)] = 0
    hash_queue: Annotated[int, note("password hashes that may wait; more are refused with 429", ge=0)] = 32
