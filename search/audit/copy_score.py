"""How much one picture looks like a copy of another: their edges laid over each other.

A picture is taken as the directions of its edges on a grid: flat paper, white or not, counts
nothing, so that two drawings do not agree by the paper they are on. Directions without sign
(doubled angles) of all three colour channels survive other colours and brightness. The one picture,
whole or mirrored, is looked for in the other at several sizes and in every place (it may be a crop
of it) by normalised cross-correlation through the Fourier transform (Lewis, *Fast Normalized
Cross-Correlation*, 1995; orientations: Fitch et al., BMVC 2002).

Few straight edges agree easily: two flags, two arrows. So the score, a logistic regression, asks
for more agreement where there is little to agree in, and where the colours differ.

A first look at half the resolution tells most pairs apart at a quarter of the time.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from search.audit.edge_maps import COARSE, FINE, Grid, Map, directions, opposite, ring, shifts

if TYPE_CHECKING:
    from PIL import Image

__all__ = ["FEATURES", "Agreement", "Edges", "compare", "copy_scores", "score_of"]

_PICTURE = 128  # pixels a side that a picture is kept with
_COLOURS = 24  # cells a side at which colours are compared

_LEAST = 0.02  # of the strength of a picture's edges, that a window must have to be compared
_ORDINARY = 500.0  # cells with edges of a picture of middling detail

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

_WORTH = 0.005
"""Score on the coarse grid from which on the fine one is looked at. Of copies that the fine one
finds it lets through 999 in 1,000, and 2 in 100 of generated images beside what is most similar."""


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
        picture: mode RGB, a square.
        grid: that its edges are taken on.
    """

    picture: Image.Image
    grid: Grid = FINE

    @classmethod
    def of(cls, image: Image.Image) -> Edges:
        """Of an RGB image of any size; it is squeezed to a square."""
        from PIL import Image

        size = (_PICTURE, _PICTURE)
        return cls(image.resize(size, Image.Resampling.BILINEAR, reducing_gap=2.0))

    @cached_property
    def coarse(self) -> Edges:
        """The same picture on the coarse grid."""
        return Edges(self.picture, COARSE)

    @cached_property
    def spectrum(self) -> Map:
        """(cells, cells): of the whole picture."""
        from scipy import fft

        transformed: Map = fft.fft2(self._whole)
        return transformed

    @cached_property
    def both_spectra(self) -> Map:
        """(2, cells, cells): `spectrum`, and its conjugate at the opposite frequencies."""
        return np.stack([self.spectrum, opposite(self.spectrum).conj()])

    @cached_property
    def energy(self) -> NDArray[np.float64]:
        """(cells + 1, cells + 1): squared strength summed over all cells above and to the left."""
        side = self.grid.cells + 1
        sums = np.zeros((side, side))
        sums[1:, 1:] = np.cumsum(np.cumsum(self._squares, 0), 1)
        return sums

    @cached_property
    def templates(self) -> tuple[Map, NDArray[np.float32]]:
        """What `compare` multiplies `both_spectra` by, (2, sizes, cells, cells), and the norms of
        the picture's edges in every size, (sizes,).

        With F the spectrum of the picture in one size and M that of its mirror image, the
        correlations with a training image of spectrum S are the real parts of the transforms of
        S F* and S M*. A real part's spectrum is the Hermitian part, and one transform carries two
        of them, one as its real and one as its imaginary part. All that does not depend on S is
        put together here.
        """
        from scipy import fft

        cells, sides = self.grid.cells, self.grid.sides
        maps = directions(self.picture, cells, sides)
        squares = maps.view(np.float32) ** 2
        norms = np.sqrt(np.sum(squares, axis=(1, 2), dtype=np.float64))
        spectra: Map = fft.fft2(maps, overwrite_x=True)
        # Mirrored, a doubled angle changes its sign: x becomes side - 1 - x, and each number its
        # conjugate.
        turned = np.roll(spectra[:, ::-1], 1, axis=1)
        mirrored = turned.conj() * shifts(cells, sides)[:, None, :]
        own = spectra.conj() + 1j * mirrored.conj()
        other = opposite(spectra) + 1j * opposite(mirrored)
        return (
            np.stack([own, other]).astype(np.complex64) / np.float32(2),
            np.maximum(norms, 1e-9).astype(np.float32),
        )

    @cached_property
    def cells_of_colour(self) -> NDArray[np.float32]:
        """(`_COLOURS`, `_COLOURS`, 3): of the whole picture, less its mean."""
        return _colours(self.picture, (0, 0, *self.picture.size))

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
        return float(moved[ring(self.grid.cells)].max() / (float(self._squares.sum()) + 1e-9))

    @cached_property
    def _whole(self) -> Map:
        cells = self.grid.cells
        whole: Map = directions(self.picture, cells, (cells,))[0]
        return whole

    @cached_property
    def _squares(self) -> NDArray[np.float64]:
        return np.abs(self._whole).astype(np.float64) ** 2


def score_of(agreement: Agreement) -> float:
    """0..1: how likely the one picture is a copy of the other, on the terms of the fit."""
    value = math.fsum(w * x for w, x in zip(WEIGHTS, agreement.features, strict=True))
    return 1 / (1 + math.exp(-value))


def copy_scores(generated: Edges, training: Sequence[Edges]) -> list[float]:
    """`score_of` what `compare` finds, by training image; on the coarse grid alone where that rules
    a copy out.
    """
    if not training:
        return []
    coarse = compare(generated.coarse, [edges.coarse for edges in training], _WORTH)
    scores = [score_of(agreement) for agreement in coarse]
    worth = [place for place, score in enumerate(scores) if score >= _WORTH]
    if worth:
        fine = compare(generated, [training[place] for place in worth])
        for place, agreement in zip(worth, fine, strict=True):
            scores[place] = score_of(agreement)
    return scores


def compare(
    generated: Edges, training: Sequence[Edges], least_score: float = 0.0
) -> list[Agreement]:
    """Find where the generated picture, or its mirror image, fits best on each training image.

    All are on the same grid, and there is at least one. Where the edges agree so little that the
    same colours would not bring the score to `least_score`, colours are not looked at, and taken to
    be the same.
    """
    from scipy import fft

    own, other = generated.templates[0]
    spectra = np.stack([edges.both_spectra for edges in training])[:, :, None]
    products = spectra[:, 0] * own
    products += spectra[:, 1] * other
    found = fft.ifft2(products, overwrite_x=True)  # (training, sizes, cells, cells)
    energy = np.stack([edges.energy for edges in training])
    best = _best_places(generated, found, energy)
    return [
        _agreement(generated, edges, place, least_score)
        for edges, place in zip(training, best, strict=True)
    ]


@dataclass
class _Place:
    """Where a picture fits best on another, in cells; `share` as `Agreement.contained`."""

    edges: float
    mirrored: bool
    left: int
    top: int
    side: int
    share: float


def _best_places(generated: Edges, found: Map, energy: NDArray[np.float64]) -> list[_Place]:
    """`found`: (training, sizes, cells, cells), the real part as it is, the imaginary mirrored."""
    grid, norms = generated.grid, generated.templates[1]
    least = _LEAST * energy[:, -1, -1] + 1e-9  # (training,)
    best = [_Place(0.0, False, 0, 0, grid.cells, 0.0) for _ in energy]
    for number, side in enumerate(grid.sides):
        room = grid.cells - side + 1  # beyond it the transform has wrapped around
        windows = np.sqrt(np.maximum(_windows(energy, side), least[:, None, None]))
        windows = windows.astype(np.float32)  # (training, room, room)
        here = found[:, number, :room, :room]
        fit = np.stack([here.real, here.imag], axis=1) / (windows * norms[number])[:, None]
        flat = fit.reshape(len(energy), -1)
        for place, at in enumerate(flat.argmax(axis=1).tolist()):
            edges = float(flat[place, at])
            if edges > best[place].edges:
                flip, top, left = (int(n) for n in np.unravel_index(at, fit.shape[1:]))
                share = edges * float(norms[number]) / float(windows[place, top, left])
                best[place] = _Place(edges, flip == 1, left, top, side, share)
    return best


def _agreement(generated: Edges, training: Edges, place: _Place, least_score: float) -> Agreement:
    agreement = Agreement(
        edges=min(place.edges, 1.0),
        contained=min(place.share, 1.0),
        colours=1.0,
        detail=min(generated.detail, training.detail),
        repetition=max(generated.repetition, training.repetition),
    )
    if score_of(agreement) < least_score:
        return agreement
    pixels = training.picture.width // training.grid.cells
    left, top, side = pixels * place.left, pixels * place.top, pixels * place.side
    one = generated.cells_of_colour
    one = one[:, ::-1] if place.mirrored else one
    other = _colours(training.picture, (left, top, left + side, top + side))
    scale = math.sqrt(float((one**2).sum()) * float((other**2).sum()))
    colours = min(float((one * other).sum()) / (scale + 1e-3), 1.0)
    return replace(agreement, colours=colours)


def _colours(picture: Image.Image, box: tuple[int, int, int, int]) -> NDArray[np.float32]:
    """(`_COLOURS`, `_COLOURS`, 3): of that part of a picture, less its mean."""
    from PIL import Image

    cells = picture.resize((_COLOURS, _COLOURS), Image.Resampling.BOX, box=box)
    colours: NDArray[np.float32] = np.asarray(cells, np.float32)
    colours = colours - colours.mean((0, 1))
    return colours


def _windows(sums: NDArray[np.float64], side: int) -> NDArray[np.float64]:
    """(training, room, room): the sum over every window of that side."""
    across = sums[:, :, side:] - sums[:, :, :-side]
    windows: NDArray[np.float64] = across[:, side:] - across[:, :-side]
    return windows
