"""Free ports, chosen once and kept for later starts."""

from __future__ import annotations

import json
import random
import socket
from pathlib import Path

from deploy.local.errors import Failure
from deploy.local.files import write

# Below the range systems take for outgoing connections (32768 and up on Linux): a client that tries
# again and again while a server is away could otherwise be given the server's own port.
OWN_RANGE = range(20_000, 30_000)
WEB_PORT = 8080


class Ports:
    """One port for each name, the same at every start while it is free."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._kept = _read(file)
        self._taken: dict[str, int] = {}

    def get(self, name: str, fixed: str = "", first: int | None = None, host: str = "127.0.0.1") -> int:
        """The port of this name: the fixed one, else the kept one, else `first`, else any that is free."""
        if name not in self._taken:
            self._taken[name] = _fixed(name, fixed, host) if fixed else self._choose(name, first, host)
            self._kept[name] = self._taken[name]
            write(self._file, json.dumps(self._kept, indent=1) + "\n")
        return self._taken[name]

    def _choose(self, name: str, first: int | None, host: str) -> int:
        others = set(self._taken.values()) | {port for kept, port in self._kept.items() if kept != name}
        wanted = [self._kept.get(name), first, *random.sample(OWN_RANGE, 200)]
        for port in wanted:
            if port is not None and port not in others and is_free(port, host):
                return port
        raise Failure(f"No free port was found for {name}.")


def _fixed(name: str, text: str, host: str) -> int:
    if not text.isdecimal() or not 0 < int(text) < 65536:
        raise Failure(f"The port for {name}, {text!r}, is not a number from 1 to 65535.")
    if not is_free(int(text), host):
        raise Failure(f"Port {text}, set for {name}, is in use or not allowed.")
    return int(text)


def is_free(port: int, host: str = "127.0.0.1") -> bool:
    """Whether a server could listen there now."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError:
            return False
    return True


def _read(file: Path) -> dict[str, int]:
    try:
        return {str(name): int(port) for name, port in json.loads(file.read_text()).items()}
    except (OSError, ValueError, AttributeError):
        return {}
