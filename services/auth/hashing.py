"""Argon2id in a few threads of its own, so that signing in never stops the loop or fills the memory."""

from __future__ import annotations

import asyncio
import os
import secrets
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from types import TracebackType
from typing import TYPE_CHECKING, TypeVar

from argon2 import PasswordHasher
from argon2.exceptions import VerifyMismatchError

from shared.errors import TooMany

if TYPE_CHECKING:
    from services.auth.settings import Settings

T = TypeVar("T")


# When every CPU is wanted, hashes get about a quarter of what the rest gets.
NICE = 5


def _let_others_go_first() -> None:
    """On Linux a priority belongs to a thread; elsewhere it would be the whole process's."""
    if sys.platform == "linux":
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), os.getpriority(os.PRIO_PROCESS, 0) + NICE)


class Hasher:
    """Makes and checks password hashes; at most `workers` at a time while `queue` more wait."""

    def __init__(self, argon2: PasswordHasher, *, workers: int, queue: int) -> None:
        self._argon2 = argon2
        self._threads = ThreadPoolExecutor(
            workers, thread_name_prefix="argon2", initializer=_let_others_go_first
        )
        self._most = workers + queue
        self._under_way = 0
        self._nobodys = argon2.hash(secrets.token_urlsafe(16))

    @classmethod
    def of(cls, settings: Settings) -> Hasher:
        """As the settings say."""
        argon2 = PasswordHasher(
            memory_cost=settings.argon2_memory_kib,
            time_cost=settings.argon2_passes,
            parallelism=settings.argon2_lanes,
        )
        workers = settings.hash_workers or len(os.sched_getaffinity(0))
        return cls(argon2, workers=workers, queue=settings.hash_queue)

    async def hash(self, password: str) -> str:
        """A new hash, with its salt and parameters (PHC string); raises TooMany."""
        return await self._run(lambda: self._argon2.hash(password))

    async def verify(self, password_hash: str | None, password: str) -> bool:
        """Whether it is the password; without a hash it takes the same time to say no. Raises TooMany."""
        right = await self._run(lambda: self._matches(password_hash or self._nobodys, password))
        return right and password_hash is not None

    def is_outdated(self, password_hash: str) -> bool:
        """Whether the hash was made with other parameters than those in force."""
        return self._argon2.check_needs_rehash(password_hash)

    def _matches(self, password_hash: str, password: str) -> bool:
        try:
            return self._argon2.verify(password_hash, password)
        except VerifyMismatchError:
            return False

    async def _run(self, work: Callable[[], T]) -> T:
        if self._under_way >= self._most:
            raise TooMany("Too many people are signing in at this moment.", retry_after=1)
        self._under_way += 1
        try:
            return await asyncio.get_running_loop().run_in_executor(self._threads, work)
        finally:
            self._under_way -= 1

    def __enter__(self) -> Hasher:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._threads.shutdown(wait=False, cancel_futures=True)
