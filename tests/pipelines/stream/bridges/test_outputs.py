"""Each bridge against a real peer: files, an HTTP server, Redis, browsers' protocol."""

from __future__ import annotations

import asyncio
import csv
import io
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any, ClassVar

import pytest
import zmq

from engine.errors import ConfigError, SinkError
from engine.sinks.zmq import ZmqPublisher
from engine.transport.keys import KeyPair
from engine.wire import encode, frame_message, schema_of
from pipelines.stream.bridges.base import Forwarder, TargetError
from pipelines.stream.bridges.lines import COLUMNS, CsvOutput, NdjsonOutput, ParquetOutput
from pipelines.stream.bridges.redis_stream import RedisOutput
from pipelines.stream.bridges.webhook import WebhookOutput
from pipelines.stream.bridges.websocket import WebSocketBridge
from tests.pipelines.stream.bridges.peers import program, running, until_listening
from tests.wire.samples import RUN, SAMPLES, packet


def test_lines_are_the_bodies_of_the_wire() -> None:
    stream = io.BytesIO()
    target = NdjsonOutput(stream)
    target.open()
    for message in SAMPLES.values():
        target.send(message)
    assert stream.getvalue().splitlines() == [encode(message) for message in SAMPLES.values()]


def test_a_table_has_a_row_per_object(tmp_path: Path) -> None:
    target = CsvOutput(tmp_path / "a.csv")
    target.open()
    for seq in range(3):
        target.send(frame_message(packet(seq, seq=seq)))
    target.send(SAMPLES["status"])
    target.close()
    rows = list(csv.DictReader(io.StringIO((tmp_path / "a.csv").read_text())))
    assert [(row["frame_id"], row["track_id"]) for row in rows] == [("1", "1"), ("2", "1"), ("2", "2")]
    assert tuple(rows[0]) == COLUMNS
    with pytest.raises(SinkError, match="cannot write"):
        CsvOutput(tmp_path / "missing" / "a.csv").open()


def test_a_parquet_file_has_a_row_per_object(tmp_path: Path) -> None:
    parquet = pytest.importorskip("pyarrow.parquet", reason="pip install pyarrow")
    target = ParquetOutput(tmp_path / "a.parquet")
    target.open()
    for seq in range(200):
        target.send(frame_message(packet(50, seq=seq)))
    target.close()
    table = parquet.read_table(tmp_path / "a.parquet")
    assert table.num_rows == 10_000
    assert table.column_names == list(COLUMNS)
    assert table["frame_id"][-1].as_py() == 199


class Hook(BaseHTTPRequestHandler):
    """A webhook that gives chosen answers."""

    answers: ClassVar[list[int]] = []
    posted: ClassVar[list[tuple[dict[str, str], Any]]] = []

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        status = self.answers.pop(0) if self.answers else 204
        if status < 300:
            self.posted.append((dict(self.headers), body))
        self.send_response(status)
        self.end_headers()

    def log_message(self, *arguments: object) -> None: ...


@pytest.fixture
def hook() -> Iterator[str]:
    Hook.answers, Hook.posted = [], []
    with HTTPServer(("127.0.0.1", 0), Hook) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/hook"
        server.shutdown()
        thread.join()


def test_a_web_hook_gets_each_message_once_it_answers_well(hook: str) -> None:
    target = WebhookOutput(hook, headers={"Authorization": "Bearer x"})
    Hook.answers[:] = [503, 429]
    for _ in range(2):
        with pytest.raises(TargetError):
            target.send(SAMPLES["event"])
    target.send(SAMPLES["event"])
    headers, body = Hook.posted[0]
    assert body["event"] == "track_ended"
    assert headers["X-Framewire-Kind"] == "event"
    assert headers["X-Framewire-Id"].endswith("v1/event/gate/0")
    assert headers["Authorization"] == "Bearer x"


def test_a_web_hook_that_refuses_does_not_hold_up_the_rest(hook: str) -> None:
    Hook.answers[:] = [400]
    forwarder = Forwarder(WebhookOutput(hook))
    forwarder.offer(SAMPLES["event"])
    forwarder.offer(SAMPLES["eos"])
    forwarder.pump()
    assert [body["schema"] for _, body in Hook.posted] == [schema_of("eos")]
    assert forwarder.summary.rejected == {"event": 1}


def test_a_web_hook_that_is_away_is_tried_again(free_port: int) -> None:
    with pytest.raises(TargetError, match="cannot be reached"):
        WebhookOutput(f"http://127.0.0.1:{free_port}/").send(SAMPLES["event"])


def test_a_web_hook_is_an_http_url() -> None:
    with pytest.raises(ConfigError, match="http or https"):
        WebhookOutput("file:///etc/passwd")


def test_redis_streams_hold_the_messages_and_survive_a_restart(tmp_path: Path, free_port: int) -> None:
    redis = pytest.importorskip("redis", reason="pip install redis")
    server = program("redis-server", "redis-server")
    command = [server, "--port", str(free_port), "--bind", "127.0.0.1", "--save", "", "--dir", str(tmp_path)]
    target = RedisOutput(f"redis://127.0.0.1:{free_port}/0")
    forwarder = Forwarder(target)
    with running(command, free_port):
        for kind in ("frame", "event", "heartbeat"):
            forwarder.offer(SAMPLES[kind])
        forwarder.pump()
        client = redis.Redis(port=free_port)
        ((_, fields),) = client.xrange("framewire:event:gate")
        assert fields == {b"body": encode(SAMPLES["event"]), b"seq": b"0"}
        assert client.xlen("framewire:frame:gate") == client.xlen("framewire:heartbeat:engine-1") == 1
        client.close()
    forwarder.offer(SAMPLES["eos"])
    forwarder.pump()
    assert (forwarder.pending, forwarder.summary.reconnects) == (1, 1)
    with running(command, free_port):
        until_listening(free_port)
        forwarder._retry_ns = 0
        forwarder.pump()
        assert forwarder.pending == 0
    forwarder.close()


def test_browsers_receive_the_topics_they_ask_for() -> None:
    client = pytest.importorskip("websockets.asyncio.client", reason="pip install websockets")
    publisher = ZmqPublisher("tcp://127.0.0.1:*")
    publisher.open(RUN)

    async def browse() -> tuple[dict[str, Any], dict[str, Any]]:
        bridge = WebSocketBridge(publisher.address, port=0)
        serving = asyncio.create_task(bridge.run())
        await bridge.serving.wait()
        url = f"ws://127.0.0.1:{bridge.port}/"
        async with client.connect(f"{url}?topic=v1/frame/yard/") as one, client.connect(url) as all_of_them:
            receiving = asyncio.gather(one.recv(), all_of_them.recv())
            seq = 0
            while not receiving.done():
                publisher.write(packet(1, seq=seq, source_id="gate"))
                publisher.write(packet(2, seq=seq, source_id="yard"))
                seq += 1
                await asyncio.sleep(0.005)
            received = tuple(json.loads(text) for text in receiving.result())
        serving.cancel()
        await asyncio.gather(serving, return_exceptions=True)
        return received  # type: ignore[return-value]

    one, first = asyncio.run(asyncio.wait_for(browse(), 20))
    publisher.close()
    assert one["schema"] == schema_of("frame")
    assert one["source_id"] == "yard"
    assert first["engine_id"] == "engine-1"


def test_browsers_receive_an_encrypted_stream_until_the_count() -> None:
    client = pytest.importorskip("websockets.asyncio.client", reason="pip install websockets")
    public, secret = (key.decode() for key in zmq.curve_keypair())
    publisher = ZmqPublisher("tcp://127.0.0.1:*", keys=KeyPair(public, secret))
    publisher.open(RUN)

    async def browse() -> tuple[str, WebSocketBridge]:
        bridge = WebSocketBridge(publisher.address, port=0, topics=["v1/frame/"], count=3, server_key=public)
        serving = asyncio.create_task(bridge.run())
        await bridge.serving.wait()
        async with client.connect(f"ws://127.0.0.1:{bridge.port}/") as browser:
            receiving, seq = asyncio.create_task(browser.recv()), 0
            while not serving.done():
                publisher.write(packet(1, seq=seq))
                publisher.tick()
                seq += 1
                await asyncio.sleep(0.005)
            return str(await receiving), bridge

    text, bridge = asyncio.run(asyncio.wait_for(browse(), 20))
    publisher.close()
    assert json.loads(text)["source_id"] == "gate"
    assert bridge.taken == {"frame": 3}
