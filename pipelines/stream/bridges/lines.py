"""Bridges to text: JSON lines for other programs, CSV and Parquet for analysts."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import IO, Any, BinaryIO

from engine.errors import SinkError
from engine.optional import require
from engine.paths import how_to_write
from engine.wire import FrameMessage, Message
from pipelines.stream.adapters.forms import Form, native

COLUMNS = (
    "source_id",
    "frame_id",
    "captured_utc_ns",
    "pts_ns",
    "track_id",
    "class_id",
    "class_name",
    "score",
    "x1",
    "y1",
    "x2",
    "y2",
    "age",
    "predicted",
    "run_epoch",
    "seq",
)
PARQUET_ROWS = 8192


def object_rows(message: FrameMessage) -> list[tuple[Any, ...]]:
    """Return one row of `COLUMNS` per object, ready for `pandas.DataFrame(rows, columns=COLUMNS)`."""
    head = (message.source_id, message.frame_id, message.captured_utc_ns, message.pts_ns)
    tail = (message.run_epoch, message.seq)
    return [
        (*head, o.track_id, o.class_id, o.class_name, o.score, *o.xyxy, o.age, o.predicted, *tail)
        for o in message.objects
    ]


class NdjsonOutput:
    """Writes one line per message to a binary stream such as `sys.stdout.buffer`: JSON, or the output of `form`."""

    def __init__(self, stream: BinaryIO, form: Form = native) -> None:
        self._stream = stream
        self._form = form

    def open(self) -> None:
        """Do nothing: the stream is open."""

    def send(self, message: Message) -> None:
        """Write one line and flush it. Raises `SinkError`."""
        try:
            for body in self._form(message):
                self._stream.write(body + b"\n")
            self._stream.flush()
        except OSError as error:
            raise SinkError(f"cannot write the lines: {error.strerror}: the reader is gone") from error

    def turn(self) -> None:
        """Do nothing: there is no periodic work."""

    def close(self) -> None:
        """Do nothing: the stream belongs to the caller."""


class CsvOutput:
    """Writes one CSV row per object, with `COLUMNS` in the first line; replaces an existing file."""

    def __init__(self, path: str | Path) -> None:
        self._path = Path(path)
        self._file: IO[str] | None = None
        self._writer: Any = None

    def open(self) -> None:
        """Create the file.

        Raises:
            SinkError: it cannot be written.
        """
        try:
            self._file = self._path.open("w", newline="", encoding="utf-8")
        except OSError as error:
            raise _unwritable(self._path, error) from error
        self._writer = csv.writer(self._file)
        self._writer.writerow(COLUMNS)

    def send(self, message: Message) -> None:
        """Write the objects of a frame; other kinds have no rows. Raises `SinkError`."""
        if isinstance(message, FrameMessage) and self._writer is not None:
            try:
                self._writer.writerows(object_rows(message))
            except OSError as error:
                raise _unwritable(self._path, error) from error

    def turn(self) -> None:
        """Do nothing: there is no periodic work."""

    def close(self) -> None:
        """Close the file."""
        if self._file is not None:
            self._file.close()
            self._file = None


class ParquetOutput:
    """Writes one Parquet row per object, in row groups of about 8000; replaces an existing file. Needs pyarrow.

    The file is readable only after `close`, because Parquet stores its index at the end.
    """

    def __init__(self, path: str | Path) -> None:
        self._path = Path(path)
        self._rows: list[tuple[Any, ...]] = []
        self._arrow: Any = None
        self._writer: Any = None

    def open(self) -> None:
        """Create the file.

        Raises:
            SinkError: it cannot be written.
            MissingDependencyError: pyarrow is not installed.
        """
        self._arrow = require("pyarrow", extra="parquet")
        try:
            self._writer = require("pyarrow.parquet", extra="parquet").ParquetWriter(str(self._path), self._schema())
        except OSError as error:
            raise _unwritable(self._path, error) from error

    def send(self, message: Message) -> None:
        """Add the objects of a frame; other kinds have no rows."""
        if isinstance(message, FrameMessage):
            self._rows += object_rows(message)
            if len(self._rows) >= PARQUET_ROWS:
                self._flush()

    def turn(self) -> None:
        """Do nothing: there is no periodic work."""

    def close(self) -> None:
        """Write the remaining rows and the index."""
        if self._writer is not None:
            self._flush()
            self._writer.close()
            self._writer = None

    def _flush(self) -> None:
        if not self._rows:
            return
        columns = dict(zip(COLUMNS, zip(*self._rows, strict=True), strict=True))
        try:
            self._writer.write_table(self._arrow.table(columns, schema=self._schema()))
        except OSError as error:
            raise _unwritable(self._path, error) from error
        self._rows.clear()

    def _schema(self) -> Any:
        pa = self._arrow
        kinds = {"source_id": pa.string(), "class_name": pa.string(), "predicted": pa.bool_()}
        kinds |= dict.fromkeys(("score", "x1", "y1", "x2", "y2"), pa.float32())
        return pa.schema([(name, kinds.get(name, pa.int64())) for name in COLUMNS])


def _unwritable(path: Path, error: OSError) -> SinkError:
    return SinkError(f"cannot write {path}: {error.strerror or error}: {how_to_write(error)}")
