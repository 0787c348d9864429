"""Asking a server whether it can be used yet, with nothing but sockets.

A probe is an address: `http://...` (answers 200), `postgres://`, `redis://`, `epmd://`, `tcp://`.
"""

from __future__ import annotations

import http.client
import socket
import struct
from collections.abc import Callable
from urllib.parse import SplitResult, unquote, urlsplit


def answers(probe: str, seconds: float = 2.0) -> bool:
    """Whether the server at this address is ready for work now."""
    url = urlsplit(probe)
    try:
        return _ASK[url.scheme](url, seconds)
    except (OSError, http.client.HTTPException, EOFError):
        return False


def _http(url: SplitResult, seconds: float) -> bool:
    connection = http.client.HTTPConnection(*_place(url), timeout=seconds)
    try:
        connection.request("GET", url.path, headers={"Connection": "close"})
        return connection.getresponse().status == 200
    finally:
        connection.close()


def _tcp(url: SplitResult, seconds: float) -> bool:
    with socket.create_connection(_place(url), seconds):
        return True


def _postgres(url: SplitResult, seconds: float) -> bool:
    """Answers a StartupMessage with Authentication (R); while it starts or stops, with Error (E)."""
    body = struct.pack("!I", 196608) + b"user\x00postgres\x00database\x00postgres\x00\x00"
    with socket.create_connection(_place(url), seconds) as link:
        link.sendall(struct.pack("!I", len(body) + 4) + body)
        # All of it: closing with something unread would be a reset, and the server would log an error.
        return link.recv(4096)[:1] == b"R"


def _epmd(url: SplitResult, seconds: float) -> bool:
    """Answers NAMES_REQ with its own port (Erlang distribution protocol)."""
    with socket.create_connection(_place(url), seconds) as link:
        link.sendall(b"\x00\x01n")
        return link.recv(4) == struct.pack("!I", url.port or 0)


def _redis(url: SplitResult, seconds: float) -> bool:
    """PONG comes only when the data is loaded."""
    hello = f"AUTH {unquote(url.password)}\r\nPING\r\n" if url.password else "PING\r\n"
    with socket.create_connection(_place(url), seconds) as link, link.makefile("rwb") as stream:
        stream.write(hello.encode())
        stream.flush()
        return any(stream.readline() == b"+PONG\r\n" for _ in range(hello.count("\n")))


def _place(url: SplitResult) -> tuple[str, int]:
    return url.hostname or "127.0.0.1", url.port or 0


_ASK: dict[str, Callable[[SplitResult, float], bool]] = {
    "http": _http,
    "tcp": _tcp,
    "epmd": _epmd,
    "postgres": _postgres,
    "redis": _redis,
}
