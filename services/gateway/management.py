"""RabbitMQ's management API: one question at a time, its answer kept for a moment for everybody who looks."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any
from urllib.parse import quote, unquote, urlsplit

import aiohttp
import structlog

from services.gateway.queues import Memory, Overview, overview, without_management
from shared.bus.pressure import Depth

log = structlog.get_logger()
KEPT_SECONDS = 1.5
LOOK_SECONDS = 20.0
ANSWER_SECONDS = 4.0
MOST_QUEUES = 500
MOST_BYTES = 16 << 20
COLUMNS = (
    "name,type,state,messages,messages_ready,messages_unacknowledged,message_bytes,messages_dlx,consumers,"
    "head_message_timestamp,arguments,effective_policy_definition,message_stats"
)
NODE_COLUMNS = (
    "name,running,uptime,mem_used,mem_limit,mem_alarm,disk_free,disk_free_limit,disk_free_alarm,partitions"
)
Depths = Callable[[], Mapping[str, Depth]]


class Unreadable(Exception):
    """The API answered with something else than queues."""


class Broker:
    """What there is to know about queues and nodes; `depths` are the few the gateway asks for itself."""

    def __init__(self, management_url: str, amqp_url: str, depths: Depths) -> None:
        parts = urlsplit(management_url)
        host = f"[{parts.hostname}]" if ":" in (parts.hostname or "") else parts.hostname
        self.page = f"{parts.scheme}://{host}:{parts.port or 15672}/"
        self.vhost = quote(unquote(urlsplit(amqp_url).path[1:]) or "/", safe="")
        login = unquote(parts.username or ""), unquote(parts.password or "")
        self._headers = {"Authorization": aiohttp.encode_basic_auth(*login)}
        self._depths = depths
        self._memory = Memory()
        self._session: aiohttp.ClientSession | None = None
        self._asking = asyncio.Lock()
        self._known: Overview | None = None
        self._asked_at = float("-inf")

    async def look(self) -> Overview:
        """How everything is, not older than a second and a half; while the API is away, what is known."""
        async with self._asking:
            now = asyncio.get_running_loop().time()
            if self._known is None or now - self._asked_at > KEPT_SECONDS:
                self._known = await self._ask()
                self._asked_at = asyncio.get_running_loop().time()
            return self._known

    async def watch(self) -> None:
        """Look now and then while nobody else does: how long a message waits is known by having looked."""
        was_away = ""
        while True:
            away = (await self.look()).away
            if bool(away) != bool(was_away):
                log.warning("management_away" if away else "management_back", reason=away or was_away)
            was_away = away
            await asyncio.sleep(LOOK_SECONDS)

    async def close(self) -> None:
        """Close the connection."""
        if self._session is not None:
            await self._session.close()

    async def _ask(self) -> Overview:
        at = datetime.now(UTC)
        try:
            nodes = await self._get(f"nodes?columns={NODE_COLUMNS}")
            sort = f"page=1&page_size={MOST_QUEUES}&sort=name&columns={COLUMNS}"
            queues = await self._get(f"queues/{self.vhost}?{sort}")
            if not isinstance(nodes, list) or not isinstance(queues, dict):
                raise Unreadable("this is no management API")
            return overview(queues, nodes, self._depths(), self._memory, at)
        except (aiohttp.ClientError, OSError, TimeoutError, ValueError, KeyError, Unreadable) as error:
            words = str(error) or type(error).__name__
            return without_management(self._depths(), self._memory, words, at)

    async def _get(self, path: str) -> Any:
        if self._session is None:
            timeout = aiohttp.ClientTimeout(total=ANSWER_SECONDS)
            self._session = aiohttp.ClientSession(headers=self._headers, timeout=timeout)
        async with self._session.get(self.page + "api/" + path) as answer:
            answer.raise_for_status()
            if (answer.content_length or 0) > MOST_BYTES:
                raise Unreadable("its answer is too long")
            return json.loads(await answer.read())
