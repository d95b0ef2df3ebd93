"""Views of exemplars: mirrored, smaller or larger, each told of in the prompt."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

__all__ = ["View", "viewed"]

_SMALL = ("a far away {}", "very small {}")
_LARGE = ("zoomed in {}", "close up {}")
_GREY = (127, 127, 127)


@dataclass(frozen=True)
class View:
    """A view of an image.

    Attributes:
        pixels: (size, size, 3) uint8.
        prompt: what it shows.
        seen: left, top, right, bottom of what shows the image; the rest says nothing of it.
    """

    pixels: NDArray[np.uint8]
    prompt: str
    seen: tuple[int, int, int, int]


def viewed(
    image: Image.Image, prompt: str, size: int, choices: np.random.Generator, *, enabled: bool
) -> View:
    """A random view of an image, square of `size` pixels.

    As the published code of Custom Diffusion does with ``--hflip`` (its paper says 0.4 to 1.4 in
    one range): mirrored half of the time. Two times of three a side of a third of `size` to all of
    it is drawn: below 0.6 the image is put so small somewhere on grey, told of as "far away" or
    "very small", and the grey is not `seen`; from 0.6 on it is shown whole. One time of three it is
    enlarged 1.2 to 1.4 times, told of as "zoomed in" or "close up", and a part of it shown.

    Other than there, an image that is no square is cut to one and not squeezed into it, as what is
    made is compared with it afterwards; it is scaled by Lanczos; and odd sides stay odd.
    """
    whole = (0, 0, size, size)
    if enabled and choices.random() < 0.5:
        image = ImageOps.mirror(image)
    side = _side(size, choices) if enabled else size
    if side > size:
        large = _square(image, side)
        left, top = (int(v) for v in choices.integers(side - size + 1, size=2))
        part = large.crop((left, top, left + size, top + size))
        return View(np.asarray(part), _told(_LARGE, prompt, choices), whole)
    if side >= 0.6 * size:
        return View(np.asarray(_square(image, size)), prompt, whole)
    canvas = Image.new("RGB", (size, size), _GREY)
    left, top = (int(v) for v in choices.integers(size - side + 1, size=2))
    canvas.paste(_square(image, side), (left, top))
    seen = (left, top, left + side, top + side)
    return View(np.asarray(canvas), _told(_SMALL, prompt, choices), seen)


def _side(size: int, choices: np.random.Generator) -> int:
    if choices.integers(3) < 2:
        return int(choices.integers(size // 3, size + 1))
    return int(choices.integers(int(1.2 * size), int(1.4 * size)))


def _square(image: Image.Image, side: int) -> Image.Image:
    return ImageOps.fit(image, (side, side), Image.Resampling.LANCZOS)


def _told(ways: tuple[str, ...], prompt: str, choices: np.random.Generator) -> str:
    return ways[int(choices.integers(len(ways)))].format(prompt)
