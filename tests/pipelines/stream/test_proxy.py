"""The proxy: many engines at one address, only wanted messages, nothing changed."""

from __future__ import annotations

import dataclasses
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from engine.errors import ConfigError, SinkError
from engine.sinks.zmq import ZmqPublisher
from engine.subscriber import Subscriber
from engine.transport.keys import load_key_pair, make_keys
from engine.wire import FrameMessage, StatsMessage
from pipelines.stream.proxy import Proxy
from tests.wire.samples import RUN, packet

ANY = "tcp://127.0.0.1:*"


class Engines:
    """Publishers that publish one packet of their source every few ms, each on its own thread."""

    def __init__(self, **options: object) -> None:
        self.publishers = [ZmqPublisher(ANY, **options) for _ in range(3)]  # type: ignore[arg-type]
        for n, publisher in enumerate(self.publishers):
            publisher.open(dataclasses.replace(RUN, engine_id=f"engine-{n}"))
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._publish, args=(n,)) for n in range(3)]
        for thread in self._threads:
            thread.start()

    def _publish(self, n: int) -> None:
        seq = 0
        run = dataclasses.replace(RUN, engine_id=f"engine-{n}")
        while not self._stop.wait(0.003):
            self.publishers[n].write(dataclasses.replace(packet(2, seq=seq, source_id=f"cam{n}"), run=run))
            seq += 1

    def close(self) -> None:
        self._stop.set()
        for thread, publisher in zip(self._threads, self.publishers, strict=True):
            thread.join()
            publisher.close()


@pytest.fixture
def engines() -> Iterator[Engines]:
    made = Engines()
    yield made
    made.close()


@pytest.fixture
def proxy(engines: Engines) -> Iterator[Proxy]:
    made = Proxy([publisher.address for publisher in engines.publishers], ANY)
    made.open()
    thread = threading.Thread(target=made.run)
    thread.start()
    yield made
    made.stop()
    thread.join(2)
    assert not thread.is_alive()
    made.close()


def test_readers_find_all_engines_at_one_address(proxy: Proxy) -> None:
    sources: set[str] = set()
    with Subscriber(proxy.address, "v1/frame/", timeout_s=10) as subscriber:
        for message in subscriber:
            assert isinstance(message, FrameMessage)
            sources.add(f"{message.engine_id} {message.source_id}")
            if len(sources) == 3 and subscriber.received > 100:
                break
    assert sources == {"engine-0 cam0", "engine-1 cam1", "engine-2 cam2"}
    assert sum(subscriber.lost.values()) == 0


def test_only_what_somebody_wants_passes(proxy: Proxy) -> None:
    with Subscriber(proxy.address, "v1/frame/cam1/", timeout_s=10) as subscriber:
        for message in subscriber:
            assert isinstance(message, FrameMessage)
            assert message.source_id == "cam1"
            if subscriber.received == 20:
                break
        assert proxy.summary.wanted == {"v1/frame/cam1/"}
    assert set(proxy.summary.messages) == {"frame"}


def test_the_proxy_publishes_its_own_statistics(proxy: Proxy) -> None:
    with Subscriber(proxy.address, ["v1/stats/proxy/", "v1/frame/cam0/"], timeout_s=10) as subscriber:
        stats = next(message for message in subscriber if isinstance(message, StatsMessage) and message.published > 0)
    assert stats.engine_id == "proxy"
    assert stats.fps > 0


def test_a_proxy_reads_engines_that_encrypt_and_encrypts_itself(tmp_path: Path) -> None:
    engine, middle, reader = (load_key_pair(make_keys(tmp_path, name)[1]) for name in ("engine", "proxy", "reader"))
    engines = Engines(keys=engine, allowed_keys=[middle.public])
    addresses = [publisher.address for publisher in engines.publishers]
    proxy = Proxy(addresses, ANY, keys=middle, allowed_keys=[reader.public], engine_key=engine.public)
    proxy.open()
    thread = threading.Thread(target=proxy.run)
    thread.start()
    try:
        with Subscriber(proxy.address, "v1/frame/", timeout_s=10, server_key=middle.public, keys=reader) as subscriber:
            assert isinstance(subscriber.receive(10), FrameMessage)
    finally:
        proxy.stop()
        thread.join()
        proxy.close()
        engines.close()


def test_wrong_arguments_are_refused(engines: Engines) -> None:
    with pytest.raises(ConfigError, match="at least one engine"):
        Proxy([], ANY)
    with pytest.raises(ConfigError, match="without keys"):
        Proxy([ANY], ANY, engine_key="x" * 40)
    for proxy, error in (
        (Proxy(["nowhere"], ANY), ConfigError),
        (Proxy(["tcp://127.0.0.1:1"], engines.publishers[0].address), SinkError),
    ):
        with pytest.raises(error):
            proxy.open()
        proxy.close()
