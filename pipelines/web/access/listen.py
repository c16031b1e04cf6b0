"""Where a server listens, and which forwarded addresses it trusts."""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

from engine.errors import ConfigError

Network: TypeAlias = "ipaddress.IPv4Network | ipaddress.IPv6Network"
Address: TypeAlias = "ipaddress.IPv4Address | ipaddress.IPv6Address"
LOOPBACK_NAMES = frozenset(("localhost", "127.0.0.1", "::1"))
MAX_PORT = 65535
MAX_FORWARDED = 20
IPV6_SITE_BITS = 64


@dataclass(frozen=True, slots=True)
class Listen:
    """An address to listen on.

    Attributes:
        host: an IP address without brackets, or a host name.
        port: 0 chooses a free one.
    """

    host: str
    port: int

    @classmethod
    def parse(cls, text: str, what: str = "address") -> Listen:
        """Return the address of `HOST:PORT`; an IPv6 address needs brackets.

        Raises:
            ConfigError: it is malformed.

        >>> Listen.parse("[::1]:8000"), Listen.parse("127.0.0.1:0")
        (Listen(host='::1', port=8000), Listen(host='127.0.0.1', port=0))
        """
        host, sign, port = text.strip().rpartition(":")
        bracketed = host.startswith("[") and host.endswith("]")
        plain = host[1:-1] if bracketed else host
        is_number = port.isascii() and port.isdigit() and len(port) <= 5 and int(port) <= MAX_PORT
        if not sign or not plain or not is_number or (":" in plain) != bracketed or not set(plain).isdisjoint("/@ "):
            raise ConfigError(f"{what} {text!r}: expected HOST:PORT, for example 127.0.0.1:8000 or [::1]:8000")
        return cls(plain.lower(), int(port))

    @property
    def is_loopback(self) -> bool:
        """Whether only this machine can connect."""
        address = address_of(self.host)
        return self.host == "localhost" if address is None else address.is_loopback

    @property
    def is_any(self) -> bool:
        """Whether the host stands for every address of this machine."""
        address = address_of(self.host)
        return address is not None and address.is_unspecified

    def url(self, scheme: str = "http") -> str:
        """Return the address as typed in a browser."""
        return f"{scheme}://{f'[{self.host}]' if ':' in self.host else self.host}:{self.port}"


def address_of(text: str) -> Address | None:
    """Return an IP address, or None for any other text; an IPv4 address written as IPv6 becomes IPv4.

    >>> address_of("::ffff:10.0.0.1"), address_of("camera")
    (IPv4Address('10.0.0.1'), None)
    """
    try:
        address = ipaddress.ip_address(text.strip("[]").partition("%")[0])
    except ValueError:
        return None
    return getattr(address, "ipv4_mapped", None) or address


def networks_of(texts: Sequence[str], what: str) -> tuple[Network, ...]:
    """Return the networks of `10.0.0.0/8` or single addresses.

    Raises:
        ConfigError: one is malformed, or covers every address.
    """
    found = []
    for text in texts:
        try:
            network = ipaddress.ip_network(text.strip(), strict=False)
        except ValueError as error:
            raise ConfigError(
                f"{what} {text!r}: expected an address or a network, such as 10.0.0.2 or 10.0.0.0/24"
            ) from (error)
        if network.prefixlen == 0:
            raise ConfigError(f"{what} {text!r} covers every address: name the proxy's own")
        found.append(network)
    return tuple(found)


def is_within(address: Address | None, networks: Sequence[Network]) -> bool:
    """Return whether an address belongs to one of the networks."""
    return address is not None and any(address.version == each.version and address in each for each in networks)


def client_of(peer: str, forwarded_for: str | None, proxies: Sequence[Network]) -> str:
    """Return the address of the client: the peer, or the one that trusted proxies report.

    `X-Forwarded-For` is used only from a trusted proxy, and is read from the right: the first address that is not
    itself a trusted proxy is the client, whatever a client wrote to its left.

    >>> lan = networks_of(["10.0.0.2"], "proxy")
    >>> client_of("10.0.0.2", "1.1.1.1, 192.0.2.7", lan), client_of("192.0.2.9", "1.1.1.1", lan)
    ('192.0.2.7', '192.0.2.9')
    """
    client = address_of(peer)
    if forwarded_for is None or not is_within(client, proxies):
        return peer
    for text in reversed(forwarded_for.split(",")[-MAX_FORWARDED:]):
        address = address_of(text.strip())
        if address is None:
            break
        client = address
        if not is_within(client, proxies):
            break
    return str(client)


def site_of(client: str) -> str:
    """Return the unit that counts as one client for limits: an IPv4 address, or the network of an IPv6 address.

    >>> site_of("2001:db8::1:2"), site_of("192.0.2.1")
    ('2001:db8::', '192.0.2.1')
    """
    address = address_of(client)
    if not isinstance(address, ipaddress.IPv6Address):
        return str(address or client)
    return str(ipaddress.ip_network((int(address), IPV6_SITE_BITS), strict=False).network_address)
