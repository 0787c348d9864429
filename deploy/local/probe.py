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
    return not why_not(probe, seconds)


def why_not(probe: str, seconds: float = 2.0) -> str:
    """Why it is not ready, in a few words; empty when it is."""
    url = urlsplit(probe)
    try:
        return _ASK[url.scheme](url, seconds)
    except (OSError, http.client.HTTPException) as error:
        return f"{url.scheme}://{url.hostname}:{url.port}{url.path}: {error or type(error).__name__}"


def _http(url: SplitResult, seconds: float) -> str:
    connection = http.client.HTTPConnection(*_place(url), timeout=seconds)
    try:
        connection.request("GET", url.path, headers={"Connection": "close"})
        answer = connection.getresponse()
        words = " ".join(answer.read(400).decode(errors="replace").split())
        return "" if answer.status == 200 else f"{url.geturl()} answers {answer.status}: {words}"
    finally:
        connection.close()


def _tcp(url: SplitResult, seconds: float) -> str:
    with socket.create_connection(_place(url), seconds):
        return ""


def _postgres(url: SplitResult, seconds: float) -> str:
    """Answers a StartupMessage with Authentication (R); while it starts or stops, with Error (E)."""
    body = struct.pack("!I", 196608) + b"user\x00postgres\x00database\x00postgres\x00\x00"
    with socket.create_connection(_place(url), seconds) as link:
        link.sendall(struct.pack("!I", len(body) + 4) + body)
        # All of it: closing with something unread would be a reset, and the server would log an error.
        answer = link.recv(4096)
    return "" if answer[:1] == b"R" else f"PostgreSQL answers {answer[:100]!r}"


def _epmd(url: SplitResult, seconds: float) -> str:
    """Answers NAMES_REQ with its own port (Erlang distribution protocol)."""
    with socket.create_connection(_place(url), seconds) as link:
        link.sendall(b"\x00\x01n")
        answer = link.recv(4)
    return "" if answer == struct.pack("!I", url.port or 0) else f"epmd answers {answer!r}"


def _redis(url: SplitResult, seconds: float) -> str:
    """PONG comes only when the data is loaded."""
    hello = f"AUTH {unquote(url.password)}\r\nPING\r\n" if url.password else "PING\r\n"
    with socket.create_connection(_place(url), seconds) as link, link.makefile("rwb") as stream:
        stream.write(hello.encode())
        stream.flush()
        answers = [stream.readline() for _ in range(hello.count("\n"))]
    return "" if answers[-1] == b"+PONG\r\n" else f"Valkey answers {answers[-1]!r}"


def _place(url: SplitResult) -> tuple[str, int]:
    return url.hostname or "127.0.0.1", url.port or 0


_ASK: dict[str, Callable[[SplitResult, float], str]] = {
    "http": _http,
    "tcp": _tcp,
    "epmd": _epmd,
    "postgres": _postgres,
    "redis": _redis,
}
