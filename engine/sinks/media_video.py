"""Copies the coded video of cameras from their readers to the media socket."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping

import msgspec
import zmq

from engine.data import Run
from engine.sinks.publisher_sockets import FanOut
from engine.video.coded.feed import VideoFeed
from engine.video.coded.pieces import VideoPiece
from engine.wire import topic_for
from engine.wire.media import VideoMessage


class VideoCopy:
    """Forwards coded video; used only by the media thread.

    Args:
        fan_out: the media socket.
        run: facts of the run.
    """

    def __init__(self, fan_out: FanOut, run: Run) -> None:
        self._fan_out, self._run = fan_out, run
        self._feeds: Mapping[str, VideoFeed] = {}
        self._wanted: set[str] = set()
        self._inits: dict[str, VideoPiece] = {}
        self._seq: Counter[str] = Counter()
        self._starts: Counter[str] = Counter()
        self._shown_ns: dict[str, int] = {}

    def register(self, poller: zmq.Poller, feeds: Mapping[str, VideoFeed], wanted: set[str]) -> None:
        """Tell the readers which video is wanted, and let a poller wake up for their data."""
        for name in self._feeds.keys() - feeds.keys():
            self._feeds[name].close()
        changed = wanted ^ self._wanted
        for name, feed in feeds.items():
            feed.refresh()
            if name in changed:
                feed.want(name in wanted)
                self._inits.pop(name, None)
            fd = feed.fileno()
            if fd is not None:
                poller.register(fd, zmq.POLLIN)
        self._feeds, self._wanted = feeds, set(wanted)

    def publish(self, utc_ns: Callable[[], int]) -> None:
        """Forward what has arrived. The init segment goes out again before each keyframe, for readers that join."""
        for name, feed in self._feeds.items():
            for piece in feed.read():
                if piece.is_init:
                    self._starts[name] += piece.pts_ns <= self._shown_ns.get(name, -1)
                    self._inits[name] = piece
                    continue
                self._shown_ns[name] = piece.pts_ns
                init = self._inits.get(name)
                if name not in self._wanted or init is None:
                    continue
                for each in (init, piece) if piece.is_key else (piece,):
                    self._send(name, each, init, utc_ns())

    def _send(self, name: str, piece: VideoPiece, init: VideoPiece, now_utc_ns: int) -> None:
        topic = topic_for("video", name)
        message = VideoMessage(
            engine_id=self._run.engine_id,
            run_epoch=self._run.run_epoch,
            source_id=name,
            seq=self._seq[name],
            published_utc_ns=now_utc_ns,
            codec=init.codec,
            init=piece.is_init,
            key=piece.is_key,
            pts_ns=piece.pts_ns,
            t0_ns=init.t0_ns,
            start=self._starts[name],
            captured_utc_ns=piece.captured_utc_ns,
            width=init.size_wh[0],
            height=init.size_wh[1],
        )
        self._seq[name] += 1
        self._fan_out.send("video", topic.encode(), msgspec.json.encode(message), piece.data)

    def close(self) -> None:
        """Release the feeds."""
        for feed in self._feeds.values():
            feed.close()
