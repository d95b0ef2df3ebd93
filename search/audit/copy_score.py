"""How much one picture looks like a copy of another: their edges laid over each other.

A picture is taken as the directions of its edges on a grid: flat paper, white or not, counts
nothing, so that two drawings do not agree by the paper they are on. Directions without sign
(doubled angles) of all three colour channels survive other colours and brightness. The one picture,
whole or mirrored, is looked for in the other at several sizes and in every place (it may be a crop
of it) by normalised cross-correlation through the Fourier transform (Lewis, *Fast Normalized
Cross-Correlation*, 1995; orientations: Fitch et al., BMVC 2002).

Few straight edges agree easily: two flags, two arrows. So the score, a logistic regression, asks
for more agreement where there is little to agree in, and where the colours differ.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache, cached_property
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from PIL import Image

__all__ = ["FEATURES", "Agreement", "Edges", "compare", "score_of"]

Map: TypeAlias = NDArray[np.complex64]

_GRID = 64
_SCALES = (1.0, 0.95, 0.9, 0.84, 0.78, 0.72, 0.66, 0.6, 0.55, 0.5)
"""Share of the training image's sides that the generated image may show."""
_COLOURS = 24  # cells a side at which colours are compared

_NOISE = 6.0  # gradient, of 255 a pixel, that the grain of a JPEG has
_LEAST = 0.02  # of the strength of a picture's edges, that a window must have to be compared
_ORDINARY = 500.0  # cells with edges of a picture of middling detail
_NEAR, _FAR = 4.0, 9.0  # cells that a picture is moved by to see how much it repeats itself

FEATURES = (
    "edges",
    "contained",
    "-ln(1.03 - edges)",
    "-ln(1.03 - contained)",
    "detail",
    "repetition",
    "contained * detail",
    "contained * repetition",
    "-ln(1.03 - colours)",
    "1",
)
"""What `WEIGHTS` are of, see `Agreement.features`."""
WEIGHTS = (3.813, -0.554, 5.029, 0.1, -0.16, -7.656, 1.489, -5.487, 1.404, -12.008)
"""Fitted by ``python -m benchmarks.near_copy --fit``, on half of the images."""


@dataclass(frozen=True)
class Agreement:
    """How two pictures agree where they agree best.

    Attributes:
        edges: correlation of the directions of their edges, 0..1.
        contained: share of the training image's edges there that the generated one has, 0..1: all
            of them even where more was drawn beside, not all where something else is in place.
        colours: correlation of their colours in the same place, -1..1.
        detail: ln of how many cells have edges, of the picture that has fewer, over a middling
            picture's.
        repetition: how much the edges agree with themselves when moved a little, 0..1, of the
            picture where it is more: near 1 for straight lines and patterns.
    """

    edges: float
    contained: float
    colours: float
    detail: float
    repetition: float

    @property
    def features(self) -> tuple[float, ...]:
        """In order of `FEATURES`."""
        edges, contained, colours = (
            -math.log(1.03 - value) for value in (self.edges, self.contained, self.colours)
        )
        return (
            self.edges,
            self.contained,
            edges,
            contained,
            self.detail,
            self.repetition,
            self.contained * self.detail,
            self.contained * self.repetition,
            colours,
            1.0,
        )


@dataclass(frozen=True, eq=False)
class Edges:
    """A picture, made ready to be compared; use `of`.

    Attributes:
        picture: mode RGB, two pixels a cell.
    """

    picture: Image.Image

    @classmethod
    def of(cls, image: Image.Image) -> Edges:
        """Of an RGB image of any size; it is squeezed to a square."""
        from PIL import Image

        side = 2 * _GRID
        return cls(image.resize((side, side), Image.Resampling.BILINEAR, reducing_gap=2.0))

    @cached_property
    def spectrum(self) -> Map:
        """(grid, grid): of the whole picture."""
        from scipy import fft

        transformed: Map = fft.fft2(self._whole)
        return transformed

    @cached_property
    def energy(self) -> NDArray[np.float64]:
        """(grid + 1, grid + 1): squared strength summed over all cells above and to the left."""
        sums = np.zeros((_GRID + 1, _GRID + 1))
        sums[1:, 1:] = np.cumsum(np.cumsum(self._squares, 0), 1)
        return sums

    @cached_property
    def templates(self) -> tuple[Map, NDArray[np.float64]]:
        """Conjugate spectra (scales, 2, grid, grid) of the picture in every size, as it is and
        mirrored; and the maps' norms (scales, 2).
        """
        from scipy import fft

        maps = np.zeros((len(_SCALES), 2, _GRID, _GRID), np.complex64)
        for number, side in enumerate(_sides()):
            small = self._whole if side == _GRID else _directions(self.picture, side)
            maps[number, 0, :side, :side] = small
            # Mirrored, a doubled angle changes its sign.
            maps[number, 1, :side, :side] = small[:, ::-1].conj()
        norms = np.sqrt(np.sum(maps.real**2 + maps.imag**2, axis=(2, 3), dtype=np.float64))
        return np.conj(fft.fft2(maps)), np.maximum(norms, 1e-9)

    @cached_property
    def detail(self) -> float:
        """See `Agreement`."""
        total = float(self._squares.sum())
        cells = total**2 / (float((self._squares**2).sum()) + 1e-9)
        return math.log(max(cells, 1.0) / _ORDINARY)

    @cached_property
    def repetition(self) -> float:
        """See `Agreement`."""
        from scipy import fft

        moved = fft.ifft2(np.abs(self.spectrum) ** 2).real
        return float(moved[_ring()].max() / (float(self._squares.sum()) + 1e-9))

    @cached_property
    def _whole(self) -> Map:
        return _directions(self.picture, _GRID)

    @cached_property
    def _squares(self) -> NDArray[np.float64]:
        return np.abs(self._whole).astype(np.float64) ** 2


def score_of(agreement: Agreement) -> float:
    """0..1: how likely the one picture is a copy of the other, on the terms of the fit."""
    value = math.fsum(w * x for w, x in zip(WEIGHTS, agreement.features, strict=True))
    return 1 / (1 + math.exp(-value))


def compare(generated: Edges, training: Edges) -> Agreement:
    """Find where the generated picture, or its mirror image, fits best on the training image."""
    from scipy import fft

    spectra, norms = generated.templates
    products = fft.ifft2(spectra * training.spectrum).real  # (scales, 2, grid, grid)
    least = _LEAST * float(training.energy[-1, -1]) + 1e-9
    edges, share, mirrored, top, left, width = 0.0, 0.0, False, 0, 0, _GRID
    for number, side in enumerate(_sides()):
        room = _GRID - side + 1  # beyond it the transform has wrapped around
        window = np.sqrt(np.maximum(_windows(training.energy, side), least))
        fit = products[number, :, :room, :room] / window / norms[number][:, None, None]
        best = int(fit.argmax())
        if fit.flat[best] > edges:
            edges = float(fit.flat[best])
            flip, top, left = (int(place) for place in np.unravel_index(best, fit.shape))
            mirrored, width = flip == 1, side
            share = edges * float(norms[number, flip]) / float(window[top, left])
    box = (2 * left, 2 * top, 2 * (left + width), 2 * (top + width))
    return Agreement(
        edges=min(edges, 1.0),
        contained=min(share, 1.0),
        colours=_colours(generated.picture, mirrored, training.picture, box),
        detail=min(generated.detail, training.detail),
        repetition=max(generated.repetition, training.repetition),
    )


def _colours(
    generated: Image.Image, mirrored: bool, training: Image.Image, box: tuple[int, int, int, int]
) -> float:
    from PIL import Image

    size = (_COLOURS, _COLOURS)
    one = np.asarray(generated.resize(size, Image.Resampling.BOX), np.float64)
    one = one[:, ::-1] if mirrored else one
    other = np.asarray(training.resize(size, Image.Resampling.BOX, box=box), np.float64)
    one, other = one - one.mean((0, 1)), other - other.mean((0, 1))
    scale = math.sqrt(float((one**2).sum()) * float((other**2).sum()))
    return float((one * other).sum()) / (scale + 1e-3)


def _windows(sums: NDArray[np.float64], side: int) -> NDArray[np.float64]:
    """(room, room): the sum over every window of that side."""
    across = sums[:, side:] - sums[:, :-side]
    windows: NDArray[np.float64] = across[side:] - across[:-side]
    return windows


def _directions(picture: Image.Image, side: int) -> Map:
    """(side, side): strength and doubled direction of the edges as complex numbers."""
    from PIL import Image

    small = picture.resize((side + 2, side + 2), Image.Resampling.BOX)
    pixels = np.asarray(small, np.float32)
    across = pixels[1:-1, 2:] - pixels[1:-1, :-2]
    down = pixels[2:, 1:-1] - pixels[:-2, 1:-1]
    # (across + i down)^2 of each channel, summed: channels of opposite edges do not cancel.
    doubled = np.empty((side, side), np.complex64)
    doubled.real = ((across - down) * (across + down)).sum(axis=2)
    doubled.imag = 2 * (across * down).sum(axis=2)
    # Smoothed as a structure tensor is: places then need not agree to a fraction of a cell.
    doubled[1:-1] = (doubled[:-2] + 2 * doubled[1:-1] + doubled[2:]) / 4
    doubled[:, 1:-1] = (doubled[:, :-2] + 2 * doubled[:, 1:-1] + doubled[:, 2:]) / 4
    root = np.sqrt(np.abs(doubled))
    # Strength to the power of a quarter: a few hard edges do not outweigh all the others.
    directions: Map = doubled / (root * np.sqrt(root) + np.float32(_NOISE**1.5))
    return directions


@cache
def _sides() -> tuple[int, ...]:
    return tuple(round(_GRID * scale) for scale in _SCALES)


@cache
def _ring() -> NDArray[np.bool_]:
    """(grid, grid): the moves that `repetition` looks at."""
    steps = np.fft.fftfreq(_GRID) * _GRID
    distance = np.hypot(steps[:, None], steps[None, :])
    ring: NDArray[np.bool_] = (distance >= _NEAR) & (distance <= _FAR)
    return ring
