"""Views of exemplars: mirrored, smaller or larger, each told of in the prompt."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

__all__ = ["View", "viewed"]

_SMALL = ("a far away {}", "very small {}")
_LARGE = ("zoomed in {}", "close up {}")
_SCALED = 2 / 3
_LEAST, _MOST = 0.4, 1.4
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

    As in Custom Diffusion (section 3.2): mirrored half of the time; two times of three scaled by
    0.4 to 1.4, where a small one is told of as "far away" and a large one as "close up"; a view
    between 0.6 and 1 keeps its prompt. What a small one leaves free is grey, and not `seen`.
    """
    square = ImageOps.fit(image, (size, size), Image.Resampling.LANCZOS)
    seen = (0, 0, size, size)
    if not enabled:
        return View(np.asarray(square), prompt, seen)
    if choices.random() < 0.5:
        square = ImageOps.mirror(square)
    if choices.random() >= _SCALED:
        return View(np.asarray(square), prompt, seen)
    scale = choices.uniform(_LEAST, _MOST)
    side = max(1, round(size * scale))
    scaled = square.resize((side, side), Image.Resampling.BICUBIC)
    if side < size:
        canvas = Image.new("RGB", (size, size), _GREY)
        left, top = (int(v) for v in choices.integers(size - side + 1, size=2))
        canvas.paste(scaled, (left, top))
        square, seen = canvas, (left, top, left + side, top + side)
    elif side > size:
        left, top = (int(v) for v in choices.integers(side - size + 1, size=2))
        square = scaled.crop((left, top, left + size, top + size))
    told = prompt
    if scale < 0.6:
        told = _SMALL[int(choices.integers(len(_SMALL)))].format(prompt)
    elif scale > 1:
        told = _LARGE[int(choices.integers(len(_LARGE)))].format(prompt)
    return View(np.asarray(square), told, seen)
