"""Splits H.264 and H.265 streams into units, and reads their parameter sets. Imports no numpy."""

from __future__ import annotations

import struct
from collections.abc import Iterable
from dataclasses import dataclass, field

START = b"\x00\x00\x01"
MAX_SETS = 16  # limit per kind; a stream uses one or two
_KINDS = {"h264": (7, 8), "hevc": (32, 33, 34)}
_NOT_SHOWN = {"h264": frozenset((7, 8, 9)), "hevc": frozenset((32, 33, 34, 35))}  # sets and delimiters


def units_of(data: bytes, *, is_sized: bool = False) -> list[bytes]:
    """Return the units of a coded image, separated by start codes or four-byte lengths.

    Args:
        data: the image.
        is_sized: lengths are used, as in a file; a length of 256 to 511 could be mistaken for a start code.

    >>> units_of(bytes.fromhex("00000001 6742 000001 68ce"))
    [b'gB', b'h\\xce']
    >>> units_of(bytes.fromhex("00000002 6742 00000002 68ce"))
    [b'gB', b'h\\xce']
    """
    if not is_sized and data.startswith((b"\x00\x00\x00\x01", START)):
        found = [unit.rstrip(b"\x00") for unit in data.split(START)[1:]]
        return [unit for unit in found if unit]
    units, at = [], 0
    while at + 4 <= len(data):
        (size,) = struct.unpack_from(">I", data, at)
        if not 0 < size <= len(data) - at - 4:
            return []
        units.append(data[at + 4 : at + 4 + size])
        at += 4 + size
    return units


def kind_of_unit(codec: str, unit: bytes) -> int:
    """Return the type number of a unit."""
    return unit[0] & 0x1F if codec == "h264" else (unit[0] >> 1) & 0x3F


@dataclass(frozen=True)
class ParameterSets:
    """The parameter sets of a stream, by type number; a decoder needs them before the first image."""

    codec: str
    sets: dict[int, tuple[bytes, ...]] = field(default_factory=dict)

    @property
    def is_complete(self) -> bool:
        """Whether there is at least one of each kind."""
        return all(self.sets.get(kind) for kind in _KINDS[self.codec])

    def with_units(self, units: Iterable[bytes]) -> ParameterSets:
        """Return the sets after an image with these units, which may contain new ones; self if nothing changed."""
        found: dict[int, tuple[bytes, ...]] = {}
        for unit in units:
            kind = kind_of_unit(self.codec, unit)
            if kind in _KINDS[self.codec] and len(unit) >= 4 and len(found.get(kind, ())) < MAX_SETS:
                found[kind] = tuple(dict.fromkeys((*found.get(kind, ()), unit)))
        sets = {**self.sets, **found}
        return self if sets == self.sets else ParameterSets(self.codec, sets)

    @property
    def name(self) -> str:
        """The codec as browsers name it.

        >>> ParameterSets("h264", {7: (bytes.fromhex("674d401f"),), 8: (b"h123",)}).name
        'avc1.4D401F'
        """
        if self.codec == "h264":
            return f"avc1.{self.sets[7][0][1:4].hex().upper()}"
        profile = _profile(self.sets[33][0])
        space = ("", "A", "B", "C")[profile[0] >> 6]
        compatibility = int(f"{int.from_bytes(profile[1:5], 'big'):032b}"[::-1], 2)
        constraints = profile[5:11].rstrip(b"\x00")
        tier = "H" if profile[0] & 0x20 else "L"
        parts = [f"hvc1.{space}{profile[0] & 0x1F}", f"{compatibility:X}", f"{tier}{profile[11]}"]
        return ".".join([*parts, *(f"{byte:X}" for byte in constraints)])

    @property
    def configuration(self) -> bytes:
        """The record of an MP4's `avcC` or `hvcC`."""
        if self.codec == "h264":
            sps, pps = self.sets[7], self.sets[8]
            head = bytes((1, *sps[0][1:4], 0xFF, 0xE0 | len(sps)))
            return head + b"".join(map(_sized, sps)) + bytes((len(pps),)) + b"".join(map(_sized, pps))
        profile = _profile(self.sets[33][0])
        head = b"\x01" + profile + bytes.fromhex("f000fcfdf8f800000f") + bytes((len(_KINDS["hevc"]),))
        arrays = [
            bytes((0x80 | kind,)) + struct.pack(">H", len(self.sets[kind])) + b"".join(map(_sized, self.sets[kind]))
            for kind in _KINDS["hevc"]
        ]
        return head + b"".join(arrays)

    def shown(self, units: Iterable[bytes]) -> bytes:
        """Return the units that belong in a sample, each after its length: all but parameter sets and delimiters."""
        hidden = _NOT_SHOWN[self.codec]
        kept = [unit for unit in units if kind_of_unit(self.codec, unit) not in hidden]
        return b"".join(struct.pack(">I", len(unit)) + unit for unit in kept)


def _sized(unit: bytes) -> bytes:
    return struct.pack(">H", len(unit)) + unit


def _profile(sps: bytes) -> bytes:
    """Return the 12 bytes of `profile_tier_level` in the sequence parameter set of H.265."""
    plain = sps[:32].replace(b"\x00\x00\x03", b"\x00\x00")  # without emulation prevention
    return plain[3:15].ljust(12, b"\x00")


def sets_in_header(codec: str, header: bytes) -> ParameterSets:
    """Return the parameter sets of a stream's header (FFmpeg's `extradata`): plain units, or an MP4's record."""
    empty = ParameterSets(codec)
    if header[:1] != b"\x01":
        return empty.with_units(units_of(header))
    try:
        return empty.with_units(_in_avcc(header) if codec == "h264" else _in_hvcc(header))
    except (IndexError, struct.error):
        return empty


def _in_avcc(record: bytes) -> list[bytes]:
    count, at = record[5] & 0x1F, 6
    sps, at = _sized_units(record, at, count)
    pps, _ = _sized_units(record, at + 1, record[at])
    return sps + pps


def _in_hvcc(record: bytes) -> list[bytes]:
    found, at = [], 23
    for _ in range(record[22]):
        (count,) = struct.unpack_from(">H", record, at + 1)
        units, at = _sized_units(record, at + 3, count)
        found += units
    return found


def _sized_units(record: bytes, at: int, count: int) -> tuple[list[bytes], int]:
    units = []
    for _ in range(min(count, MAX_SETS)):
        (size,) = struct.unpack_from(">H", record, at)
        units.append(record[at + 2 : at + 2 + size])
        at += 2 + size
    return units, at
