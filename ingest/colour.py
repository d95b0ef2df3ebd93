"""Embedded colour profiles: from any profile to sRGB."""

from __future__ import annotations

from io import BytesIO
from typing import Any

from PIL import Image, ImageCms

__all__ = ["to_srgb"]

_SPACE_OF_MODE = {"L": "GRAY", "RGB": "RGB", "CMYK": "CMYK", "LAB": "Lab"}


def to_srgb(image: Image.Image, profile: bytes | None) -> Image.Image:
    """The image's colours in sRGB, where its profile says that they are something else.

    Takes an image of mode L, RGB, CMYK or LAB without alpha. The image itself is returned where
    there is no profile, where the profile is sRGB already, is for another kind of image, or is
    broken: viewers show such an image as if it had none.
    """
    space = _SPACE_OF_MODE.get(image.mode)
    if not profile or space is None:
        return image
    try:
        source = ImageCms.getOpenProfile(BytesIO(profile))
        # The stubs of `profile` lack these attributes.
        described: Any = source.profile
        if described.xcolor_space.strip() != space:
            return image
        if space == "RGB" and "srgb" in (described.profile_description or "").lower():
            return image
        # A transform is built for each image: one shared by threads is not promised to be safe.
        converted = ImageCms.profileToProfile(
            image, source, ImageCms.createProfile("sRGB"), outputMode="RGB"
        )
    except Exception:  # littlecms reports broken profiles in many ways, all to be ignored
        return image
    return image if converted is None else converted
