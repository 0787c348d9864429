"""Who is at the other end of a connection, and who is behind it when our own proxies stand in front."""

from __future__ import annotations

from functools import lru_cache
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import NamedTuple

from aiohttp.hdrs import X_FORWARDED_FOR, X_FORWARDED_PROTO
from multidict import CIMultiDict, CIMultiDictProxy

from shared.settings import BadSettings

Headers = CIMultiDict[str] | CIMultiDictProxy[str]
KEPT = 4_096


class Networks(tuple[IPv4Network | IPv6Network, ...]):
    """Addresses and networks; told apart by identity, as hashing them costs more than looking into them."""

    def __hash__(self) -> int:
        return id(self)


class Peer(NamedTuple):
    """The other end: its address, whether TLS lies between, and our own proxies if it is one of them."""

    address: str = ""
    is_tls: bool = False
    proxies: Networks = Networks()

    @property
    def is_proxy(self) -> bool:
        """Whether what it forwards is believed."""
        return bool(self.proxies)

    def client(self, headers: Headers) -> str:
        """The nearest address that is not one of our own proxies: further ones anybody can invent."""
        if not self.proxies:
            return self.address
        return _nearest(self.address, _all(headers, X_FORWARDED_FOR), self.proxies)

    def is_secure(self, headers: Headers) -> bool:
        """Whether the client's own connection is encrypted: here, or as the nearest proxy says."""
        if self.is_tls or not self.proxies:
            return self.is_tls
        return _all(headers, X_FORWARDED_PROTO).rpartition(",")[2].strip() == "https"


def networks(text: str) -> Networks:
    """Addresses and networks separated by spaces; raises BadSettings."""
    try:
        return Networks(ip_network(part, strict=False) for part in text.split())
    except ValueError as error:
        raise BadSettings(f"POSTHOUSE_TRUSTED_PROXIES: {error}") from error


def peer_of(address: str, is_tls: bool, trusted: Networks) -> Peer:
    """What is known of a connection before its first request."""
    known = _address(address)
    if known is None:
        return Peer(address, is_tls)
    return Peer(str(known), is_tls, trusted if _is_in(known, trusted) else Networks())


def is_loopback(text: str) -> bool:
    """Whether an address is of this machine alone."""
    known = _address(text)
    return known is not None and known.is_loopback


def _address(text: str) -> IPv4Address | IPv6Address | None:
    """An address; one of IPv4 that came through a socket of both kinds is one of IPv4."""
    try:
        address = ip_address(text)
    except ValueError:
        return None
    return getattr(address, "ipv4_mapped", None) or address


def _all(headers: Headers, name: str) -> str:
    """Lines of one name are one list (RFC 9110, 5.2)."""
    return ",".join(headers.getall(name, ()))


@lru_cache(KEPT)
def _nearest(address: str, forwarded: str, proxies: Networks) -> str:
    for hop in reversed([hop.strip() for hop in forwarded.split(",") if hop.strip()]):
        known = _address(hop)
        if known is None:
            break
        address = str(known)
        if not _is_in(known, proxies):
            break
    return address


def _is_in(address: IPv4Address | IPv6Address, trusted: Networks) -> bool:
    return any(address in network for network in trusted)
