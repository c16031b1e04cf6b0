"""Media servers that attack whoever pushes video to them, over RTSP and RTMP. Every loop ends."""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field

LONGEST_S = 60.0
FLOOD = bytes(64 * 1024)
STARTS = {
    "OPTIONS": "Public: OPTIONS, ANNOUNCE, SETUP, RECORD, TEARDOWN\r\n",
    "ANNOUNCE": "",
    "SETUP": "Transport: RTP/AVP/TCP;unicast;interleaved=0-1;mode=record\r\nSession: 7\r\n",
    "RECORD": "Session: 7\r\n",
}


@dataclass
class Peer:
    """One connection of a client to a hostile server.

    Attributes:
        socket: to the client.
        over: set when the server must end; every loop checks it.
        heard: the bytes that the client sent so far.
    """

    socket: socket.socket
    over: threading.Event
    heard: bytearray

    def hears(self) -> bytes:
        """Return what arrives next; empty at the end."""
        data = self.socket.recv(65536)
        self.heard += data
        return data

    def floods(self, head: bytes, block: bytes = FLOOD) -> None:
        """Send `head`, then `block` without end."""
        self.socket.sendall(head)
        until = time.monotonic() + LONGEST_S
        while time.monotonic() < until and not self.over.is_set():
            self.socket.sendall(block)

    def drips(self, data: bytes, every_s: float = 0.05) -> None:
        """Send bytes one by one."""
        for at in range(len(data)):
            if self.over.wait(every_s):
                return
            self.socket.sendall(data[at : at + 1])

    def holds(self) -> None:
        """Do nothing, and read nothing."""
        self.over.wait(LONGEST_S)


@dataclass
class HostileServer:
    """A server whose every connection is handled by `play`.

    Attributes:
        port: where it listens.
        heard: what each client sent.
    """

    play: Callable[[Peer], None]
    port: int = 0
    heard: list[bytearray] = field(default_factory=list)
    over: threading.Event = field(default_factory=threading.Event)


@contextmanager
def hostile_server(play: Callable[[Peer], None]) -> Iterator[HostileServer]:
    """Serve until the block ends."""
    server = HostileServer(play)

    def handle(connection: socket.socket) -> None:
        heard = bytearray()
        server.heard.append(heard)
        with connection, suppress(OSError, ValueError):
            play(Peer(connection, server.over, heard))

    def accept(listener: socket.socket) -> None:
        while not server.over.is_set():
            with suppress(TimeoutError, OSError):
                connection, _ = listener.accept()
                connection.settimeout(LONGEST_S)
                threading.Thread(target=handle, args=(connection,), daemon=True).start()

    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(0.1)
        server.port = listener.getsockname()[1]
        thread = threading.Thread(target=accept, args=(listener,), daemon=True)
        thread.start()
        try:
            yield server
        finally:
            server.over.set()
            thread.join()


def answers(peer: Peer, until: str = "", also: Callable[[str, str], bytes | None] = lambda method, cseq: None) -> None:
    """Answer RTSP requests as a server that records does, until the request `until` has been answered.

    Args:
        peer: the client.
        until: a method; empty: for as long as the client asks.
        also: returns another answer to a method and its CSeq; None: the usual one.
    """
    text = b""
    while data := peer.hears():
        text += data
        while b"\r\n\r\n" in text:
            head, _, rest = text.partition(b"\r\n\r\n")
            lines = head.decode("latin-1").split("\r\n")
            fields = {line.partition(":")[0].lower(): line.partition(":")[2].strip() for line in lines[1:]}
            length = int(fields.get("content-length", "0"))
            if len(rest) < length:
                break
            text = rest[length:]
            method, cseq = lines[0].partition(" ")[0], fields.get("cseq", "1")
            answer = also(method, cseq)
            if answer is None:
                answer = f"RTSP/1.0 200 OK\r\nCSeq: {cseq}\r\n{STARTS.get(method, '')}\r\n".encode()
            peer.socket.sendall(answer)
            if method == until:
                return


def shakes_hands(peer: Peer) -> None:
    """Answer the handshake of RTMP."""
    begun = b""
    while len(begun) < 1537:
        data = peer.hears()
        if not data:
            raise ValueError("the client left")
        begun += data
    peer.socket.sendall(b"\x03" + bytes(8) + os.urandom(1528) + begun[1:1537])


def of_method(method: str, answer: Callable[[str], bytes]) -> Callable[[Peer], None]:
    """Return a play: RTSP with another answer to one method, which gets the CSeq."""

    def play(peer: Peer) -> None:
        answers(peer, also=lambda asked, cseq: answer(cseq) if asked == method else None)

    return play


def chunks_that_never_end(peer: Peer) -> None:
    """Begin a message of 16 MB on each channel of RTMP, which the client must keep."""
    size = bytes.fromhex("02000000000004010000000000800000")  # chunks of 8 MB from now on
    peer.socket.sendall(size)
    for channel in range(64, 60_000):
        if peer.over.is_set():
            return
        number = channel - 64
        head = bytes([1, number & 255, number >> 8]) + bytes.fromhex("000000ffffff0900000000")
        peer.socket.sendall(head + bytes(8_388_608))


def refuses(cseq: str) -> bytes:
    """Return an answer that asks for a password."""
    asks = 'WWW-Authenticate: Digest realm="a", nonce="b"'
    return f"RTSP/1.0 401 Unauthorized\r\nCSeq: {cseq}\r\n{asks}\r\n\r\n".encode()


def records(then: Callable[[Peer], None]) -> Callable[[Peer], None]:
    """Return a play: RTSP until the video begins, and then something else."""

    def play(peer: Peer) -> None:
        answers(peer, until="RECORD")
        then(peer)

    return play


def after_handshake(then: Callable[[Peer], None]) -> Callable[[Peer], None]:
    """Return a play: the handshake of RTMP, and then something else."""

    def play(peer: Peer) -> None:
        shakes_hands(peer)
        then(peer)

    return play


OK = b"RTSP/1.0 200 OK\r\nCSeq: 1\r\n"
PLAYS: dict[str, tuple[str, Callable[[Peer], None]]] = {
    "says nothing": ("rtsp", Peer.holds),
    "hangs up": ("rtsp", lambda peer: None),
    "drips": ("rtsp", lambda peer: peer.drips(OK + b"X-Padding: " + b"x" * 2000)),
    "garbage": ("rtsp", lambda peer: peer.floods(b"", os.urandom(65536))),
    "endless line": ("rtsp", lambda peer: peer.floods(OK + b"X: ", b"x" * 65536)),
    "endless head": ("rtsp", lambda peer: peer.floods(OK, b"X-Padding: x\r\n" * 4000)),
    "endless body": ("rtsp", lambda peer: peer.floods(OK + b"Content-Length: 2147483000\r\n\r\n")),
    "refuses every password": ("rtsp", of_method("ANNOUNCE", refuses)),
    "records without reading": ("rtsp", records(Peer.holds)),
    "floods what records": ("rtsp", records(lambda peer: peer.floods(b"", b"$\0\xff\xff" + bytes(65535)))),
    "RTMP: says nothing": ("rtmp", Peer.holds),
    "RTMP: garbage": ("rtmp", after_handshake(lambda peer: peer.floods(b"", os.urandom(65536)))),
    "RTMP: drips": ("rtmp", lambda peer: peer.drips(b"\x03" + bytes(3000))),
    "RTMP: chunks that never end": ("rtmp", after_handshake(chunks_that_never_end)),
}
"""By name: the protocol, and what the server does."""
