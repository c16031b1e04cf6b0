"""Demuxing and decoding with PyAV: from an address to frames with their times.

The file source, the thread reader and the reader process use it. The reader process must start fast and stay small, so
nothing here imports numpy, and PyAV is imported only when a video is opened.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Generator, Iterator
from dataclasses import replace
from fractions import Fraction
from itertools import chain
from typing import Any

from engine.clock import NS_PER_S
from engine.video.address import VideoAddress
from engine.video.choose_stream import film_of, first_of
from engine.video.explain import video_errors
from engine.video.frames import DecodedFrame, MissingFrames
from engine.video.hardware import CPU, hardware
from engine.video.pace.pacing import Pace, paced
from engine.video.sizes.displayed import pixel_aspect_of
from engine.video.sizes.image_header import image_size_wh
from engine.video.sizes.limits import FrameTooLargeError, check_size
from engine.video.timing.access_units import CODECS, NO_PARSER, AccessUnit, AccessUnits, Piece
from engine.video.timing.arrivals import Arrivals, Stamp, pts_ns
from engine.video.timing.backlog import Overload
from engine.video.timing.stream_time import MPEG_WRAP_NS, StreamTime
from engine.video.trust import check_certificate, trust_options
from engine.video.uri import is_playlist, scheme_of

logger = logging.getLogger(__name__)
KEYFRAME_WAIT_S = 10.0
DAMAGE_LIMIT_S = 2.0
NO_TIMESTAMPS = 0x80  # AVFMT_NOTIMESTAMPS
_PROOF_ITEMS = 50
Tap = Callable[[Any, Any], None]


def open_container(target: VideoAddress, **extra: Any) -> Any:
    """Return the opened `av` container of a target.

    Raises:
        av.error.FFmpegError, OSError: it cannot be opened; `explain` says why.
    """
    import av

    started_ns = time.monotonic_ns()
    try:
        return av.open(
            _ffmpeg_url(target),
            format=target.format,
            options={
                "max_pixels": str(target.max_pixels),
                **trust_options(target, frozenset(av.formats_available)),
                **target.ffmpeg,
                **({"http_persistent": "0", "http_multiple": "0"} if is_playlist(target.url) else {}),
            },
            timeout=(target.open_timeout_s, target.read_timeout_s),
            **_lenient_metadata(),
            **_fetcher(target),
            **extra,
        )
    except video_errors() as error:  # after a timeout, FFmpeg's error names whatever it was doing
        limit_s = target.open_timeout_s
        if limit_s is not None and time.monotonic_ns() - started_ns >= limit_s * NS_PER_S:
            raise TimeoutError(f"no answer within {limit_s:g} s") from error
        check_certificate(target)
        raise


def _fetcher(target: VideoAddress) -> dict[str, Any]:
    """Return what opens the addresses in a playlist from the network: FFmpeg would not verify their servers."""
    if not is_playlist(target.url):
        return {}
    from engine.video.playlist.fetch import PlaylistFetcher

    return {"io_open": PlaylistFetcher(target)}


def _ffmpeg_url(target: VideoAddress) -> str:
    """Return the address in FFmpeg's form; the prefix `file:` keeps a colon in a path from marking a scheme."""
    is_path = not target.live and target.format is None and not scheme_of(target.url)
    return f"file:{target.url}" if is_path else target.url


def _lenient_metadata() -> dict[str, Any]:
    """Return the option that makes PyAV accept metadata that is not UTF-8; PyAV 19 dropped it and always does."""
    from av.container import Container

    return {"metadata_errors": "replace"} if hasattr(Container, "metadata_errors") else {}


def packets_in_time(container: Any, stream: Any, target: VideoAddress, beside: Any = None) -> Iterator[Any]:
    """Yield the packets of a stream, and of one `beside` it, then an empty one.

    Packets of the other stream do not count as a sign of life: a camera whose image is frozen may keep sending sound.

    Raises:
        av.error.FFmpegError, OSError: it cannot be read, or a live stream sent nothing within its limit.
    """
    limit_ns = target.read_limit_ns
    asked_ns = time.monotonic_ns()
    for packet in container.demux(stream if beside is None else (stream, beside)):
        if target.live and time.monotonic_ns() - asked_ns >= limit_ns:
            # after a timeout, FFmpeg returns the beginning of a frame and would wait again
            raise out_of_time(target)
        yield packet
        if packet.stream is not beside:
            asked_ns = time.monotonic_ns()


def out_of_time(target: VideoAddress) -> TimeoutError:
    """Return the error for a live stream that delivered no frame within its limit."""
    return TimeoutError(f"no frame within {target.read_timeout_s:g} s")


class VideoReader:
    """One opened video; open, read and close it on one thread.

    Attributes:
        tap: called with each packet and its stream before it is decoded; None: no tap.
        packets: number of packets read.
        failure: the error that ended it.

    Raises:
        av.error.FFmpegError, OSError: it cannot be opened; `explain` says why.
    """

    def __init__(self, target: VideoAddress, decoder: str = CPU) -> None:
        self._target = target
        self._decoder = decoder
        self._errors = video_errors()
        extra = {} if decoder == CPU else {"hwaccel": hardware(decoder)}
        self._container = self._open(extra)
        try:
            self._stream = self._prepare()
        except BaseException:
            self._container.close()
            raise
        self._time_base = Fraction(self._stream.time_base)
        self._arrivals = Arrivals(self._time_base)
        self._stream_time = StreamTime(
            self.facts["fps"], MPEG_WRAP_NS if self._container.format.name in ("mpegts", "mpeg") else None
        )
        codec = self._stream.codec_context.name
        self._units = None if self._has_parser or codec not in CODECS else AccessUnits(codec)
        self._overload = Overload()
        self._is_segmented = target.live and is_playlist(target.url)
        self._is_overloaded = False
        self._is_clean = not target.live
        self._ahead: list[DecodedFrame | MissingFrames] = []
        self._items = self._run()  # holds a reference to this reader until it ends
        self._decoded = 0
        self._lost_ns: tuple[int, int] | None = None  # the first and the latest loss since the last whole frame
        self._whole_ns = 0
        self._unit_ns = time.monotonic_ns()
        self.packets = 0
        self.failure: Exception | None = None
        self.tap: Tap | None = None

    def _open(self, extra: dict[str, Any]) -> Any:
        """Open the video; reopen it with FFmpeg's parser if the options disable the parser but the codec needs it."""
        container = open_container(self._target, **extra)
        flags = self._target.ffmpeg.get("fflags", "")
        names = {s.codec_context.name for s in container.streams.video if s.codec_context is not None}
        self._has_parser = NO_PARSER not in flags or not names <= {*CODECS, "mjpeg"}
        if NO_PARSER not in flags or not self._has_parser:
            return container
        container.close()
        options = {**self._target.ffmpeg, "fflags": flags.replace(NO_PARSER, "")}
        return open_container(replace(self._target, ffmpeg=options), **extra)

    def _prepare(self) -> Any:
        """Choose the video stream and set how it is decoded."""
        streams = [stream for stream in self._container.streams.video if stream.codec_context is not None]
        if not streams:
            raise ValueError("it has no video stream that can be decoded")
        stream = first_of(streams) if self._target.live else film_of(streams)
        context = stream.codec_context
        # FFmpeg checks the limit before it allocates a frame; "explode" rejects a truncated JPEG, which would turn grey
        whole = {"err_detect": "explode"} if context.name == "mjpeg" else {}
        context.options = {"max_pixels": str(self._target.max_pixels), **whole}
        if self._target.live:
            context.flags |= 1 << 19  # AV_CODEC_FLAG_LOW_DELAY
            stream.thread_type = "NONE"  # frame threads hold back frames, slice threads hide damage (H.264)
            context.thread_count = 1
        else:
            stream.thread_type = "AUTO"
        if self._target.keyframes_only:
            context.skip_frame = "NONKEY"
        return stream

    @property
    def facts(self) -> dict[str, Any]:
        """Width, height, fps, frame_count, codec, decoder, pixel_aspect and duration_s, None where unknown."""
        context = self._stream.codec_context
        rate = self._rate()
        duration, aspect = self._container.duration, pixel_aspect_of(self._stream)
        return {
            "width": context.width or None,
            "height": context.height or None,
            "fps": float(rate) if rate else None,
            "frame_count": self._stream.frames or None,
            "codec": context.name,
            "decoder": self._decoder,
            "pixel_aspect": float(aspect) if aspect else None,
            "duration_s": duration / 1e6 if duration and duration > 0 else None,
        }

    def _rate(self) -> Fraction | None:
        """Return the declared frame rate; without timestamps, the codec's rate and not FFmpeg's default of 25."""
        stream, flags = self._stream, getattr(self._container.format, "flags", 0)
        rates = (stream.average_rate, stream.guessed_rate)
        return next((rate for rate in (reversed(rates) if flags & NO_TIMESTAMPS else rates) if rate), None)

    @property
    def indexed_packets(self) -> int | None:
        """Packets listed in the index, None if it is not exact: only that of MP4 and MOV is.

        Edit lists, written when a file is cut without re-encoding, hide parts of it; FFmpeg's index omits them.
        """
        if not str(self._container.format.name).startswith("mov"):
            return None
        entries = getattr(self._stream, "index_entries", None)
        return len(entries) if entries is not None else self._stream.frames or None

    def frames(self) -> Iterator[DecodedFrame | MissingFrames]:
        """Yield decoded frames and the damage between them until the end; `failure` holds the error, if any."""
        items = chain(self._ahead, self._items)
        return paced(items, Pace(catches_up=self.facts["duration_s"] is None)) if self._is_segmented else items

    def delivers(self) -> bool:
        """Return whether the decoder really delivers a frame; `frames` yields what this call has read."""
        for item in self._items:
            self._ahead.append(item)
            if isinstance(item, DecodedFrame):
                return True
            if len(self._ahead) >= _PROOF_ITEMS:
                break
        return False

    def _run(self) -> Generator[DecodedFrame | MissingFrames, None, None]:
        opened_ns = self._whole_ns = time.monotonic_ns()
        for packet in self._packets():
            if self._is_hopeless():
                return
            if self.tap is not None and packet is not None:
                self.tap(packet, self._stream)
            if self._is_clean or packet is None or packet.is_keyframe or self._cannot_wait(opened_ns):
                self._is_clean, self._is_overloaded = True, False
                try:
                    yield from self._decode(packet)
                except FrameTooLargeError as error:
                    self.failure = error
                    return
            elif self._is_overloaded:
                yield MissingFrames(1, "stale")
            elif self._decoded and packet.size:  # before the first keyframe there is nothing to lose
                self._note_loss()
                yield MissingFrames(1, "corrupt")

    def _is_hopeless(self) -> bool:
        """Return whether only damage has arrived for a while: a new connection starts with headers and a keyframe."""
        first_ns, latest_ns = self._lost_ns or (0, 0)  # a pause after a loss is not damage
        if not self._target.live or latest_ns - first_ns <= DAMAGE_LIMIT_S * NS_PER_S:
            return False
        lost_s = (time.monotonic_ns() - self._whole_ns) / NS_PER_S
        self.failure = ValueError(f"nothing could be decoded for {lost_s:.1f} s")
        return True

    def _cannot_wait(self, opened_ns: int) -> bool:
        """Return whether to decode without a keyframe: cameras with gradual refresh never send one."""
        waited_s = (time.monotonic_ns() - opened_ns) / NS_PER_S
        return self._target.damage == "keep" or (not self._decoded and waited_s > KEYFRAME_WAIT_S)

    def _packets(self) -> Iterator[Any]:
        """Yield packets, then the empty ones that flush the decoder, even after a read error."""
        try:
            asked_ns = time.monotonic_ns()
            for packet in packets_in_time(self._container, self._stream, self._target):
                now_ns = time.monotonic_ns()
                if self._units is not None:
                    yield from self._whole(self._units, packet, now_ns - asked_ns, now_ns)
                elif packet.size:
                    self._note_arrival(packet, now_ns - asked_ns, now_ns)
                    yield packet
                else:
                    yield packet
                asked_ns = time.monotonic_ns()
        except self._errors as error:
            self.failure = error.with_traceback(None)  # a traceback would keep this reader and its decoder alive
            if not self._target.live:
                yield None

    def _whole(self, units: AccessUnits, packet: Any, waited_ns: int, now_ns: int) -> Iterator[Any]:
        """Yield the coded images that a packet completes."""
        if packet.size:
            found = units.add(Piece(bytes(packet), packet.pts, waited_ns, now_ns, packet.is_corrupt, packet))
        else:
            found = units.rest()
        if found or not packet.size:
            self._unit_ns = now_ns
        elif self._target.live and now_ns - self._unit_ns >= self._target.read_limit_ns:
            raise out_of_time(self._target)  # the camera keeps sending small pieces, but never a whole frame
        for unit in found:
            self._note_arrival(unit.last, unit.waited_ns, unit.arrived_ns)
            yield _packet_from(unit)
        if not packet.size:
            yield packet

    def _note_arrival(self, packet: Any, waited_ns: int, arrived_ns: int) -> None:
        """Record when a live packet arrived; if decoding cannot keep up, skip to the next keyframe."""
        self.packets += 1
        if not self._target.live or self._is_segmented:
            return
        late_ns = self._arrivals.note(packet, waited_ns, arrived_ns)
        if self._overload.is_behind(time.monotonic_ns(), late_ns) and self._is_clean:
            logger.info("decoding is %.1f s behind the camera: skipping to the next keyframe", late_ns / NS_PER_S)
            self._is_clean, self._is_overloaded = False, True

    def _decode(self, packet: Any) -> Iterator[DecodedFrame | MissingFrames]:
        if packet is not None and packet.is_corrupt and self._target.damage != "keep":
            yield self._damage()
            return
        self._decoded += 1
        try:
            frames = self._stream.codec_context.decode(packet)
        except self._errors as error:
            logger.debug("a packet cannot be decoded: %s", error)
            self._check_claim(packet)
            yield self._damage()
            return
        for frame in frames:
            check_size(frame.width, frame.height, self._target.max_pixels)
            if frame.is_corrupt and self._target.damage != "keep":
                yield self._damage()
            else:
                self._lost_ns, self._whole_ns = None, time.monotonic_ns()
                yield DecodedFrame(frame, self._stamp(frame))

    def _check_claim(self, packet: Any) -> None:
        """Raise `FrameTooLargeError` if a JPEG could not be decoded because it claims too large a size."""
        if self._stream.codec_context.name == "mjpeg" and packet is not None:
            size_wh = image_size_wh(bytes(packet))
            if size_wh is not None:
                check_size(*size_wh, self._target.max_pixels)

    def _damage(self) -> MissingFrames:
        self._note_loss()
        self._stream_time.skip(1)
        if self._target.damage == "until_keyframe":
            self._is_clean = False
        return MissingFrames(1, "corrupt")

    def _note_loss(self) -> None:
        now_ns = time.monotonic_ns()
        self._lost_ns = (self._lost_ns[0] if self._lost_ns else now_ns, now_ns)

    def _stamp(self, frame: Any) -> Stamp:
        if self._target.live:
            return self._arrivals.stamp(frame.pts)
        duration_ns = pts_ns(getattr(frame, "duration", None), self._time_base)  # PyAV 16 and later
        stream_ns = self._stream_time.of(pts_ns(frame.pts, self._time_base), duration_ns)
        return Stamp(time.monotonic_ns(), time.time_ns(), stream_ns, "file")

    def close(self) -> None:
        """Close the video; harmless when repeated."""
        self._items.close()
        self._container.close()


def _packet_from(unit: AccessUnit) -> Any:
    """Return a coded image as a packet for the decoder."""
    from av.packet import Packet

    last: Any = unit.last
    packet = Packet(bytes(unit.data))
    packet.pts, packet.dts, packet.time_base = last.pts, last.dts, last.time_base
    packet.is_keyframe, packet.is_corrupt = unit.is_keyframe, unit.is_corrupt
    return packet
