"""ONVIF discovery, against a camera that is published on loopback by the same library."""

from __future__ import annotations

import ipaddress
import socket
import sys

import pytest

from engine.errors import MissingDependencyError
from engine.sources.discover import FoundCamera, camera_from_answer, discover_cameras

NAMESPACE = "http://www.onvif.org/ver10/network/wsdl"


@pytest.mark.filterwarnings("ignore::ResourceWarning")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")  # its threads at their end
def test_a_camera_on_the_network_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    wsdiscovery = pytest.importorskip("wsdiscovery", reason="WSDiscovery is not installed: pip install WSDiscovery")
    from wsdiscovery import threaded
    from wsdiscovery.publishing import ThreadedWSPublishing

    loopback = [ipaddress.ip_address("127.0.0.1")]
    monkeypatch.setattr(
        threaded, "_getNetworkAddrs", lambda version: loopback if version in (None, socket.AF_INET) else []
    )
    publisher = ThreadedWSPublishing()
    publisher.start()
    try:
        publisher.publishService(
            types=[wsdiscovery.QName(NAMESPACE, "NetworkVideoTransmitter")],
            scopes=[wsdiscovery.Scope("onvif://www.onvif.org/name/ACME%20Dome")],
            xAddrs=["http://127.0.0.1:8080/onvif/device_service"],
        )
        found = discover_cameras(timeout_s=1.5)
    finally:
        publisher.stop()
    assert found == [FoundCamera("127.0.0.1", "http://127.0.0.1:8080/onvif/device_service", "ACME Dome")]


def test_without_the_package_the_remedy_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "wsdiscovery", None)
    monkeypatch.setitem(sys.modules, "wsdiscovery.discovery", None)
    with pytest.raises(MissingDependencyError, match=r"\[onvif\]"):
        discover_cameras()


@pytest.mark.parametrize(
    ("services", "host"),
    [
        (["http://[fe80::1]/onvif", "http://10.0.0.7/onvif"], "10.0.0.7"),
        (["http://[fe80::1]/onvif"], "fe80::1"),
        (["nonsense"], None),
        (["http://[bad"], None),
        (["http://[bad", "http://10.0.0.7/onvif"], "10.0.0.7"),
        ([], None),
    ],
)
def test_an_address_is_chosen(services: list[str], host: str | None) -> None:
    camera = camera_from_answer(services, [])
    assert (camera and camera.host) == host


def test_scopes_of_others_are_ignored() -> None:
    scopes = ["onvif://www.onvif.org/location/hall", "onvif://www.onvif.org/location/roof", "urn:other", "x"]
    camera = camera_from_answer(["http://h/"], scopes)
    assert camera == FoundCamera("h", "http://h/", location="hall")
