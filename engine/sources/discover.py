"""IP cameras on this network: ONVIF devices that answer a WS-Discovery probe.

Needs the package `WSDiscovery` (extra `onvif`). A camera reveals the address of its stream only to a client with a
password, so discovery finds only cameras, their makers and their web addresses.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable
from dataclasses import dataclass
from urllib.parse import unquote, urlsplit

from engine.errors import SourceError
from engine.optional import require
from engine.sources.onvif import CameraStream, camera_streams

_SCOPE = "onvif://www.onvif.org/"
_TYPE_NAMESPACE = "http://www.onvif.org/ver10/network/wsdl"
_TYPE = "NetworkVideoTransmitter"


@dataclass(frozen=True, slots=True)
class FoundCamera:
    """A camera that answered the probe.

    Attributes:
        host: name or address.
        service: address of its ONVIF service.
        name: the name that it reports, usually the maker.
        hardware: model.
        location: the location that it reports.
    """

    host: str
    service: str
    name: str = ""
    hardware: str = ""
    location: str = ""


def camera_from_answer(services: Iterable[str], scopes: Iterable[str]) -> FoundCamera | None:
    """Return the camera that an answer describes, None if it gives no usable address.

    Args:
        services: addresses of its service (XAddrs), best first; IPv4 is preferred.
        scopes: ONVIF scopes such as `onvif://www.onvif.org/name/ACME%20Dome`.

    >>> camera_from_answer(["http://10.0.0.7/onvif"], ["onvif://www.onvif.org/hardware/Dome%202"])
    FoundCamera(host='10.0.0.7', service='http://10.0.0.7/onvif', name='', hardware='Dome 2', location='')
    """
    addresses = sorted(services, key=lambda address: "[" in address)
    hosts = [(_host(address), address) for address in addresses]
    usable = [(host, address) for host, address in hosts if host]
    if not usable:
        return None
    facts: dict[str, str] = {}
    for scope in scopes:
        if scope.startswith(_SCOPE):
            key, _, value = scope[len(_SCOPE) :].partition("/")
            facts.setdefault(key, unquote(value).strip())
    host, service = usable[0]
    return FoundCamera(host, service, *(facts.get(key, "") for key in ("name", "hardware", "location")))


def _host(address: str) -> str | None:
    try:
        return urlsplit(address).hostname
    except ValueError:  # an answer is untrusted input: it may have an unmatched bracket, for example
        return None


def streams_of(camera: FoundCamera, user: str, password: str) -> list[CameraStream]:
    """Return the streams of a camera that answered the probe, largest first.

    Any device can answer, with any address. The password's proof goes only to addresses of private networks, because a
    proof sent elsewhere could be used to guess it.

    Raises:
        SourceError: it gives an address elsewhere, does not answer, refuses the password, or answers something else.
    """
    if not _is_near(camera.host):
        raise SourceError(
            f"{camera.host} is not asked for its streams: it is not an address of a private network; if the camera is "
            "yours, give the address of its stream with --source"
        )
    return camera_streams(camera.service, user, password)


def _is_near(host: str) -> bool:
    """Return whether a host is a literal address of a private network other than this machine.

    >>> [_is_near(host) for host in ("192.168.1.7", "fe80::1%eth0", "8.8.8.8", "127.0.0.1", "camera.example")]
    [True, True, False, False, False]
    """
    try:
        address = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return False
    if isinstance(address, ipaddress.IPv6Address):
        address = address.ipv4_mapped or address  # some versions of Python treat all mapped addresses as private
    return (address.is_private or address.is_link_local) and not (address.is_loopback or address.is_unspecified)


def discover_cameras(timeout_s: float = 3.0) -> list[FoundCamera]:
    """Return the ONVIF cameras that answer within `timeout_s`, ordered by host.

    Raises:
        MissingDependencyError: the package WSDiscovery is not installed.
    """
    discovery = require("wsdiscovery.discovery", extra="onvif").ThreadedWSDiscovery()
    kind = require("wsdiscovery", extra="onvif").QName(_TYPE_NAMESPACE, _TYPE)
    discovery.start()
    try:
        answers = discovery.searchServices(types=[kind], timeout=timeout_s)
        found = [camera_from_answer(a.getXAddrs(), [scope.getValue() for scope in a.getScopes()]) for a in answers]
    finally:
        discovery.stop()
    return sorted({camera for camera in found if camera is not None}, key=lambda camera: camera.host)
