"""From the bytes of an image file to RGB pixels, under limits; the one edge where PIL errors enter.

Decoding is the same for every caller to the pixel: no JPEG draft mode, no resizing. Files are
decoded by their content, whatever their name says, and of animations the first frame is used.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from io import BytesIO

from PIL import ExifTags, Image, UnidentifiedImageError

from ingest.decode_hidden import Size, hidden_sizes, icon_sizes
from ingest.errors import ImageError, RejectReason
from ingest.formats import PILLOW_FORMATS, ends_early, looks_like
from ingest.pixels import to_rgb

__all__ = ["DecodeLimits", "Decoded", "decode"]

# All plugins are registered once, here: Pillow's own lazy registration is not safe in threads.
Image.init()
_FORMATS = tuple(name for name in PILLOW_FORMATS if name in Image.OPEN)

_PILLOW_WARNINGS = re.compile(r"PIL\.")

_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""What brings an image upright, by the value of its EXIF orientation."""

_SAYS_TRUNCATED = re.compile(
    r"truncat|not enough (image )?data|unexpected end|end of file|needs? more data", re.IGNORECASE
)


@dataclass(frozen=True, slots=True)
class DecodeLimits:
    """What one image may cost.

    Attributes:
        max_bytes: size of the file.
        max_pixels: width times height, read from the header before anything is decoded. Above
            about 179 million Pillow's own limit (twice `PIL.Image.MAX_IMAGE_PIXELS`) holds.
    """

    max_bytes: int = 64 * 1024 * 1024
    max_pixels: int = 100_000_000


@dataclass(frozen=True, slots=True)
class Decoded:
    """An image ready for preprocessing.

    Attributes:
        image: mode RGB, 8 bits, sRGB, upright, on white where it was transparent.
        width: in pixels, of the upright image.
        height: in pixels, of the upright image.
        format: what the file is by its content: ``JPEG``, ``PNG``, ``MPO`` ...
    """

    image: Image.Image
    width: int
    height: int
    format: str


def decode(
    data: bytes,
    limits: DecodeLimits = DecodeLimits(),
    *,
    before: Callable[[int], object] = lambda pixels: None,
) -> Decoded:
    """Decode the bytes of one image file. Safe to call from many threads.

    Args:
        data: the file.
        limits: what it may cost.
        before: called with the number of pixels just before they are decoded, which takes memory;
            it may wait.

    Raises:
        ImageError: for everything that can be wrong with the bytes; its `reason` says what.
    """
    if not data:
        raise ImageError(RejectReason.EMPTY)
    if len(data) > limits.max_bytes:
        raise ImageError(
            RejectReason.TOO_MANY_BYTES, f"{len(data)} bytes, the limit is {limits.max_bytes}"
        )
    _silence_pillow()
    try:
        icon = icon_sizes(data)
        if icon:
            before(_check_sizes(icon, limits))
        with Image.open(BytesIO(data), formats=_FORMATS) as opened:
            pixels = _check_sizes([opened.size, *hidden_sizes(opened, data)], limits)
            if not icon:
                before(pixels)
            opened.load()
            # Again: a frame may be larger than the canvas that the header announced.
            _check_size(*opened.size, limits)
            rgb = _upright(to_rgb(opened), _orientation(opened))
            return Decoded(rgb, rgb.width, rgb.height, opened.format or "unknown")
    except ImageError:
        raise
    except Image.DecompressionBombError as exc:
        raise ImageError(RejectReason.TOO_MANY_PIXELS, str(exc)) from exc
    except UnidentifiedImageError as exc:
        raise _unidentified(data) from exc
    except Exception as exc:  # PIL's readers raise nearly anything on damaged bytes
        raise _broken(data, exc) from exc


def _check_sizes(sizes: Sequence[Size], limits: DecodeLimits) -> int:
    """The pixels of the largest of them, checked."""
    for width, height in sizes:
        _check_size(width, height, limits)
    return max(width * height for width, height in sizes)


def _check_size(width: int, height: int, limits: DecodeLimits) -> None:
    if not width or not height:
        raise ImageError(RejectReason.BROKEN, f"{width} x {height} pixels")
    if width * height > limits.max_pixels:
        raise ImageError(
            RejectReason.TOO_MANY_PIXELS,
            f"{width} x {height} pixels, the limit is {limits.max_pixels}",
        )


def _orientation(image: Image.Image) -> int:
    """The EXIF orientation, read after loading: TIFF and AVIF readers turn the image themselves.

    Damaged EXIF counts as none: the picture beside it is whole.
    """
    try:
        return int(image.getexif().get(ExifTags.Base.Orientation, 1))
    except Exception:  # as many kinds as there are ways to damage a tag
        return 1


def _upright(image: Image.Image, orientation: int) -> Image.Image:
    method = _UPRIGHT.get(orientation)
    return image if method is None else image.transpose(method)


def _unidentified(data: bytes) -> ImageError:
    """Why no reader took the bytes: another kind of file, or a damaged head of a known kind."""
    announced = looks_like(data)
    if announced is None:
        return ImageError(RejectReason.NOT_AN_IMAGE)
    reason = RejectReason.TRUNCATED if ends_early(data) else RejectReason.BROKEN
    return ImageError(reason, f"damaged {announced} header")


def _broken(data: bytes, exc: Exception) -> ImageError:
    detail = str(exc) or type(exc).__name__
    if isinstance(exc, EOFError) or _SAYS_TRUNCATED.search(detail) or ends_early(data):
        return ImageError(RejectReason.TRUNCATED, detail)
    return ImageError(RejectReason.BROKEN, detail)


def _silence_pillow() -> None:
    """Keep Pillow's warnings about single images out of the user's terminal.

    `warnings.catch_warnings` saves and restores state that all threads share, so with many threads
    decoding it can restore the wrong one. A filter for Pillow's modules alone that stays in place
    cannot. It is put back in front where somebody else's filter has been put before it since.
    """
    current = warnings.filters[0] if warnings.filters else None
    if current is None or current[0] != "ignore" or current[3] != _PILLOW_WARNINGS:
        warnings.filterwarnings("ignore", category=Warning, module=_PILLOW_WARNINGS.pattern)
