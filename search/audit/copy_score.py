"""How much one picture looks like a copy of another: their edges laid over each other.

A picture is taken as the directions of its edges on a grid of `GRID` x `GRID`: flat paper, white or
not, counts nothing, so that two drawings do not agree by the paper they are on. Directions without
sign (doubled angles) of all three colour channels survive other colours and brightness. The one
picture, whole or mirrored, is looked for in the other at several sizes and in every place (it may
be a crop of it) by normalised cross-correlation through the Fourier transform.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from PIL import Image

__all__ = ["GRID", "SCALES", "Edges", "copy_score"]

Map: TypeAlias = NDArray[np.complex64]

GRID = 64
SCALES = (1.0, 0.95, 0.9, 0.84, 0.78, 0.72, 0.66, 0.6, 0.55, 0.5)
"""Share of the training image's side that the generated image may show."""

_NOISE = 6.0  # gradients, of 255 a pixel, that the grain of a JPEG has
_LEAST = 0.02  # of the edges' strength of a picture, that a window must have to be compared


@dataclass(frozen=True, eq=False)
class Edges:
    """The edges of a picture.

    Attributes:
        picture: mode RGB, `2 * GRID` pixels a side.
    """

    picture: Image.Image

    @classmethod
    def of(cls, image: Image.Image) -> Edges:
        """Of an RGB image of any size; it is squeezed to a square."""
        from PIL import Image

        side = 2 * GRID
        return cls(image.resize((side, side), Image.Resampling.BILINEAR, reducing_gap=2.0))

    @cached_property
    def spectrum(self) -> Map:
        """(GRID, GRID), of the whole picture."""
        from scipy import fft

        transformed: Map = fft.fft2(self.whole)
        return transformed

    @cached_property
    def whole(self) -> Map:
        """(GRID, GRID)"""
        return _directions(self.picture, GRID)

    @cached_property
    def energy(self) -> NDArray[np.float64]:
        """(GRID + 1, GRID + 1): squared strength summed over all cells above and to the left."""
        sums = np.zeros((GRID + 1, GRID + 1))
        sums[1:, 1:] = np.cumsum(np.cumsum(np.abs(self.whole).astype(np.float64) ** 2, 0), 1)
        return sums

    @cached_property
    def templates(self) -> tuple[Map, NDArray[np.float64]]:
        """Spectra (scales, 2, GRID, GRID) of the picture in every size, as it is and mirrored,
        conjugate; and their norms (scales, 2).
        """
        from scipy import fft

        maps = np.zeros((len(SCALES), 2, GRID, GRID), np.complex64)
        for number, scale in enumerate(SCALES):
            side = round(GRID * scale)
            small = _directions(self.picture, side)
            maps[number, 0, :side, :side] = small
            # Mirrored, a doubled angle changes its sign.
            maps[number, 1, :side, :side] = small[:, ::-1].conj()
        norms = np.sqrt(np.sum(np.abs(maps).astype(np.float64) ** 2, axis=(2, 3)))
        return fft.fft2(maps).conj(), norms


def copy_score(generated: Edges, training: Edges) -> float:
    """0 (nothing in common) .. 1 (the same edges in the same places)."""
    from scipy import fft

    spectra, norms = generated.templates
    products = fft.ifft2(spectra * training.spectrum).real  # (scales, 2, GRID, GRID)
    total = training.energy[-1, -1]
    best = 0.0
    for number, scale in enumerate(SCALES):
        side = round(GRID * scale)
        room = GRID - side + 1
        sums = training.energy
        window = sums[side:, side:] - sums[:-side, side:] - sums[side:, :-side]
        window = window + sums[:-side, :-side]
        window = np.sqrt(np.maximum(window, _LEAST * total + 1e-9))
        agreement = products[number, :, :room, :room] / window
        agreement = agreement.max(axis=(1, 2)) / np.maximum(norms[number], 1e-9)
        best = max(best, float(agreement.max()))
    return min(best, 1.0)


def _directions(picture: Image.Image, side: int) -> Map:
    """(side, side): strength and doubled direction of the edges as complex numbers."""
    from PIL import Image

    small = picture.resize((side + 2, side + 2), Image.Resampling.BOX)
    pixels = np.asarray(small, np.float32)
    across = pixels[1:-1, 2:] - pixels[1:-1, :-2]
    down = pixels[2:, 1:-1] - pixels[:-2, 1:-1]
    # (a + ib)^2 of each channel, summed: channels whose edges run the other way do not cancel.
    doubled = np.sum((across + 1j * down) ** 2, axis=2)
    strength = np.abs(doubled)
    # The fourth root of the squared strength: a few hard edges do not outweigh all the others.
    directions: Map = (doubled / (strength**0.75 + _NOISE**1.5)).astype(np.complex64)
    return directions
