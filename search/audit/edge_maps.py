"""The edges of pictures on a grid, and what their spectra are put together with: `copy_score`'s."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from PIL import Image

__all__ = ["COARSE", "FINE", "Grid", "Map", "directions", "opposite", "ring", "shifts"]

Map: TypeAlias = NDArray[np.complex64]

_NOISE = 6.0  # gradient, of 255 a pixel, that the grain of a JPEG has
_NEAR, _FAR = 4.0, 9.0  # cells that a picture is moved by to see how much it repeats itself


@dataclass(frozen=True)
class Grid:
    """How closely pictures are looked at.

    Attributes:
        cells: on a side of the grid that edges are taken on.
        sides: in cells, of the sizes that the generated image is tried in on the training image.
    """

    cells: int
    sides: tuple[int, ...]

    @classmethod
    def of(cls, cells: int, shares: tuple[float, ...]) -> Grid:
        """`shares`: of the training image's sides that the generated image may show."""
        return cls(cells, tuple(round(cells * share) for share in shares))


FINE = Grid.of(64, (1.0, 0.95, 0.9, 0.84, 0.78, 0.72, 0.66, 0.6, 0.55, 0.5))
COARSE = Grid.of(32, (1.0, 0.92, 0.84, 0.75, 0.66, 0.58, 0.5))


def directions(picture: Image.Image, cells: int, sides: tuple[int, ...]) -> Map:
    """(sides, cells, cells): strength and doubled direction of the edges as complex numbers.

    Of the picture in every size, each in the first rows and columns, with nothing beside it.
    """
    from PIL import Image

    # All sizes in one array: what takes long is the number of calls. Up to the root these are
    # whole numbers and quarters of them, without any rounding.
    pixels = np.zeros((3, len(sides), cells + 2, cells + 2), np.float32)
    for number, side in enumerate(sides):
        small = picture.resize((side + 2, side + 2), Image.Resampling.BOX)
        pixels[:, number, : side + 2, : side + 2] = np.asarray(small).transpose(2, 0, 1)
    maps = np.empty((len(sides), cells, cells), np.complex64)
    real, imaginary = np.zeros((2, len(sides), cells, cells), np.float32)
    for channel in pixels:
        across = channel[:, 1:-1, 2:] - channel[:, 1:-1, :-2]
        down = channel[:, 2:, 1:-1] - channel[:, :-2, 1:-1]
        # (across + i down)^2 of each channel, summed: channels of opposite edges do not cancel.
        imaginary += across * down
        across *= across
        down *= down
        real += across
        real -= down
    imaginary *= 2
    inside, rows, columns = _inside(cells, sides)
    for part in (real, imaginary):
        # Smoothed as a structure tensor is: places then need not agree to a fraction of a cell.
        smooth = (part[:, :-2] + 2 * part[:, 1:-1] + part[:, 2:]) / 4
        np.copyto(part[:, 1:-1], smooth, where=rows)
        smooth = (part[:, :, :-2] + 2 * part[:, :, 1:-1] + part[:, :, 2:]) / 4
        np.copyto(part[:, :, 1:-1], smooth, where=columns)
    maps.real, maps.imag = real, imaginary
    root = np.sqrt(np.abs(maps))
    # Strength to the power of a quarter: a few hard edges do not outweigh all the others.
    scale = inside / (root * np.sqrt(root) + np.float32(_NOISE**1.5))
    maps.real *= scale
    maps.imag *= scale
    return maps


@cache
def _inside(
    cells: int, sides: tuple[int, ...]
) -> tuple[NDArray[np.float32], NDArray[np.bool_], NDArray[np.bool_]]:
    """Of pictures of these sides: which cells are theirs, and which rows and columns but the first
    and the last of the grid have neighbours on both sides.
    """
    places = np.arange(cells)
    own = places < np.array(sides)[:, None]  # (sides, cells)
    between = (places < np.array(sides)[:, None] - 1)[:, 1:-1]
    inside = (own[:, :, None] & own[:, None, :]).astype(np.float32)
    return inside, between[:, :, None], between[:, None, :]


@cache
def shifts(cells: int, sides: tuple[int, ...]) -> Map:
    """(sides, cells): what moving by `side - 1` cells does to the spectrum of a row."""
    steps = np.arange(cells) * (np.array(sides)[:, None] - 1)
    moved: Map = np.exp(-2j * np.pi * steps / cells).astype(np.complex64)
    return moved


@cache
def ring(cells: int) -> NDArray[np.bool_]:
    """(cells, cells): the moves that `repetition` looks at."""
    steps = np.fft.fftfreq(cells) * cells
    distance = np.hypot(steps[:, None], steps[None, :])
    within: NDArray[np.bool_] = (distance >= _NEAR) & (distance <= _FAR)
    return within


def opposite(spectra: Map) -> Map:
    """(..., cells, cells): the numbers of -k in the places of k."""
    turned: Map = np.roll(spectra[..., ::-1, ::-1], 1, axis=(-2, -1))
    return turned
