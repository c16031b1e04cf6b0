"""What libzmq would not send: raw ZMTP 3.0 frames, and bytes of other protocols."""

from __future__ import annotations

import socket
import struct
from types import TracebackType

GREETING = b"\xff" + bytes(8) + b"\x7f\x03\x00" + b"NULL".ljust(20, b"\0") + bytes(32)
WAIT_S = 5.0


def zmtp_frame(body: bytes, *, more: bool = False, command: bool = False) -> bytes:
    """Return a frame of ZMTP 3.0."""
    flags = int(more) | 4 * int(command)
    if len(body) > 255:
        return bytes([flags | 2]) + struct.pack(">Q", len(body)) + body
    return bytes([flags, len(body)]) + body


def zmtp_1_frame(body: bytes, *, more: bool) -> bytes:
    """Return a frame of ZMTP 1.0, which needs no greeting."""
    length = len(body) + 1
    head = bytes([length]) if length < 255 else b"\xff" + struct.pack(">Q", length)
    return head + bytes([int(more)]) + body


def ready(kind: bytes) -> bytes:
    """Return the command that ends the handshake of a plain peer whose socket is of a kind."""
    parts = ((b"Socket-Type", kind), (b"Identity", b""))
    meta = b"".join(bytes([len(k)]) + k + struct.pack(">I", len(v)) + v for k, v in parts)
    return zmtp_frame(b"\x05READY" + meta, command=True)


class RawPeer:
    """A connection that has shaken hands as a plain ZMTP 3.0 peer. Raises `OSError` if it is refused."""

    def __init__(self, port: int, kind: bytes) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), WAIT_S)
        self.socket.sendall(GREETING)
        while len(self.socket.recv(64)) == 0:
            raise ConnectionError("closed in the greeting")
        self.socket.sendall(ready(kind))

    def send(self, data: bytes) -> None:
        """Send bytes as they are."""
        self.socket.sendall(data)

    def __enter__(self) -> RawPeer:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.socket.close()
