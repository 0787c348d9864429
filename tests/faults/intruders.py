"""What an account can try at a broker: every operation, on all there is and on names that are not there."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any
from uuid import uuid4

from pamqp.commands import Basic, Exchange, Queue

from tests.faults.bare_amqp import BareAmqp, Closed, DeclareExchange, DeclareQueue

Act = Callable[[BareAmqp], Awaitable[Any]]
ACCESS_REFUSED, PRECONDITION_FAILED = 403, 406
PUBACK, SUBACK, PINGRESP = 0x40, 0x90, 0xD0
MQTT_SECONDS = 5


@dataclass(frozen=True)
class Try:
    """One operation: what is done, to what, and with what (a routing key, another exchange, a name)."""

    does: str
    to: str
    by: str = ""
    act: Act | None = field(default=None, compare=False, repr=False)


@dataclass(frozen=True)
class Place:
    """What the running broker has: exchanges with their kinds, queues, bindings (exchange, key, queue)."""

    exchanges: Mapping[str, str]
    queues: tuple[str, ...]
    bindings: tuple[tuple[str, str, str], ...] = ()


async def lets(broker: BareAmqp, one: Try) -> bool:
    """Whether the broker lets it: all but a refusal of rights counts as yes."""
    assert one.act is not None
    closed = await one.act(broker)
    if not isinstance(closed, Closed):
        return True
    is_pretence = closed.reply_code == PRECONDITION_FAILED and "user_id" in closed.reply_text
    return closed.reply_code != ACCESS_REFUSED and not is_pretence


def tries(place: Place, keys: Mapping[str, Iterable[str]], names: Iterable[str]) -> Iterator[Try]:
    """Every operation on every exchange and queue, with `keys` by exchange; `names` to make new ones of."""
    for exchange, kind in place.exchanges.items():
        yield from (published(exchange, key) for key in keys[exchange])
        yield from _of_exchange(exchange, kind)
    for target, source in itertools.product(place.exchanges, repeat=2):
        yield _asked("bind exchange", target, source, Exchange.Bind(0, target, source, "#"))
    for queue in place.queues:
        yield from _of_queue(queue)
        for source in place.exchanges:
            yield bound(queue, source)
    for source, key, queue in place.bindings:
        yield _asked("unbind queue", queue, source, Queue.Unbind(0, queue, source, key))
    for name in names:
        yield _asked("declare queue", name, "", DeclareQueue(0, name, exclusive=True))
        yield _asked("declare exchange", name, "", DeclareExchange(0, name, auto_delete=True))


def published(exchange: str, key: str, **properties: Any) -> Try:
    """Something that nobody can read as a frame."""
    return Try(
        "publish",
        exchange,
        key,
        lambda broker: broker.publish(exchange, key, b"\x90", delivery_mode=1, **properties),
    )


def copied(exchange: str, key: str, copy: str, header: str) -> Try:
    """To the key, and by a header to another one."""
    sent = published(exchange, key, headers={header: [copy]})
    return Try(f"publish with {header}", exchange, copy, sent.act)


def pretended(exchange: str, key: str, name: str) -> Try:
    """In somebody else's name."""
    return Try("publish as", exchange, name, published(exchange, key, user_id=name).act)


def bound(queue: str, exchange: str) -> Try:
    """A queue to an exchange, for all there is."""
    return _asked("bind queue", queue, exchange, Queue.Bind(0, queue, exchange, "#"))


def _asked(does: str, to: str, by: str, method: Any) -> Try:
    return Try(does, to, by, lambda broker: broker.ask(method))


def _of_exchange(name: str, kind: str) -> Iterator[Try]:
    yield _asked("look at exchange", name, "", Exchange.Declare(0, name, kind, passive=True))
    yield _asked("declare exchange", name, "", Exchange.Declare(0, name, kind, durable=True))
    yield _asked("delete exchange", name, "", Exchange.Delete(0, name))


def _of_queue(name: str) -> Iterator[Try]:
    yield Try("consume", name, "", lambda broker: _consumed(broker, name))
    yield _asked("get", name, "", Basic.Get(0, name))
    yield _asked("purge", name, "", Queue.Purge(0, name))
    yield _asked("delete queue", name, "", Queue.Delete(0, name))
    yield _asked("declare queue", name, "", Queue.Declare(0, name, durable=True))
    yield _asked("look at queue", name, "", Queue.Declare(0, name, passive=True))


async def _consumed(broker: BareAmqp, queue: str) -> Any:
    answer = await broker.ask(Basic.Consume(0, queue, "tag"))
    return answer if isinstance(answer, Closed) else await broker.ask(Basic.Cancel("tag"))


def given_on(name: str, place: Place) -> Iterator[Try]:
    """What a queue or an exchange of this name could pass on by itself, to every exchange."""
    for exchange in place.exchanges:
        dead, other = {"x-dead-letter-exchange": exchange}, {"alternate-exchange": exchange}
        queue = DeclareQueue(0, f"{name}.{exchange}", exclusive=True, arguments=dead)
        yield _asked("give dead letters", exchange, name, queue)
        made = DeclareExchange(0, f"{name}.{exchange}", auto_delete=True, arguments=other)
        yield _asked("give the unroutable", exchange, name, made)


# -- MQTT 3.1.1, as far as it is needed to be refused ------------------------------------------------------


async def mqtt_lets(host: str, port: int, name: str, password: str) -> set[str]:
    """What an account may do over MQTT: `publish`, `subscribe`.

    The broker closes the connection of who may not, or says nothing and answers what comes next.
    """
    publish = _packet(0x32, _text("channels/1/publish") + b"\0\1x")
    subscribe = _packet(0x82, b"\0\1" + _text("#") + b"\1")
    asked = {"publish": (PUBACK, publish), "subscribe": (SUBACK, subscribe)}
    return {
        does
        for does, (wanted, packet) in asked.items()
        if await _mqtt_answer(host, port, name, password, packet, wanted)
    }


async def _mqtt_answer(host: str, port: int, name: str, password: str, packet: bytes, wanted: int) -> bool:
    reader, writer = await asyncio.open_connection(host, port)
    login = _text("MQTT") + b"\4\xc2\0\x3c" + _text(uuid4().hex) + _text(name) + _text(password)
    writer.write(_packet(0x10, login) + packet + _packet(0xC0, b""))
    try:
        async with asyncio.timeout(MQTT_SECONDS):
            while True:
                kind, size = await reader.readexactly(2)
                told = await reader.readexactly(size)
                if kind in (wanted, PINGRESP):
                    return kind == wanted and not (told and told[-1] >= 0x80)
    except (asyncio.IncompleteReadError, ConnectionError):
        return False
    finally:
        writer.close()


def _text(value: str) -> bytes:
    return len(value).to_bytes(2, "big") + value.encode()


def _packet(kind: int, rest: bytes) -> bytes:
    assert len(rest) < 16_384
    size = len(rest)
    return bytes((kind, size) if size < 128 else (kind, size % 128 | 128, size // 128)) + rest
