"""From any of Pillow's pixel modes to 8-bit RGB: depth, transparency and colour."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageCms

from ingest.colour import to_srgb

__all__ = ["to_rgb"]

_ALWAYS_16_BIT_IN_I = frozenset({"PNG", "PPM"})
_ALPHA_MODES = {"LA": "L", "La": "L", "PA": "RGB", "RGBA": "RGB", "RGBa": "RGB"}


def to_rgb(image: Image.Image) -> Image.Image:
    """A loaded image as a plain RGB image on white, in sRGB. The argument is left as it was.

    Depth: 16-bit grey keeps its high byte, as Pillow does with 16-bit RGB (0x8000 becomes 128).
    32-bit integers and floats have no agreed range; see `_depth_32_to_8`.
    Transparency, also that of palettes and of PNG's tRNS, is composited onto white.
    """
    colour, alpha = _split(image)
    colour = to_srgb(colour, image.info.get("icc_profile"))
    if colour.mode == "LAB":
        colour = _lab_to_rgb(colour)
    rgb = colour.convert("RGB")
    if alpha is not None:
        rgba = rgb.convert("RGBA")
        rgba.putalpha(alpha)
        rgb = Image.alpha_composite(Image.new("RGBA", rgb.size, "white"), rgba).convert("RGB")
    # The EXIF and profile have been used up; left in place they would be applied a second time.
    rgb.info = {}
    return rgb


def _split(image: Image.Image) -> tuple[Image.Image, Image.Image | None]:
    """The image as mode L, RGB, CMYK or LAB, and its alpha channel (mode L) if it has one."""
    mode = image.mode
    if mode == "I" or mode == "F" or mode.startswith("I;16"):
        return _deep_grey(image)
    if mode in ("CMYK", "LAB"):
        return image, None
    transparency = image.info.get("transparency")
    if mode in _ALPHA_MODES or (transparency is not None and mode in ("1", "L", "P", "RGB")):
        if mode == "RGB" and isinstance(transparency, tuple) and max(transparency) > 255:
            image = image.copy()  # a 16-bit PNG: its pixels are read as their high bytes
            image.info["transparency"] = tuple(value >> 8 for value in transparency)
        if mode == "L" and isinstance(transparency, int) and transparency > 255:
            return image, None
        grey = mode in ("1", "L", "LA", "La")
        straight = image.convert("LA") if grey else image.convert("RGBA")
        return straight.convert("L" if grey else "RGB"), straight.getchannel("A")
    if mode == "1":
        return image.convert("L"), None
    return (image, None) if mode in ("L", "RGB") else (image.convert("RGB"), None)


def _deep_grey(image: Image.Image) -> tuple[Image.Image, Image.Image | None]:
    values = np.asarray(image)  # (height, width)
    if image.mode.startswith("I;16") or (
        image.mode == "I" and getattr(image, "format", None) in _ALWAYS_16_BIT_IN_I
    ):
        grey = (np.clip(values, 0, 65535).astype(np.uint16) >> 8).astype(np.uint8)
    else:
        grey = _depth_32_to_8(values)
    alpha = None
    transparent_value = image.info.get("transparency")
    if isinstance(transparent_value, int):
        mask = np.where(values == transparent_value, 0, 255).astype(np.uint8)
        alpha = Image.fromarray(mask)
    return Image.fromarray(grey), alpha


def _depth_32_to_8(values: NDArray[np.generic]) -> NDArray[np.uint8]:
    """Grey of 32 bits a pixel to 8, by the range that the values lie in.

    Floats in 0..1 are scaled from 1; values in 0..255 are kept; values in 0..65535 are scaled from
    16 bits; anything else is stretched from its least to its greatest value. NaN and infinities
    are black.
    """
    real = np.nan_to_num(values.astype(np.float64), nan=0.0, posinf=0.0, neginf=0.0)
    low, high = float(real.min(initial=0.0)), float(real.max(initial=0.0))
    if low >= 0 and high <= 1 and np.issubdtype(values.dtype, np.floating):
        real *= 255
    elif low >= 0 and high <= 255:
        pass
    elif low >= 0 and high <= 65535:
        real = np.floor(real / 256)
    else:
        real = (real - real.min()) * (255 / (real.max() - real.min() or 1.0))
    return np.clip(np.rint(real), 0, 255).astype(np.uint8)


def _lab_to_rgb(image: Image.Image) -> Image.Image:
    """Lab has no plain conversion in Pillow; littlecms knows the space."""
    converted = ImageCms.profileToProfile(
        image,
        ImageCms.createProfile("LAB"),
        ImageCms.createProfile("sRGB"),
        outputMode="RGB",
    )
    return image if converted is None else converted
