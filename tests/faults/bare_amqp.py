"""AMQP one method at a time, with what the broker says to each; nothing is checked before it is sent."""

from __future__ import annotations

import asyncio
import struct
from typing import Any
from urllib.parse import unquote, urlsplit

from pamqp import body, commands, frame, header
from pamqp.commands import Basic, Channel, Confirm, Connection

SECONDS = 10.0
CHANNEL = 1
LIMITS = 2_047, 131_072, 0  # channels, bytes of a frame, no heartbeat
Closed = Channel.Close | Connection.Close


class Refused(Exception):
    """The broker lets nobody in with this name, password and virtual host."""


class BareAmqp:
    """One connection with one channel, opened again when the broker has closed them."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        self._address = parts.hostname or "", parts.port or 5672
        self._login = f"\0{unquote(parts.username or '')}\0{unquote(parts.password or '')}"
        self._virtual_host = unquote(parts.path[1:]) or "/"
        self._writer: asyncio.StreamWriter | None = None

    async def __aenter__(self) -> BareAmqp:
        return self

    async def __aexit__(self, *_: object) -> None:
        self._leave()

    async def ask(self, method: Any) -> Any:
        """Send a method that is answered; the answer, or the Close with the reason why it was not done."""
        await self._ready()
        self._send(CHANNEL, method)
        return await self._answer(*method.valid_responses)

    async def publish(self, exchange: str, key: str, content: bytes, **properties: Any) -> Any:
        """Publish; the confirm, or the Close."""
        await self._ready()
        about = Basic.Properties(**properties)
        self._send(CHANNEL, Basic.Publish(0, exchange, key))
        self._send(CHANNEL, header.ContentHeader(0, len(content), about))
        self._send(CHANNEL, body.ContentBody(content))
        return await self._answer("Basic.Ack", "Basic.Nack")

    # -- the connection --------------------------------------------------------------------------------

    async def _ready(self) -> None:
        if self._writer is None:
            async with asyncio.timeout(SECONDS):
                await self._connect()
            self._is_open = False
        if not self._is_open:
            self._send(CHANNEL, Channel.Open())
            self._send(CHANNEL, Confirm.Select())
            await self._expect("Confirm.SelectOk")
            self._is_open = True

    async def _connect(self) -> None:
        self._reader, self._writer = await asyncio.open_connection(*self._address)
        self._send(0, header.ProtocolHeader())
        login = Connection.StartOk(
            {"capabilities": {"authentication_failure_close": True}}, "PLAIN", self._login
        )
        for expected, answer in (
            ("Connection.Start", login),
            ("Connection.Tune", Connection.TuneOk(2_047, 131_072, 0)),
        ):
            await self._expect(expected)
            self._send(0, answer)
        self._send(0, Connection.Open(self._virtual_host))
        await self._expect("Connection.OpenOk")

    async def _expect(self, name: str) -> None:
        answer = await self._answer(name)
        if isinstance(answer, Closed):
            raise Refused(answer.reply_text)

    def _leave(self) -> None:
        if self._writer is not None:
            self._writer.close()
        self._writer = None

    def _send(self, channel: int, value: Any) -> None:
        assert self._writer is not None
        self._writer.write(frame.marshal(value, channel))

    async def _answer(self, *names: str) -> Any:
        """Read until an answer of these names, or until the broker closes."""
        async with asyncio.timeout(SECONDS):
            while True:
                found = await self._frame()
                if isinstance(found, Channel.Close):
                    self._send(CHANNEL, Channel.CloseOk())
                    self._is_open = False
                    return found
                if isinstance(found, Connection.Close):
                    self._leave()
                    return found
                if getattr(found, "name", "") in names:
                    return found

    async def _frame(self) -> Any:
        head = await self._reader.readexactly(7)
        (size,) = struct.unpack(">I", head[3:])
        return frame.unmarshal(head + await self._reader.readexactly(size + 1))[2]


class DeclareQueue(commands.Queue.Declare):
    """With any name."""

    def validate(self) -> None:
        """The broker is to say what it thinks of it."""


class DeclareExchange(commands.Exchange.Declare):
    """With any name."""

    def validate(self) -> None:
        """The broker is to say what it thinks of it."""
