"""Many who come at once, on the loop that the gateway runs on."""

from __future__ import annotations

import asyncio
import socket
from contextlib import ExitStack

import uvloop

from shared.vault import Vault
from tests.unit.gateway.door import open_house

CLIENTS, TURNS = 200, 50


def test_more_than_one_is_let_in_in_each_turn_of_the_loop(vault: Vault) -> None:
    """A turn of a busy gateway takes tens of milliseconds: one in each, and the last waits for seconds."""

    async def main() -> int:
        async with open_house(vault) as house:
            with ExitStack() as stack:
                clients = [_client(house.door.port) for _ in range(CLIENTS)]  # the kernel lets them in
                for client in clients:
                    stack.enter_context(client)
                for _ in range(TURNS):
                    await asyncio.sleep(0)
                return sum(_is_answered(client) for client in clients)

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        assert runner.run(main()) == CLIENTS


def _client(port: int) -> socket.socket:
    client = socket.create_connection(("127.0.0.1", port))
    client.sendall(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
    client.setblocking(False)
    return client


def _is_answered(client: socket.socket) -> bool:
    try:
        return client.recv(64).startswith(b"HTTP/1.1 200 ")
    except BlockingIOError:
        return False
