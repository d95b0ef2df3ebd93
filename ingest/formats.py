"""Which image formats are read, and by which file names and first bytes they are known."""

from __future__ import annotations

from pathlib import PurePath

__all__ = ["IMAGE_SUFFIXES", "PILLOW_FORMATS", "ends_early", "has_image_suffix", "looks_like"]

PILLOW_FORMATS = (
    "JPEG",  # and MPO, which Pillow opens through its JPEG reader
    "PNG",
    "WEBP",
    "GIF",
    "BMP",
    "DIB",
    "TIFF",
    "PPM",
    "AVIF",
    "ICO",
    "JPEG2000",
)
"""Raster formats that Pillow decodes in the process. EPS, PDF, WMF and the like are left out on
purpose: they start programs or interpret drawing code."""

IMAGE_SUFFIXES = frozenset(
    [
        ".jpg",
        ".jpeg",
        ".jpe",
        ".jfif",
        ".mpo",
        ".png",
        ".apng",
        ".webp",
        ".gif",
        ".bmp",
        ".dib",
        ".tif",
        ".tiff",
        ".ppm",
        ".pgm",
        ".pbm",
        ".pnm",
        ".avif",
        ".ico",
        ".jp2",
        ".j2k",
        ".jpx",
        ".jpf",
    ]
)
"""File name endings, in lower case, that make a file count as an image. Files without one of them
are passed over: a folder of images also holds captions, lists and notes."""

_MAGIC = (
    ("JPEG", b"\xff\xd8\xff"),
    ("PNG", b"\x89PNG\r\n\x1a\n"),
    ("GIF", b"GIF87a"),
    ("GIF", b"GIF89a"),
    ("TIFF", b"II*\x00"),
    ("TIFF", b"MM\x00*"),
    ("JPEG2000", b"\x00\x00\x00\x0cjP  \r\n\x87\n"),
    ("JPEG2000", b"\xff\x4f\xff\x51"),
)


def has_image_suffix(name: str | PurePath) -> bool:
    """Whether the file name ends like an image's, in any letter case."""
    return PurePath(name).suffix.lower() in IMAGE_SUFFIXES


def looks_like(data: bytes) -> str | None:
    """The format that the first bytes announce, even where the rest is damaged; None for none."""
    for name, magic in _MAGIC:
        if data.startswith(magic):
            return name
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "WEBP"
    if data[4:12] in (b"ftypavif", b"ftypavis"):
        return "AVIF"
    return None


def ends_early(data: bytes) -> bool:
    """Whether a file that could not be decoded ends before its own format says that it should.

    Only a guess at the cause of a failure: good files may have bytes behind their end, and readers
    bear some ends that are missing.
    """
    match looks_like(data):
        case "WEBP":
            return len(data) < 8 + int.from_bytes(data[4:8], "little")
        case "PNG":
            return b"IEND" not in data[-1024:]
        case "JPEG":
            return b"\xff\xd9" not in data[-1024:]
        case "JPEG2000" if data.startswith(b"\xff\x4f"):
            return not data.endswith(b"\xff\xd9")
        case "JPEG2000" | "AVIF":
            return _box_ends_early(data)
        case _:
            return False


def _box_ends_early(data: bytes) -> bool:
    """The same for files made of boxes, each with its length in front (ISO base media)."""
    at = 0
    while at < len(data):
        size = int.from_bytes(data[at : at + 4], "big")
        if size == 0:  # the last box, up to the end of the file
            return data[at + 4 : at + 8] == b"jp2c" and not data.endswith(b"\xff\xd9")
        if size == 1:
            size = int.from_bytes(data[at + 8 : at + 16], "big")
        at += max(size, 8)
    return at > len(data)
