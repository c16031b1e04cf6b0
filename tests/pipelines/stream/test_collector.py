"""A proxy to which engines connect: moves keep the order of owners, and nobody else gets in."""

from __future__ import annotations

import dataclasses
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import zmq

from engine.errors import ConfigError
from engine.sinks.zmq import ZmqPublisher
from engine.subscriber import NoMessageError, Subscriber
from engine.transport.keys import KeyPair, load_key_pair, make_keys
from engine.wire import FrameMessage
from pipelines.build.sinks import bound_publisher
from pipelines.config.file import load_config
from pipelines.metrics.exposition import Page
from pipelines.stream.figures import add_proxy
from pipelines.stream.proxy import Proxy
from tests.wire.samples import RUN, packet

ANY = "tcp://127.0.0.1:*"
PATIENCE_S = 30.0


def until(is_so: Callable[[], bool]) -> None:
    """Wait for a condition."""
    deadline = time.monotonic() + PATIENCE_S
    while not is_so():
        assert time.monotonic() < deadline
        threading.Event().wait(0.02)


@contextmanager
def running(proxy: Proxy) -> Iterator[Proxy]:
    proxy.open()
    thread = threading.Thread(target=proxy.run)
    thread.start()
    try:
        yield proxy
    finally:
        proxy.stop()
        thread.join()
        proxy.close()


@contextmanager
def engine(
    proxy: Proxy, name: str, *, keys: KeyPair | None = None, server: str | None = None
) -> Iterator[ZmqPublisher]:
    assert proxy.collect_address is not None
    made = ZmqPublisher("none", connect=[proxy.collect_address], keys=keys, connect_key=server)
    made.open(dataclasses.replace(RUN, engine_id=name))
    try:
        yield made
    finally:
        made.close()


def publish(publisher: ZmqPublisher, name: str, epoch: int, seq: int) -> None:
    run = dataclasses.replace(RUN, engine_id=name, owner_epoch=epoch)
    publisher.write(dataclasses.replace(packet(1, seq=seq), run=run))


def test_readers_see_epochs_rise_and_no_former_owner() -> None:
    with running(Proxy([], ANY, collect=ANY)) as proxy, engine(proxy, "a") as first, engine(proxy, "b") as second:
        with Subscriber(proxy.address, "v1/frame/", timeout_s=30) as reader:
            _until_heard(reader, first, "a", 1)
            _until_heard(reader, second, "b", 2)
            for seq in range(50):
                publish(first, "a", 1, 1000 + seq)
            until(lambda: proxy.summary.fenced["frame"] >= 50)
            publish(second, "b", 2, 1000)
            seen = [reader.receive(30)]
            while not isinstance(seen[-1], FrameMessage) or seen[-1].seq != 1000:
                seen.append(reader.receive(30))
        assert {(m.engine_id, m.owner_epoch) for m in seen if isinstance(m, FrameMessage)} == {("b", 2)}
        page = Page()
        add_proxy(page, proxy.summary)
        assert 'framewire_proxy_fenced_total{kind="frame"}' in page.text()


def _until_heard(reader: Subscriber, publisher: ZmqPublisher, name: str, epoch: int) -> None:
    for seq in range(1000):
        publish(publisher, name, epoch, seq)
        try:
            message = reader.receive(0.05)
        except NoMessageError:
            continue
        if isinstance(message, FrameMessage) and message.engine_id == name:
            assert message.owner_epoch == epoch
            return
    raise AssertionError(f"nothing from {name}")


def test_only_listed_engines_may_connect(tmp_path: Path) -> None:
    middle, listed, stranger = (load_key_pair(make_keys(tmp_path, n)[1]) for n in ("proxy", "listed", "stranger"))
    proxy = Proxy([], ANY, collect=ANY, keys=middle, allowed_engines=[listed.public])
    with running(proxy), engine(proxy, "plain") as plain:
        reader_keys = load_key_pair(make_keys(tmp_path, "reader")[1])
        with (
            engine(proxy, "stranger", keys=stranger, server=middle.public) as other,
            engine(proxy, "listed", keys=listed, server=middle.public) as good,
            Subscriber(proxy.address, "v1/frame/", server_key=middle.public, keys=reader_keys) as reader,
        ):
            for seq in range(20):
                publish(plain, "plain", 9, seq)
                publish(other, "stranger", 8, seq)
            _until_heard(reader, good, "listed", 1)
            for seq in range(20):
                publish(plain, "plain", 9, seq)
                publish(other, "stranger", 8, seq)
            publish(good, "listed", 1, 5000)
            while isinstance(message := reader.receive(30), FrameMessage) and message.seq != 5000:
                assert message.engine_id == "listed"
        assert not proxy.summary.fenced


def test_a_configured_engine_connects_with_its_keys_and_binds_nothing(tmp_path: Path) -> None:
    files = {name: make_keys(tmp_path, name) for name in ("proxy", "engine")}
    middle, engine_keys = (load_key_pair(files[name][1]) for name in ("proxy", "engine"))
    with running(Proxy([], ANY, collect=ANY, keys=middle, allowed_engines=[engine_keys.public])) as proxy:
        keys = {"connect_key": str(files["proxy"][0]), "keys": str(files["engine"][1])}
        given = {"connect": [proxy.collect_address], **keys}
        config = load_config(None, {f"publish.{key}": value for key, value in given.items()})
        publisher = bound_publisher(config)
        assert publisher is not None
        assert (publisher.address, publisher.endpoints) == ("none", {})
        publisher.open(dataclasses.replace(RUN, engine_id="a"))
        try:
            with Subscriber(proxy.address, "v1/frame/", server_key=middle.public) as reader:
                _until_heard(reader, publisher, "a", 1)
        finally:
            publisher.close()


def test_what_is_no_message_is_dropped_and_the_next_good_one_passes() -> None:
    with running(Proxy([], ANY, collect=ANY)) as proxy, zmq.Context() as context, engine(proxy, "a") as good:
        with context.socket(zmq.PUB) as hostile, Subscriber(proxy.address, "v1/", timeout_s=30) as reader:
            hostile.linger = 0
            assert proxy.collect_address is not None
            hostile.connect(proxy.collect_address)
            until(lambda: _sent_until_refused(hostile, proxy))
            _until_heard(reader, good, "a", 1)
        assert set(proxy.summary.refused) == {"malformed"}
        assert set(proxy.summary.messages) <= {"frame", "event", "stats", "heartbeat"}


def _sent_until_refused(hostile: zmq.Socket[bytes], proxy: Proxy) -> bool:
    for parts in ([b"v1/frame/gate/", b"{}"], [b"v1/x/gate/", b"x"], [b"v1/frame/gate/", b"{}", b"", b""]):
        hostile.send_multipart(parts)
    return proxy.summary.refused["malformed"] > 0


def test_wrong_arguments_are_refused(tmp_path: Path) -> None:
    keys = load_key_pair(make_keys(tmp_path, "proxy")[1])
    with pytest.raises(ConfigError, match="open to other machines"):
        Proxy([], ANY, collect="tcp://*:*")
    with pytest.raises(ConfigError, match="open to other machines"):
        Proxy([], ANY, collect="tcp://*:*", keys=keys)
    with pytest.raises(ConfigError, match="its own keys"):
        Proxy([], ANY, collect=ANY, allowed_engines=[keys.public])
    with pytest.raises(ConfigError, match="without collect"):
        Proxy(["tcp://127.0.0.1:1"], ANY, allowed_engines=[keys.public])
    with pytest.raises(ConfigError, match="give an address to bind"):
        ZmqPublisher("none")
    with pytest.raises(ConfigError, match="needs their public key"):
        ZmqPublisher("none", connect=["tcp://127.0.0.1:1"], keys=keys)
    with pytest.raises(ConfigError, match="both, or neither"):
        ZmqPublisher(ANY, keys=keys, connect_key=keys.public)
    given = {"publish.connect": ["tcp://127.0.0.1:1"], "publish.connect_key": "/no/such.key"}
    with pytest.raises(ConfigError, match=r"cannot read /no/such\.key"):
        bound_publisher(load_config(None, given))
