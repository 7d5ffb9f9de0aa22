"""Which network addresses a list may lead to: never a cloud's metadata, and under ``--confine`` only public ones."""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

from urllib3.util.connection import allowed_gai_family

# What gives a machine's own credentials away to all who ask from there: of AWS, Google, Azure, Oracle and others the
# whole link-local range, and these.
METADATA = tuple(
    ipaddress.ip_network(block)
    for block in (
        "169.254.0.0/16",
        "fe80::/10",
        "100.100.100.200/32",  # Alibaba
        "168.63.129.16/32",  # Azure's wire server
        "192.0.0.192/32",  # Oracle, formerly
        "fd00:ec2::/32",  # AWS: metadata, names, time
        "fd20:ce::254/128",  # Google
        "fd00:c1::a9fe:a9fe/128",  # Oracle
        "fd00:42::42/128",  # Scaleway
    )
)
METADATA_NAMES = frozenset({"metadata.google.internal", "metadata.goog", "instance-data.ec2.internal"})
_NAT64 = ipaddress.ip_network("64:ff9b::/96")
# What wraps an IPv4 address in its last bits, besides what it is itself: compatible ones, and a translator's (RFC 2765,
# RFC 8215).
_WRAPPING = tuple(map(ipaddress.ip_network, ("::/96", "::ffff:0:0:0/96", "64:ff9b:1::/48")))

NEVER = "its address is a link-local one, or that of a cloud's metadata, which no list may name"
NOT_PUBLIC = "its address is not a public one, as --confine asks"

_Ip = ipaddress.IPv4Address | ipaddress.IPv6Address


class AddressRules(NamedTuple):
    """Whether only public addresses are ``confined`` to, but for the host that the user named (``trusted``)."""

    confined: bool = False
    trusted: str = ""

    def flaw(self, host: str, address: str) -> str:
        """Return why a host may not be connected to at this address, empty where it may."""
        meant = _meant(address)
        if plain(host) in METADATA_NAMES or any(ip in block for ip in meant for block in METADATA):
            return NEVER
        if self.confined and plain(host) != plain(self.trusted) and not all(_is_public(ip) for ip in meant):
            return NOT_PUBLIC
        return ""

    def allowed(self, host: str, port: int) -> list[str]:
        """Return the addresses of a host that may be connected to, in the resolver's order.

        They are to be connected to as they are: another look at the name could find others. Raises ``Barred`` where
        there are only others, and ``socket.gaierror`` where there are none.
        """
        found = resolve(host, port)
        flaws = [self.flaw(host, address) for address in found]
        good = [address for address, flaw in zip(found, flaws, strict=True) if not flaw]
        if not good:
            raise Barred(flaws[0])
        return good

    def ask(self, host: str, port: int) -> None:
        """Raise ``Barred`` for a host that a proxy is to connect to: the proxy looks its name up, and decides.

        What is said in numbers is refused here; of a name, those who are confined ask what it means on this machine.
        """
        if plain(host) in METADATA_NAMES:
            raise Barred(NEVER)
        for address in _numeric(host) or (_named(host, port) if self.confined else ()):
            if flaw := self.flaw(host, address):
                raise Barred(flaw)


class Barred(Exception):
    """An address is refused; no OSError, which the client would try again."""


def plain(host: str) -> str:
    """Return a host's name as it is compared: in small letters, without brackets and the dot of the root."""
    return host.lower().strip("[]").rstrip(".")


def resolve(host: str, port: int) -> Sequence[str]:
    """Return the addresses of a host, whatever way it is spelled; raises ``socket.gaierror`` where it has none."""
    found = socket.getaddrinfo(host.strip("[]"), port, allowed_gai_family(), socket.SOCK_STREAM)
    return [str(place[0]) for *_, place in found]


def _numeric(host: str) -> Sequence[str]:
    try:
        found = socket.getaddrinfo(host.strip("[]"), None, type=socket.SOCK_STREAM, flags=socket.AI_NUMERICHOST)
    except socket.gaierror:
        return ()
    return [str(place[0]) for *_, place in found]


@lru_cache(4096)
def _named(host: str, port: int) -> Sequence[str]:
    """Return the addresses of a name; where only the proxy knows it, none, after a wait that happens once."""
    try:
        return resolve(host, port)
    except socket.gaierror:
        return ()


def _meant(address: str) -> list[_Ip]:
    """Return what an address leads to: an IPv6 one that wraps an IPv4 one, that one (too)."""
    ip = ipaddress.ip_address(address)
    if isinstance(ip, ipaddress.IPv4Address):
        return [ip]
    last = ipaddress.IPv4Address(int(ip) & 0xFFFF_FFFF)
    if ip.ipv4_mapped or ip in _NAT64:
        return [last]
    wrapped = [ip.sixtofour, *(ip.teredo or ()), last if any(ip in block for block in _WRAPPING) else None]
    return [ip, *(inner for inner in wrapped if inner is not None)]


def _is_public(ip: _Ip) -> bool:
    local = isinstance(ip, ipaddress.IPv6Address) and ip.is_site_local
    return ip.is_global and not (ip.is_multicast or ip.is_reserved or local)
