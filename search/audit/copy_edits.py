"""Copies of an image as people make them: what the flags for copies and duplicates are measured on.

An edit is light where a person would call what comes of it the same picture at first sight, with
nothing of its middle lost.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from PIL import Image

__all__ = ["EDITS", "Edit", "edited"]


@dataclass(frozen=True)
class Edit:
    """One kind of edit.

    Attributes:
        name: as in the tables of measurements.
        light: see above.
        same_frame: nothing is cut off, moved or mirrored: what makes duplicates in a gallery.
        apply: from an RGB image, and a source of chance, to an RGB image.
    """

    name: str
    light: bool
    same_frame: bool
    apply: Callable[[Image.Image, np.random.Generator], Image.Image]


def edited(image: Image.Image, name: str, seed: int) -> Image.Image:
    """The image (mode RGB) after the edit of that name, always the same for a seed."""
    return EDITS[name].apply(image, np.random.default_rng(seed))


def _crop(share: float) -> Callable[[Image.Image, np.random.Generator], Image.Image]:
    """A window of that share of both sides, anywhere, enlarged to the size of the image."""

    def apply(image: Image.Image, rng: np.random.Generator) -> Image.Image:
        from PIL import Image

        width, height = (max(1, round(share * side)) for side in image.size)
        left = int(rng.integers(0, image.width - width + 1))
        top = int(rng.integers(0, image.height - height + 1))
        part = image.crop((left, top, left + width, top + height))
        return part.resize(image.size, Image.Resampling.BICUBIC)

    return apply


def _through(side: int) -> Callable[[Image.Image, np.random.Generator], Image.Image]:
    def apply(image: Image.Image, rng: np.random.Generator) -> Image.Image:
        from PIL import Image

        small = image.resize((side, side), Image.Resampling.BICUBIC)
        return small.resize(image.size, Image.Resampling.BICUBIC)

    return apply


def _jpeg(quality: int) -> Callable[[Image.Image, np.random.Generator], Image.Image]:
    def apply(image: Image.Image, rng: np.random.Generator) -> Image.Image:
        from PIL import Image

        file = io.BytesIO()
        image.save(file, "JPEG", quality=quality)
        return Image.open(file).convert("RGB")

    return apply


def _flip(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    from PIL import ImageOps

    return ImageOps.mirror(image)


def _text(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    """A line of text across the middle, an eighth of the height."""
    from PIL import ImageDraw, ImageFont

    made = image.copy()
    colour = tuple(rng.integers(0, 200, 3).tolist())
    draw = ImageDraw.Draw(made)
    font = ImageFont.load_default(size=image.height // 8)
    place = (image.width // 2, int(image.height * rng.uniform(0.2, 0.8)))
    draw.text(place, "SAMPLE 2026", fill=colour, font=font, anchor="mm")
    return made


def _logo(part: int) -> Callable[[Image.Image, np.random.Generator], Image.Image]:
    """A disc with a bar in it in one corner, `1 / part` of the sides."""

    def apply(image: Image.Image, rng: np.random.Generator) -> Image.Image:
        return _with_logo(image, min(image.size) // part, rng)

    return apply


def _with_logo(image: Image.Image, side: int, rng: np.random.Generator) -> Image.Image:
    from PIL import ImageDraw

    made = image.copy()
    left = int(rng.integers(0, 2)) * (image.width - side)
    top = int(rng.integers(0, 2)) * (image.height - side)
    draw = ImageDraw.Draw(made)
    colour = tuple(rng.integers(0, 256, 3).tolist())
    draw.ellipse((left, top, left + side - 1, top + side - 1), fill=colour)
    bar = (left + side // 5, top + 2 * side // 5, left + 4 * side // 5, top + 3 * side // 5)
    draw.rectangle(bar, fill=(255, 255, 255))
    return made


def _brightness(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    from PIL import ImageEnhance

    return ImageEnhance.Brightness(image).enhance(float(rng.choice([0.7, 1.3])))


def _saturation(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    from PIL import ImageEnhance

    return ImageEnhance.Color(image).enhance(float(rng.choice([0.3, 2.0])))


def _hue(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    """Turned by a tenth to a half of the circle."""
    from PIL import Image

    values = np.array(image.convert("HSV"))
    values[..., 0] += np.uint8(rng.integers(26, 129))
    return Image.fromarray(values, "HSV").convert("RGB")


def _rotate(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    """By 3 to 8 degrees, on white."""
    from PIL import Image

    angle = float(rng.uniform(3, 8) * rng.choice([-1, 1]))
    return image.rotate(angle, Image.Resampling.BICUBIC, fillcolor=(255, 255, 255))


def _regenerated(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    """As a generator of small images repeats what it has learnt: 64 px, soft, grainy."""
    from PIL import Image, ImageFilter

    small = image.resize((64, 64), Image.Resampling.BICUBIC)
    small = small.filter(ImageFilter.GaussianBlur(0.6))
    grain = np.asarray(small, np.float64) + rng.normal(0, 8, (64, 64, 3))
    return Image.fromarray(np.clip(grain, 0, 255).astype(np.uint8))


def _chain(*names: str) -> Callable[[Image.Image, np.random.Generator], Image.Image]:
    def apply(image: Image.Image, rng: np.random.Generator) -> Image.Image:
        for name in names:
            image = EDITS[name].apply(image, rng)
        return image

    return apply


EDITS: Mapping[str, Edit] = {
    edit.name: edit
    for edit in (
        Edit("crop 90 %", True, False, _crop(0.9)),
        Edit("crop 75 %", False, False, _crop(0.75)),
        Edit("crop 50 %", False, False, _crop(0.5)),
        Edit("resize to 64 px and back", True, True, _through(64)),
        Edit("JPEG quality 50", True, True, _jpeg(50)),
        Edit("JPEG quality 20", True, True, _jpeg(20)),
        Edit("flip", True, False, _flip),
        Edit("logo in a corner, an eighth", True, True, _logo(8)),
        Edit("logo in a corner, a quarter", False, True, _logo(4)),
        Edit("text across, an eighth high", False, True, _text),
        Edit("brightness", True, True, _brightness),
        Edit("saturation", True, True, _saturation),
        Edit("hue", True, True, _hue),
        Edit("turned 3 to 8 degrees", False, False, _rotate),
        Edit("64 px, soft and grainy", False, True, _regenerated),
        Edit("crop 90 %, JPEG quality 50", True, False, _chain("crop 90 %", "JPEG quality 50")),
        Edit(
            "flip, resize, brightness",
            True,
            False,
            _chain("flip", "resize to 64 px and back", "brightness"),
        ),
        Edit(
            "crop 75 %, hue, text, JPEG quality 20",
            False,
            False,
            _chain("crop 75 %", "hue", "text across, an eighth high", "JPEG quality 20"),
        ),
    )
}
"""By name."""
