"""A recorded stream as an append-only file, readable up to the last complete record after any crash.

Layout, little-endian:

    header   8 bytes magic, u32 length of the dictionary, the dictionary, u32 CRC-32 of it
    record   4 bytes mark, u32 body length, i64 received_utc_ns, u16 topic length, u8 flags, topic, body, u32 CRC-32
             (of everything after the mark)

Bodies are deflated with the dictionary if that makes them shorter. Times increase, and every record begins with the
mark, so that a reader finds a time by binary search, and continues after a damaged part.
"""

from __future__ import annotations

import mmap
import os
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from engine.errors import SinkError, SourceError
from engine.paths import FILE_MODE, how_to_write

if TYPE_CHECKING:
    from typing_extensions import Self

MAGIC = b"FWREC\x01\r\n"
MARK = b"\xf5REC"
HEAD = struct.Struct("<IqHB")
CRC = struct.Struct("<I")
DEFLATED = 1
DEFLATE_LEVEL = 4
MAX_BODY_BYTES = 64 * 1024 * 1024
MAX_CHECKED_SHARE = 4  # bytes searched in vain, in multiples of the file size; more is an attack in quadratic time
MAX_DICTIONARY_BYTES = 32 * 1024
DICTIONARY = (
    b'"captured_source":"rtcp","captured_source":"arrival","captured_source":"file","captured_error_ns":null,'
    b'"interval_s":1.0,"uptime_s":,"frame_seq":{"overflows":{},"endpoints":{}'
    b'{"schema":"framewire.frame/1.0","engine_id":"","run_epoch":1,"source_id":"","stream_epoch":0,"seq":,"frame_id":,'
    b'"captured_utc_ns":17,"pts_ns":null,"published_utc_ns":17,"latency_ms":,"stage_ms":{"queue":0.,"preprocess":0.,'
    b'"infer":1,"postprocess":0.,"track":0.},"width":1920,"height":1080,"dropped":{},"model":"yolo11n","objects":'
    b'[{"track_id":1,"class_id":0,"class_name":"person","score":0.8,"xyxy":[1.0,2.0,3.0,4.0],"age":1,"predicted":true}'
    b',{"track_id":2,"class_id":2,"class_name":"car","score":0.9,"xyxy":[]}]}'
)


@dataclass(frozen=True, slots=True)
class Record:
    """One message as it was received.

    Attributes:
        received_utc_ns: wall clock of the recorder.
        topic: first part.
        body: second part.
    """

    received_utc_ns: int
    topic: bytes
    body: bytes


class RecordingWriter:
    """Appends records. Each is handed to the system in one piece, so that a killed recorder loses none of its records.

    An existing recording is continued after its last complete record.

    Args:
        path: the file.

    Raises:
        SinkError: it cannot be written, or is not a recording.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.records = 0
        self.bytes = 0
        self._last_utc_ns = 0
        try:
            self._file = os.open(
                self.path, os.O_RDWR | os.O_CREAT | os.O_APPEND | getattr(os, "O_BINARY", 0), FILE_MODE
            )
        except OSError as error:
            raise SinkError(f"cannot write {self.path}: {error.strerror}: {how_to_write(error)}") from error
        try:
            self._continue()
        except (SinkError, OSError):
            os.close(self._file)
            raise

    def write(self, received_utc_ns: int, topic: bytes, body: bytes) -> None:
        """Append one record; a time before the last one is raised to it.

        Raises:
            SinkError: the disk is full; the file ends with the last complete record.
        """
        self._last_utc_ns = max(self._last_utc_ns, received_utc_ns)
        deflater = zlib.compressobj(DEFLATE_LEVEL, zlib.DEFLATED, -zlib.MAX_WBITS, zdict=DICTIONARY)
        packed = deflater.compress(body) + deflater.flush()
        flags, payload = (DEFLATED, packed) if len(packed) < len(body) else (0, body)
        content = HEAD.pack(len(payload), self._last_utc_ns, len(topic), flags) + topic + payload
        self._append(MARK + content + CRC.pack(zlib.crc32(content)))
        self.records += 1

    def close(self) -> None:
        """Sync everything to disk; harmless when repeated."""
        if self._file >= 0:
            os.fsync(self._file)
            os.close(self._file)
            self._file = -1

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _append(self, data: bytes) -> None:
        end = os.fstat(self._file).st_size
        try:
            written = os.write(self._file, data)
        except OSError as error:
            raise SinkError(f"cannot write {self.path}: {error.strerror}: free some space") from error
        if written != len(data):
            os.ftruncate(self._file, end)
            raise SinkError(f"cannot write {self.path}: only {written} of {len(data)} bytes taken: free some space")
        self.bytes += written

    def _continue(self) -> None:
        """Write the header of a new file, or truncate an old one after its last complete record."""
        size = os.fstat(self._file).st_size
        header = _header()
        if size <= len(header) and header.startswith(os.pread(self._file, len(header), 0)):
            os.ftruncate(self._file, 0)
            self._append(header)
            return
        try:
            with Recording(self.path) as recording:
                for record in recording:
                    self._last_utc_ns = record.received_utc_ns
                end = recording.end
        except SourceError as error:
            raise SinkError(f"{self.path} exists and is not a recording: choose another name ({error})") from error
        os.ftruncate(self._file, end)


class Recording:
    """Reads a recording in order; damaged parts are skipped and counted.

    Args:
        path: the file.

    Attributes:
        end: offset after the last complete record read so far.
        skipped_bytes: bytes skipped because they belong to no complete record.

    Raises:
        SourceError: the file cannot be read or is not a recording.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.skipped_bytes = 0
        self._checked_in_vain = 0
        try:
            with self.path.open("rb") as file:
                self._data: mmap.mmap | bytes = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        except OSError as error:
            raise SourceError(f"cannot read {self.path}: {error.strerror}: give a file made by record") from error
        except ValueError:
            self._data = b""  # mmap refuses empty files
        self._dictionary = self._read_header()
        self._begin = self.end = len(MAGIC) + CRC.size + len(self._dictionary) + CRC.size

    def __iter__(self) -> Iterator[Record]:
        """Yield all complete records from the beginning."""
        return self._records(self._begin)

    def since(self, utc_ns: int) -> Iterator[Record]:
        """Yield the records received at `utc_ns` or later; finds the first by binary search."""
        low, high = self._begin, len(self._data)
        while low < high:
            middle = (low + high) // 2
            found = self._next(middle)
            if found is None or found[0].received_utc_ns >= utc_ns:
                high = middle
            else:
                low = found[1]
        return self._records(low)

    @property
    def first_utc_ns(self) -> int | None:
        """Time when the first record was received, None if there is none."""
        found = self._next(self._begin)
        return None if found is None else found[0].received_utc_ns

    def close(self) -> None:
        """Close the file."""
        if isinstance(self._data, mmap.mmap):
            self._data.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _records(self, offset: int) -> Iterator[Record]:
        while (found := self._next(offset)) is not None:
            record, after, at = found
            self.skipped_bytes += at - offset
            self.end = offset = after
            yield record
        self.skipped_bytes += len(self._data) - offset

    def _next(self, offset: int) -> tuple[Record, int, int] | None:
        """Return the first complete record at or after an offset, its end and its start."""
        at = self._data.find(MARK, offset)
        while at >= 0:
            if self._checked_in_vain > MAX_CHECKED_SHARE * len(self._data):
                return None
            found = self._parse(at)
            if found is not None:
                return (*found, at)
            at = self._data.find(MARK, at + 1)
        return None

    def _parse(self, at: int) -> tuple[Record, int] | None:
        start = at + len(MARK)
        if start + HEAD.size > len(self._data):
            return None
        length, utc_ns, topic_length, flags = HEAD.unpack_from(self._data, start)
        topic_at = start + HEAD.size
        body_at = topic_at + topic_length
        after = body_at + length + CRC.size
        if length > MAX_BODY_BYTES or after > len(self._data):
            return None
        content = self._data[start : after - CRC.size]
        if CRC.unpack_from(self._data, after - CRC.size)[0] == zlib.crc32(content):
            body = self._inflated(self._data[body_at : body_at + length], flags)
            if body is not None:
                return Record(utc_ns, self._data[topic_at:body_at], body), after
        self._checked_in_vain += len(content)
        return None

    def _inflated(self, body: bytes, flags: int) -> bytes | None:
        if not flags & DEFLATED:
            return body
        try:
            inflater = zlib.decompressobj(-zlib.MAX_WBITS, zdict=self._dictionary)
            inflated = inflater.decompress(body, MAX_BODY_BYTES)
        except zlib.error:
            return None
        return inflated if inflater.eof else None

    def _read_header(self) -> bytes:
        data, at = self._data, len(MAGIC)
        if data[:at] != MAGIC or len(data) < at + CRC.size:
            raise SourceError(f"{self.path} is not a recording: give a file made by record")
        (length,) = CRC.unpack_from(data, at)
        begin, end = at + CRC.size, at + CRC.size + min(length, MAX_DICTIONARY_BYTES)
        dictionary = data[begin:end]
        if data[end : end + CRC.size] != _crc(dictionary):
            raise SourceError(f"{self.path} is a recording with a broken header: nothing in it can be read")
        return dictionary


def _crc(data: bytes) -> bytes:
    return CRC.pack(zlib.crc32(data))


def _header() -> bytes:
    return MAGIC + CRC.pack(len(DICTIONARY)) + DICTIONARY + _crc(DICTIONARY)
