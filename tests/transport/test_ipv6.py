"""IPv6 addresses wherever an address is taken."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator

import pytest
import zmq

from engine.sinks.zmq import ZmqPublisher
from engine.subscriber import Subscriber
from pipelines.stream.proxy import Proxy
from tests.patience import AT_ONCE_S
from tests.publishing import sending
from tests.wire.samples import RUN


def _has_ipv6() -> bool:
    try:
        with socket.socket(socket.AF_INET6) as probe:
            probe.bind(("::1", 0))
    except OSError:
        return False
    return True


pytestmark = pytest.mark.skipif(not _has_ipv6(), reason="this machine has no IPv6 loopback: sysctl net.ipv6.conf.lo")


@pytest.fixture
def publisher() -> Iterator[ZmqPublisher]:
    made = ZmqPublisher("tcp://[::1]:*")
    made.open(RUN)
    yield made
    made.close()


def heard(publisher: ZmqPublisher, address: str) -> str:
    with sending(publisher, every_s=0.01), Subscriber(address, "v1/frame/", timeout_s=10 * AT_ONCE_S) as subscriber:
        message = subscriber.receive(10 * AT_ONCE_S)
    return getattr(message, "source_id", "")


def test_a_stream_at_an_ipv6_address_is_read(publisher: ZmqPublisher) -> None:
    assert publisher.address.startswith("tcp://[::1]:")
    assert heard(publisher, publisher.address) == "gate"


def test_a_stream_at_every_network_of_both_kinds_is_read_by_either() -> None:
    made = ZmqPublisher("tcp://[::]:*")
    made.open(RUN)
    port = made.address.rpartition(":")[2]
    try:
        assert heard(made, f"tcp://[::1]:{port}") == "gate"
        assert heard(made, f"tcp://127.0.0.1:{port}") == "gate"
    finally:
        made.close()


def test_a_proxy_takes_and_offers_ipv6(publisher: ZmqPublisher) -> None:
    proxy = Proxy([publisher.address], "tcp://[::1]:*")
    proxy.open()
    running = threading.Thread(target=proxy.run)
    running.start()
    try:
        assert heard(publisher, proxy.address) == "gate"
    finally:
        proxy.stop()
        running.join()
        proxy.close()


def test_ipv4_names_stay_ipv4() -> None:
    from engine.transport.ipv6 import prepare

    with zmq.Context() as context, context.socket(zmq.SUB) as sub:
        for address, expected in (("tcp://localhost:1", 0), ("tcp://[::1]:1", 1), ("tcp://127.0.0.1:1", 0)):
            prepare(sub, address)
            assert sub.getsockopt(zmq.IPV6) == expected
