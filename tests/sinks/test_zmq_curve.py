"""Encryption: listed readers are let in; plain ones and strangers receive nothing and are counted."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from engine.errors import ConfigError
from engine.sinks.zmq import ZmqPublisher
from engine.subscriber import NoMessageError, Subscriber
from engine.transport.keys import KeyPair, load_key_pair, make_keys
from tests.wire.samples import RUN, packet

ANY = "tcp://127.0.0.1:*"
TURNS = 60


@pytest.fixture
def server(tmp_path: Path) -> KeyPair:
    return load_key_pair(make_keys(tmp_path, "server")[1])


@pytest.fixture
def listed(tmp_path: Path) -> KeyPair:
    return load_key_pair(make_keys(tmp_path, "listed")[1])


@pytest.fixture
def stranger(tmp_path: Path) -> KeyPair:
    return load_key_pair(make_keys(tmp_path, "stranger")[1])


@pytest.fixture
def publisher(server: KeyPair, listed: KeyPair) -> Iterator[ZmqPublisher]:
    made = ZmqPublisher(ANY, snapshot=ANY, keys=server, allowed_keys=[listed.public])
    made.open(RUN)
    yield made
    made.close()


def heard(publisher: ZmqPublisher, subscriber: Subscriber, until: Callable[[], bool] = lambda: False) -> int:
    """Publish for a while; return how many messages arrived until `until`, or until the first one."""
    for seq in range(TURNS * 10):
        publisher.write(packet(1, seq=seq))
        try:
            subscriber.receive(0.01)
        except NoMessageError:
            if until():
                break
            continue
        return subscriber.received
    return subscriber.received


def test_a_listed_reader_is_let_in(publisher: ZmqPublisher, server: KeyPair, listed: KeyPair) -> None:
    snapshot = publisher.endpoints["snapshot"]
    with Subscriber(publisher.address, server_key=server.public, keys=listed, snapshot=snapshot) as subscriber:
        assert heard(publisher, subscriber) > 0
    assert publisher.curve is not None
    assert publisher.curve.admitted >= 1
    assert publisher.curve.denied == 0


def test_a_stranger_receives_nothing_and_is_counted(
    publisher: ZmqPublisher, server: KeyPair, stranger: KeyPair
) -> None:
    curve = publisher.curve
    assert curve is not None
    with Subscriber(publisher.address, server_key=server.public, keys=stranger) as subscriber:
        assert heard(publisher, subscriber, lambda: curve.denied > 0) == 0
    with Subscriber(publisher.address, server_key=server.public) as subscriber:  # keys made for the occasion
        before = curve.denied
        assert heard(publisher, subscriber, lambda: curve.denied > before) == 0
    assert curve.denied >= 2
    assert curve.admitted == 0


def test_a_plain_reader_receives_nothing_and_is_counted(publisher: ZmqPublisher) -> None:
    curve = publisher.curve
    assert curve is not None
    with Subscriber(publisher.address) as subscriber:
        assert heard(publisher, subscriber, lambda: curve.failed > 0) == 0
    assert curve.failed >= 1


def test_a_reader_with_the_wrong_server_key_receives_nothing(
    publisher: ZmqPublisher, stranger: KeyPair, listed: KeyPair
) -> None:
    curve = publisher.curve
    assert curve is not None
    with Subscriber(publisher.address, server_key=stranger.public, keys=listed) as subscriber:
        assert heard(publisher, subscriber, lambda: curve.failed > 0) == 0


def test_without_a_list_everybody_who_knows_the_public_key_may_read(server: KeyPair) -> None:
    publisher = ZmqPublisher(ANY, keys=server)
    publisher.open(RUN)
    try:
        with Subscriber(publisher.address, server_key=server.public) as subscriber:
            assert heard(publisher, subscriber) > 0
    finally:
        publisher.close()


def test_a_list_without_keys_would_protect_nothing_and_is_refused(listed: KeyPair) -> None:
    with pytest.raises(ConfigError, match="admit everyone"):
        ZmqPublisher(ANY, allowed_keys=[listed.public])


def test_keys_without_the_key_of_the_publisher_are_refused(listed: KeyPair) -> None:
    with pytest.raises(ConfigError, match="public key of the publisher"):
        Subscriber("tcp://127.0.0.1:1", keys=listed)


def test_a_plain_publisher_open_to_the_network_warns(caplog: pytest.LogCaptureFixture, server: KeyPair) -> None:
    for arguments, warns in (({}, True), ({"keys": server}, False)):
        caplog.clear()
        publisher = ZmqPublisher("tcp://*:*", **arguments)  # type: ignore[arg-type]
        with caplog.at_level(logging.WARNING):
            publisher.open(RUN)
        publisher.close()
        assert ("anyone on the network" in caplog.text) is warns


def test_secrets_are_never_logged(
    caplog: pytest.LogCaptureFixture, publisher: ZmqPublisher, server: KeyPair, stranger: KeyPair
) -> None:
    with caplog.at_level(logging.DEBUG):
        with Subscriber(publisher.address, server_key=server.public, keys=stranger) as subscriber:
            curve = publisher.curve
            heard(publisher, subscriber, lambda: curve is not None and curve.denied > 0)
    assert server.secret not in caplog.text
    assert stranger.secret not in caplog.text
