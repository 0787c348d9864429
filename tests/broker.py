"""A virtual host of its own on the RabbitMQ under test, with the accounts and rights of production."""

from __future__ import annotations

import secrets
from collections.abc import Iterable, Mapping
from urllib.parse import urlsplit

from deploy.broker import Management, declare
from shared.bus.topology import Queue, Rights

EVERYTHING = {"configure": ".*", "write": ".*", "read": ".*"}


class VirtualHost:
    """Made on entering, gone on leaving; every account's password is `test`."""

    def __init__(
        self, amqp_url: str, management_url: str, queues: Iterable[Queue], accounts: Mapping[str, Rights]
    ) -> None:
        self.name = f"test-{secrets.token_hex(4)}"
        self.admin = urlsplit(amqp_url)._replace(path=f"/{self.name}").geturl()
        self._administrator = urlsplit(management_url).username
        self._queues = list(queues)
        self._accounts = accounts
        self.management = Management(
            {"POSTHOUSE_AMQP_URL": self.admin, "POSTHOUSE_MANAGEMENT_URL": management_url}
        )

    def url(self, account: str) -> str:
        """The address of an account."""
        return f"amqp://{account}:test@{self.admin.rpartition('@')[2]}"

    async def __aenter__(self) -> VirtualHost:
        await self.management.__aenter__()
        await self.management.call("PUT", f"/vhosts/{self.name}", {})
        await self.management.call("PUT", f"/permissions/{self.name}/{self._administrator}", EVERYTHING)
        for account, rights in self._accounts.items():
            await self.management.account(account, "test", rights)
        await self.declare()
        return self

    async def declare(self) -> None:
        """Make the topology, or what is missing of it."""
        await declare(self.admin, self._queues)

    async def delete_queue(self, queue: str) -> None:
        """As an administrator by mistake."""
        await self.management.call("DELETE", f"/queues/{self.name}/{queue}")

    async def policy(self, queue: str, definition: Mapping[str, object]) -> None:
        """Change the limits of a queue."""
        body = {"pattern": f"^{queue}$", "definition": dict(definition), "apply-to": "queues"}
        await self.management.call("PUT", f"/policies/{self.name}/{queue}", body)

    async def connections(self) -> list[str]:
        """The names of the connections the management knows; it learns of them every few seconds."""
        found = await self.management.call("GET", f"/vhosts/{self.name}/connections")
        return [connection["name"] for connection in found]

    async def queues(self) -> list[str]:
        """The names of the queues there are."""
        return [queue["name"] for queue in await self.management.call("GET", f"/queues/{self.name}")]

    async def close_connections(self) -> None:
        """Close every connection."""
        for name in await self.connections():
            await self.management.call("DELETE", f"/connections/{name}")

    async def __aexit__(self, *_: object) -> None:
        await self.management.call("DELETE", f"/vhosts/{self.name}")
        await self.management.__aexit__()
