"""Whose address a request comes from when proxies stand in front."""

from __future__ import annotations

from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network

from aiohttp.hdrs import X_FORWARDED_FOR

from services.gateway.http.incoming import Headers
from shared.settings import BadSettings

Networks = tuple[IPv4Network | IPv6Network, ...]


def networks(text: str) -> Networks:
    """Addresses and networks separated by spaces; raises BadSettings."""
    try:
        return tuple(ip_network(part, strict=False) for part in text.split())
    except ValueError as error:
        raise BadSettings(f"POSTHOUSE_TRUSTED_PROXIES: {error}") from error


def client_of(remote: str, headers: Headers, trusted: Networks) -> str:
    """The nearest address that is not one of our own proxies: further ones anybody can invent."""
    nearest = remote
    if not trusted or not _is_in(nearest, trusted):
        return nearest
    hops = ",".join(headers.getall(X_FORWARDED_FOR, ())).split(",")
    for hop in reversed([hop.strip() for hop in hops if hop.strip()]):
        if not _is_address(hop):
            break
        nearest = hop
        if not _is_in(hop, trusted):
            break
    return nearest


def _is_address(text: str) -> bool:
    try:
        ip_address(text)
    except ValueError:
        return False
    return True


def is_one_of(remote: str, trusted: Networks) -> bool:
    """Whether a connection comes from one of our own proxies."""
    return bool(trusted) and _is_in(remote, trusted)


def _is_in(text: str, trusted: Networks) -> bool:
    return _is_address(text) and any(ip_address(text) in network for network in trusted)
