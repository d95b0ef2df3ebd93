"""The sizes of the AV1 frames in an AVIF file, which need not be the one that the file announces.

AVIF is ISO base media (boxes), its pictures are AV1: open bitstream units (OBUs), of which the
sequence header bounds the size of a frame.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator

__all__ = ["av1_sizes"]

_MAX_PIECES = 4096
"""Pictures, tiles of pictures, and parts of them; and, of them all, units. Files have a few."""
_SEQUENCE_HEADER = 1


def av1_sizes(data: bytes) -> list[tuple[int, int]]:
    """Width and height of what is decoded of each picture, tile and track.

    Raises:
        ValueError: the file is damaged.
    """
    found: list[tuple[int, int]] = []
    units = 0
    try:
        for piece in _pieces(memoryview(data)):
            for size in _units(piece):
                units += 1
                if size is not None:
                    found.append(size)
                if units > _MAX_PIECES:
                    raise IndexError
    except (struct.error, IndexError) as exc:
        raise ValueError("damaged AVIF boxes") from exc
    return found


# -- boxes --------------------------------------------------------------------------------------


def _boxes(data: memoryview, start: int, end: int) -> Iterator[tuple[bytes, int, int]]:
    """(kind, start, end of its content) of the boxes in a part of the file."""
    at = start
    while at + 8 <= end:
        size, kind = struct.unpack_from(">I4s", data, at)
        head = 8
        if size == 1:
            (size,) = struct.unpack_from(">Q", data, at + 8)
            head = 16
        stop = end if size == 0 else min(at + size, end)
        if stop < at + head:
            return
        yield kind, at + head, stop
        at = stop


def _pieces(data: memoryview) -> Iterator[memoryview]:
    """Where AV1 is: items of the file, and the first frames of its tracks."""
    for kind, start, end in _boxes(data, 0, len(data)):
        if kind == b"meta":
            yield from _items(data, start + 4, end)
        elif kind == b"moov":
            yield from _first_frames(data, start, end)


def _first_frames(data: memoryview, start: int, end: int) -> Iterator[memoryview]:
    offset, size = 0, 0
    for kind, inner, stop in _boxes(data, start, end):
        if kind in (b"trak", b"mdia", b"minf", b"stbl"):
            yield from _first_frames(data, inner, stop)
        elif kind in (b"stco", b"co64"):
            (offset,) = struct.unpack_from(">I" if kind == b"stco" else ">Q", data, inner + 8)
        elif kind == b"stsz":
            same, _, first = struct.unpack_from(">III", data, inner + 4)
            size = same or first
    if offset and size:
        yield data[offset : offset + size]


def _items(data: memoryview, start: int, end: int) -> Iterator[memoryview]:
    places: list[tuple[int, list[tuple[int, int]]]] = []
    inside = data[:0]
    for kind, inner, stop in _boxes(data, start, end):
        if kind == b"iloc":
            places = _locations(data, inner)
        elif kind == b"idat":
            inside = data[inner:stop]
    for method, extents in places:
        source = inside if method == 1 else data
        parts = [
            source[offset : offset + length] if length else source[offset:]
            for offset, length in extents
        ]
        if len(parts) > 1:
            if sum(map(len, parts)) > len(data):  # the same bytes again and again
                raise IndexError
            yield memoryview(b"".join(parts))
        else:
            yield from parts


def _locations(data: memoryview, at: int) -> list[tuple[int, list[tuple[int, int]]]]:
    """(construction method, [(offset, length)]) of each item."""
    version = data[at]
    sizes = (data[at + 4] >> 4, data[at + 4] & 15, data[at + 5] >> 4, data[at + 5] & 15)
    offset_size, length_size, base_size, index_size = sizes
    at += 6

    def number(size: int) -> int:
        nonlocal at
        if at + size > len(data):
            raise IndexError
        at += size
        return int.from_bytes(data[at - size : at], "big")

    items = []
    count = number(4 if version == 2 else 2)
    if count > _MAX_PIECES:
        raise IndexError
    extents_left = _MAX_PIECES
    for _ in range(count):
        number(4 if version == 2 else 2)
        method = number(2) & 15 if version else 0
        number(2)
        base = number(base_size)
        extents = []
        for _ in range(number(2)):
            if not extents_left:
                raise IndexError
            extents_left -= 1
            number(index_size if version else 0)
            offset = number(offset_size)
            extents.append((base + offset, number(length_size)))
        items.append((method, extents))
    return items


# -- AV1 ----------------------------------------------------------------------------------------


def _units(data: memoryview) -> Iterator[tuple[int, int] | None]:
    """One OBU after the other: the size that a sequence header tells, None for another one."""
    at = 0
    while at < len(data) and not data[at] & 0x81:  # bits that are 0 in any OBU: else it is none
        head = data[at]
        at += 2 if head & 4 else 1
        size = len(data) - at
        if head & 2:
            size, at = _leb128(data, at)
        is_header = head >> 3 == _SEQUENCE_HEADER
        yield _frame_size(bytes(data[at : at + min(size, 4096)])) if is_header else None
        at += size


def _leb128(data: memoryview, at: int) -> tuple[int, int]:
    value = 0
    for i in range(8):
        byte = data[at + i] if at + i < len(data) else 0
        value |= (byte & 127) << (7 * i)
        if not byte & 128:
            return value, at + i + 1
    return len(data), at


class _Bits:
    def __init__(self, data: bytes) -> None:
        self._bits = int.from_bytes(data, "big")
        self._left = 8 * len(data)

    def take(self, count: int) -> int:
        """The next bits as a number; 0 past the end."""
        self._left -= count
        if self._left < 0:
            return 0
        return (self._bits >> self._left) & ((1 << count) - 1)

    def skip_uvlc(self) -> None:
        zeros = 0
        while zeros < 32 and not self.take(1):
            zeros += 1
        if zeros < 32:
            self.take(zeros)


def _frame_size(header: bytes) -> tuple[int, int]:
    """The largest frame that a sequence header allows (AV1 specification, 5.5)."""
    bits = _Bits(header)
    bits.take(4)  # profile, still picture
    reduced = bits.take(1)
    if reduced:
        bits.take(5)
    else:
        _skip_operating_points(bits)
    width_bits, height_bits = bits.take(4) + 1, bits.take(4) + 1
    width, height = bits.take(width_bits) + 1, bits.take(height_bits) + 1
    if not reduced:
        # A frame may give its own size in so many bits. Encoders take as few as their size needs;
        # where there are more, it is what they allow that counts.
        if width_bits > max((width - 1).bit_length(), 1):
            width = 1 << width_bits
        if height_bits > max((height - 1).bit_length(), 1):
            height = 1 << height_bits
    return width, height


def _skip_operating_points(bits: _Bits) -> None:
    delay_bits = 0
    has_model = 0
    if bits.take(1):  # timing info
        bits.take(64)
        if bits.take(1):
            bits.skip_uvlc()
        has_model = bits.take(1)
        if has_model:
            delay_bits = bits.take(5) + 1
            bits.take(42)
    has_delay = bits.take(1)
    for _ in range(bits.take(5) + 1):
        bits.take(12)
        if bits.take(5) > 7:
            bits.take(1)
        if has_model and bits.take(1):
            bits.take(2 * delay_bits + 1)
        if has_delay and bits.take(1):
            bits.take(4)
