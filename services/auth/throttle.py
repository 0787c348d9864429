"""How often passwords may be guessed: for each name, from each address, without locking the owner out."""

from __future__ import annotations

from dataclasses import dataclass
from uuid import UUID

from services.auth.rules import key_of, network_of
from shared.errors import TooMany
from shared.limits import Limit, Limiter

# From one address without a known device, whatever the names: one password on many accounts gets no further.
ADDRESS = Limit("sign_in_address", 100, 600)
# For one name or address of a person, from anywhere: 30 guesses at once and 4 an hour, 96 a day.
NAME = Limit("sign_in_name", 30, 27_000)
# Beside that, for its owner: on a device that person signed in on, or from an address they signed in from.
DEVICE = Limit("sign_in_device", 20, 1_200)
PLACE = Limit("sign_in_place", 20, 1_200)
# The password asked of somebody who is signed in.
OWN = Limit("own_password", 20, 1_200)
SIGN_UP = Limit("sign_up", 20, 3_600)


@dataclass(frozen=True)
class Attempt:
    """Somebody tries a password; `device` is one the person of that name has signed in on."""

    project: str
    name: str
    client: str
    device: UUID | None = None
    account_id: UUID | None = None
    known_place: bool = False


@dataclass(frozen=True)
class Ticket:
    """What an attempt has cost."""

    taken: tuple[tuple[Limit, str], ...]


class Throttle:
    """Takes a permit before a password is looked at, and gives it back when it was the right one."""

    def __init__(self, limiter: Limiter) -> None:
        self._limiter = limiter

    async def enter(self, attempt: Attempt) -> Ticket:
        """Let somebody try; raises TooMany."""
        if attempt.device is not None:  # whatever others do at the same address
            return Ticket((await self._take(DEVICE, attempt.device.hex),))
        network = network_of(attempt.client)
        first = await self._take(ADDRESS, network)
        try:
            return Ticket((first, await self._take(NAME, f"{attempt.project} {key_of(attempt.name)}")))
        except TooMany:
            if not attempt.known_place:
                raise
        return Ticket((first, await self._take(PLACE, f"{attempt.account_id} {network}")))

    async def enter_own(self, account_id: UUID) -> Ticket:
        """Let somebody who is signed in prove it again; raises TooMany."""
        return Ticket((await self._take(OWN, account_id.hex),))

    async def enter_sign_up(self, client: str) -> Ticket:
        """Let somebody try to make an account; raises TooMany."""
        return Ticket((await self._take(SIGN_UP, network_of(client)),))

    async def give_back(self, ticket: Ticket) -> None:
        """It was no guess."""
        for limit, key in ticket.taken:
            await self._limiter.take(limit, key, -1)

    async def _take(self, limit: Limit, key: str) -> tuple[Limit, str]:
        verdict = await self._limiter.take(limit, key)
        if not verdict.allowed:
            raise TooMany(
                "There were too many attempts. A device that has signed in before is let in sooner.",
                retry_after=int(verdict.retry_after) + 1,
            )
        return limit, key
