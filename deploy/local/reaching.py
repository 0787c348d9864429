"""Where the web and MQTT ports listen, under which certificate, and what somebody elsewhere is told."""

from __future__ import annotations

import json
import os
import socket
import ssl
import urllib.request
from ipaddress import ip_address
from pathlib import Path
from urllib.parse import urlsplit

from deploy.local.errors import Failure
from deploy.local.instance import Instance
from deploy.local.settings import Settings

EVERYWHERE = ("0.0.0.0", "::")
TLS_FILES = ("POSTHOUSE_TLS_CERT", "POSTHOUSE_TLS_KEY")
ASK_SECONDS = 3.0


def host_of(settings: Settings, name: str) -> str:
    """The address of one port, POSTHOUSE_HOST or POSTHOUSE_MQTT_HOST, else that of both."""
    return settings.get(name) or settings.get("POSTHOUSE_LISTEN")


def from_here(host: str) -> str:
    """Where a program of this machine finds what listens on that address."""
    return "127.0.0.1" if host in (*EVERYWHERE, "") else host


def bracketed(host: str) -> str:
    """As addresses with a port have it."""
    return f"[{host}]" if ":" in host else host


def listen(host: str, port: int, backlog: int) -> socket.socket:
    """A listening socket; that of all addresses of IPv6 takes those of IPv4 too."""
    return socket.create_server(
        (host, port),
        family=socket.AF_INET6 if ":" in host else socket.AF_INET,
        backlog=backlog,
        dualstack_ipv6=host == "::" and socket.has_dualstack_ipv6(),
    )


def tls_environment(instance: Instance) -> dict[str, str]:
    """The files of the certificate by whole paths; relative ones are meant from the checkout."""
    named = {name: instance.settings.get(name) for name in TLS_FILES}
    return {name: str(instance.root / Path(file).expanduser()) for name, file in named.items() if file}


def check(instance: Instance) -> None:
    """Raise Failure, before anything is started, for what nobody could be reached with."""
    settings = instance.settings
    for name in ("POSTHOUSE_HOST", "POSTHOUSE_MQTT_HOST"):
        host = host_of(settings, name)
        try:
            listen(host, 0, 1).close()
        except OSError as error:
            said = name if settings.get(name) else "POSTHOUSE_LISTEN"
            raise Failure(
                f"{said}: nothing can listen on {host!r} here: {error.strerror or error}."
            ) from None
    if is_encrypted(settings):
        check_certificate(instance)
        return
    for name in ("POSTHOUSE_TLS_KEY", "POSTHOUSE_HTTP_PORT"):
        if settings.get(name):
            raise Failure(f"{name} is for use with POSTHOUSE_TLS_CERT, which is not set.")


def is_encrypted(settings: Settings) -> bool:
    """Whether the web port speaks TLS."""
    return bool(settings.get("POSTHOUSE_TLS_CERT"))


def check_certificate(instance: Instance) -> None:
    """Raise Failure when the two files cannot be used: as the gateway does, but before the servers start."""
    files = tls_environment(instance)
    for name, file in files.items():
        try:
            Path(file).read_bytes()
        except OSError as error:
            raise Failure(f"{name}: {file} cannot be read: {error.strerror}.") from None
    try:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(files[TLS_FILES[0]], files.get(TLS_FILES[1]), password=_no_password)
    except (ssl.SSLError, ValueError) as error:
        reason = getattr(error, "reason", None) or error
        raise Failure(f"{' and '.join(files.values())} cannot be used for TLS: {reason}.") from None


def _no_password() -> str:
    raise ValueError("the key is encrypted, and nobody is there to open it")


def is_open(host: str) -> bool:
    """Whether another machine may come in at an address."""
    try:
        return not ip_address(host).is_loopback
    except ValueError:
        return host != "localhost"


def own_address() -> str:
    """This machine's address for others, as its routes tell; empty without a network. Nothing is sent."""
    for family, somewhere in ((socket.AF_INET, "192.0.2.1"), (socket.AF_INET6, "2001:db8::1")):
        try:
            with socket.socket(family, socket.SOCK_DGRAM) as probe:
                probe.connect((somewhere, 9))
                return str(probe.getsockname()[0])
        except OSError:
            continue
    return ""


def elsewhere(url: str, host: str) -> str:
    """The web address for other machines, when there is one to tell."""
    if not is_open(host):
        return ""
    parts = urlsplit(url)
    address = own_address() if host in EVERYWHERE else host
    return f"{parts.scheme}://{bracketed(address)}:{parts.port}" if address else ""


def is_set_up(url: str) -> bool | None:
    """Whether the first account was made; None when the gateway does not tell.

    The certificate of our own port seldom names the loopback address, and nothing secret is asked.
    """
    trusting = ssl.create_default_context()
    trusting.check_hostname, trusting.verify_mode = False, ssl.CERT_NONE
    try:
        with urllib.request.urlopen(f"{url}/v1/sign-up", timeout=ASK_SECONDS, context=trusting) as answer:
            return bool(json.load(answer)["set_up"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def has_terminal() -> bool:
    """Whether a terminal would tell us of its end; after that end it is gone."""
    try:
        os.close(os.open("/dev/tty", os.O_RDONLY | os.O_NOCTTY))
    except OSError:
        return False
    return True
