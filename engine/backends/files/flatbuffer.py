"""Reads tables of FlatBuffers, the format of TensorFlow Lite; every offset is checked before it is used.

Layout: "FlatBuffer Internals" in the documentation of google/flatbuffers. A table begins with the distance back to its
vtable, which lists the distance of each field from the table, 0 for one that is not stored.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass

MAX_TEXT = 4096


@dataclass(frozen=True, slots=True)
class Table:
    """A table in a buffer. Methods raise `ValueError` for anything outside of the buffer.

    Attributes:
        data: the whole buffer.
        at: where the table begins.
    """

    data: memoryview
    at: int

    def _field(self, number: int) -> int:
        """Return the position of a field, 0 if it is not stored."""
        vtable = self.at - _number(self.data, self.at, "<i")
        if 4 + 2 * number >= _number(self.data, vtable, "<H"):
            return 0
        distance = _number(self.data, vtable + 4 + 2 * number, "<H")
        return self.at + distance if distance else 0

    def byte(self, number: int, default: int = 0) -> int:
        """Return a field of one byte with a sign."""
        at = self._field(number)
        return _number(self.data, at, "<b") if at else default

    def _vector(self, number: int, size: int) -> tuple[int, int]:
        """Return where the entries of a vector begin, and how many it has; all of them are inside the buffer."""
        at = self._field(number)
        if not at:
            return 0, 0
        begin = at + _number(self.data, at, "<I")
        count = _number(self.data, begin, "<I")
        if count * size > len(self.data) - begin - 4:
            raise ValueError(f"a list of {count} entries reaches beyond its end")
        return begin + 4, count

    def numbers(self, number: int, most: int) -> list[int]:
        """Return a vector of 32-bit numbers with a sign, at most `most` of them."""
        begin, count = self._vector(number, 4)
        if count > most:
            raise ValueError(f"a list of {count} entries")
        return list(struct.unpack_from(f"<{count}i", self.data, begin))

    def text(self, number: int) -> str:
        """Return a text."""
        begin, count = self._vector(number, 1)
        if count > MAX_TEXT:
            raise ValueError("a name that is too long")
        return bytes(self.data[begin : begin + count]).decode("utf-8", errors="replace")

    def tables(self, number: int) -> Tables:
        """Return a vector of tables."""
        return Tables(self.data, *self._vector(number, 4))


@dataclass(frozen=True, slots=True)
class Tables:
    """A vector of tables, each read on access."""

    data: memoryview
    begin: int
    count: int

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> Table:
        if not 0 <= index < self.count:
            raise IndexError(f"entry {index} of {self.count}")
        at = self.begin + 4 * index
        return Table(self.data, at + _number(self.data, at, "<I"))

    def __iter__(self) -> Iterator[Table]:
        return (self[index] for index in range(self.count))


def root(data: memoryview) -> Table:
    """Return the table that a buffer holds. Raises `ValueError`."""
    return Table(data, _number(data, 0, "<I"))


def _number(data: memoryview, at: int, form: str) -> int:
    if not 0 <= at <= len(data) - struct.calcsize(form):
        raise ValueError("an offset beyond the end of the file")
    return int(struct.unpack_from(form, data, at)[0])
