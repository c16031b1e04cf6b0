"""The engine's end of a source's coded video, wanted or not, from whichever reader process is running."""

from __future__ import annotations

import logging
import socket
import threading
from collections.abc import Iterator
from contextlib import suppress

from engine.video.coded.outlet import UNWANTED, WANTED
from engine.video.coded.pieces import HEAD, PART_BYTES, PieceReader, VideoFeedError, VideoPiece

logger = logging.getLogger(__name__)
MAX_PER_TURN = 200


class VideoFeed:
    """Connects the reader processes of one source, one after the other, to the thread that publishes video.

    The reader's thread calls `plug` and `unplug`, the publishing thread everything else.

    Attributes:
        is_used: whether it is published; if not, readers get no socket for it.
    """

    def __init__(self, name: str = "") -> None:
        self.is_used = False
        self._name = name
        self._lock = threading.Lock()
        self._next: socket.socket | None = None
        self._socket: socket.socket | None = None
        self._pieces = PieceReader()
        self._is_wanted = False
        self._is_faulty = False

    def plug(self) -> socket.socket | None:
        """Return the end for a new reader process; the caller closes it once the process has it. None if unused.

        Raises:
            OSError: there are no descriptors left.
        """
        if not self.is_used:
            return None
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        ours.setblocking(False)
        self._replace(ours)
        return theirs

    def unplug(self) -> None:
        """Close an end that the publishing thread has not taken; harmless when repeated."""
        self._replace(None)

    def _replace(self, ours: socket.socket | None) -> None:
        with self._lock:
            before, self._next = self._next, ours
        if before is not None:
            before.close()

    def want(self, wanted: bool) -> None:
        """Ask the reader to start or stop sending video."""
        self._is_wanted = wanted
        if self._socket is not None:
            with suppress(OSError):
                self._socket.send(WANTED if wanted else UNWANTED)

    def refresh(self) -> bool:
        """Adopt a new reader process if there is one, and return whether `fileno` has changed."""
        with self._lock:
            following, self._next = self._next, None
        if following is None:
            return False
        if self._socket is not None:
            self._socket.close()
        self._socket, self._pieces = following, PieceReader()
        self.want(self._is_wanted)
        return True

    def fileno(self) -> int | None:
        """Return the descriptor to wait for; None while there is no reader process."""
        return None if self._socket is None else self._socket.fileno()

    def read(self) -> Iterator[VideoPiece]:
        """Yield the pieces that have arrived; a misbehaving reader is ignored from then on."""
        for _ in range(MAX_PER_TURN):
            if self._socket is None:
                return
            try:
                message = self._socket.recv(PART_BYTES + HEAD.size)
                piece = self._pieces.add(message) if message else None
            except BlockingIOError:
                return
            except (OSError, VideoFeedError) as error:
                if not self._is_faulty:
                    self._is_faulty = True
                    logger.warning("%s: its reader sent no valid video: %s", self._name, error)
                message, piece = b"", None
            if not message:
                self._socket.close()
                self._socket = None
                return
            if piece is not None:
                yield piece

    def close(self) -> None:
        """Release everything; harmless when repeated."""
        self.unplug()
        if self._socket is not None:
            self._socket.close()
            self._socket = None
