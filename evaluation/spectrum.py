"""The spectrum of a query: all that calibration needs of its gallery, in bounded memory.

A query's gallery is every distractor and its own exemplars (paper, section on the evaluation
protocol). The calibrator sees of it nothing but the similarities, and of the distractors' not even
which is whose. So a gallery of any size is streamed once, and of each query there stay its
exemplars' similarities, the nearest distractors' exactly, and a histogram of the rest.

A bin of the histogram keeps count, mean and variance of what fell into it, and is read as two
terms of half the count at mean - deviation and mean + deviation. Sums over smooth functions of the
similarity are then exact up to the third order in the width of the bin (two-point Gauss
quadrature): for the calibrator's temperatures that is nothing, while the terms are few.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from ingest.errors import RunError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from evaluation.features import CaseFeatures

__all__ = ["Blocks", "Spectrum", "SpectrumBuilder", "case_spectrum", "joined"]

NEAREST = 1024
"""Distractors of each query whose similarities are kept as they are."""

BINS = 2048
"""Of the histogram, over cosines from -1 to 1."""

_NOTHING = -4.0
_QUERIES = 128
_ROWS = 8192


class Blocks(Protocol):
    """The part of a gallery that is needed here."""

    @property
    def dim(self) -> int:
        """Length of a feature."""
        ...

    def blocks(self, rows: int, /) -> Iterator[NDArray[np.float32]]:
        """Normalised `real` features, (at most `rows`, dim) each."""
        ...


@dataclass(frozen=True, eq=False)
class Spectrum:
    """Similarities of queries to their galleries.

    Attributes:
        exemplars: float32 (exemplars of all queries,), those of one query stand together.
        chunks: int64 (queries + 1,); query q has exemplars chunks[q] .. chunks[q + 1], at least
            one.
        similarities: float32 (queries, terms), of distractors: the nearest, descending, then the
            two terms of each bin.
        counts: float32 (queries, terms), how many distractors a term stands for; 0 where a query
            has fewer terms than others.
        models: int64 (queries,), which queries were made by the same model.
    """

    exemplars: NDArray[np.float32]
    chunks: NDArray[np.int64]
    similarities: NDArray[np.float32]
    counts: NDArray[np.float32]
    models: NDArray[np.int64]

    def __post_init__(self) -> None:
        if not len(self):
            raise RunError("no generated image to calibrate on")
        if (np.diff(self.chunks) < 1).any():
            raise RunError("a generated image without exemplar cannot be calibrated on")

    def __len__(self) -> int:
        return len(self.chunks) - 1

    @property
    def positives(self) -> NDArray[np.int64]:
        """(queries,) how many exemplars each query has."""
        counts: NDArray[np.int64] = np.diff(self.chunks)
        return counts

    @property
    def owners(self) -> NDArray[np.int64]:
        """(exemplars of all queries,) the query that each belongs to."""
        return np.repeat(np.arange(len(self)), self.positives)

    @property
    def gallery(self) -> NDArray[np.int64]:
        """(queries,) size of each query's gallery, its exemplars included."""
        sizes: NDArray[np.int64] = (
            np.rint(self.counts.sum(axis=1, dtype=np.float64)).astype(np.int64) + self.positives
        )
        return sizes

    @property
    def largest(self) -> NDArray[np.float32]:
        """(queries,) m, the largest similarity in each query's gallery."""
        largest = np.maximum.reduceat(self.exemplars, self.chunks[:-1])
        present = np.where(self.counts > 0, self.similarities, np.float32(_NOTHING))
        overall: NDArray[np.float32] = np.maximum(largest, present.max(axis=1, initial=_NOTHING))
        return overall

    def of_queries(self, queries: Sequence[int] | NDArray[np.integer[Any]]) -> Spectrum:
        """The same with some queries only, in the order given."""
        chosen = np.asarray(queries, np.int64)
        rows = np.concatenate(
            [np.arange(self.chunks[q], self.chunks[q + 1]) for q in chosen]
            or [np.empty(0, np.int64)]
        )
        sizes = self.positives[chosen]
        return replace(
            self,
            exemplars=self.exemplars[rows],
            chunks=np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64),
            similarities=self.similarities[chosen],
            counts=self.counts[chosen],
            models=self.models[chosen],
        )


class SpectrumBuilder:
    """Takes the distractors block by block. Memory does not grow with their number.

    Args:
        queries: float32 (queries, dim), normalised `synth` features.
        exemplars: one float32 (exemplars,) a query: its similarities to its own exemplars.
        models: (queries,) which queries were made by the same model; each by one of its own
            where None.
        nearest: distractors of each query whose similarities are kept as they are.
    """

    def __init__(
        self,
        queries: NDArray[np.float32],
        exemplars: Sequence[NDArray[np.float32]],
        models: NDArray[np.int64] | None = None,
        *,
        nearest: int = NEAREST,
    ) -> None:
        count = len(queries)
        if len(exemplars) != count or (models is not None and len(models) != count):
            raise ValueError(f"{count} queries, {len(exemplars)} lists of exemplars")
        self._queries = np.ascontiguousarray(queries, np.float32)
        self._exemplars = [np.asarray(some, np.float32) for some in exemplars]
        self._models = np.arange(count) if models is None else np.asarray(models, np.int64)
        self._nearest = np.full((count, nearest), _NOTHING, np.float32)
        # Bin 0 takes what is no similarity; n, sum and sum of squares of deviations from its middle
        self._moments = np.zeros((3, count, BINS + 2))

    def add(
        self,
        block: NDArray[np.float32],
        own: tuple[NDArray[np.integer[Any]], NDArray[np.integer[Any]]] | None = None,
    ) -> None:
        """Take (n, dim) features in.

        Args:
            block: normalised `real` features.
            own: (pairs,) queries and (pairs,) rows of the block: rows that are an exemplar of that
                query, and so no distractor for it.
        """
        for start in range(0, len(self._queries), _QUERIES):
            part = slice(start, start + _QUERIES)
            scores = self._queries[part] @ block.T  # (queries, n)
            if own is not None:
                here = (own[0] >= start) & (own[0] < start + _QUERIES)
                scores[own[0][here] - start, own[1][here]] = _NOTHING
            joined = np.concatenate([self._nearest[part], scores], axis=1)
            farther = len(block)
            joined.partition(farther, axis=1)
            self._nearest[part] = joined[:, farther:]
            self._bin(part, joined[:, :farther])

    def _bin(self, part: slice, farther: NDArray[np.float32]) -> None:
        place = ((farther + np.float32(1)) * np.float32(BINS / 2)).astype(np.int64) + 1
        np.clip(place, 0, BINS + 1, out=place)
        deviation = farther - _middles()[place]
        place += np.arange(len(farther))[:, None] * (BINS + 2)
        flat, size = place.ravel(), len(farther) * (BINS + 2)
        counts, sums, squares = (moment[part] for moment in self._moments)
        counts += np.bincount(flat, minlength=size).reshape(counts.shape)
        sums += np.bincount(flat, deviation.ravel(), size).reshape(counts.shape)
        squares += np.bincount(flat, np.square(deviation).ravel(), size).reshape(counts.shape)

    def build(self) -> Spectrum:
        """The spectrum of everything that was added.

        Raises:
            RunError: no query, or one without exemplar.
        """
        nearest = -np.sort(-self._nearest, axis=1)
        nearest = nearest[:, : int((nearest > _NOTHING / 2).sum(axis=1).max(initial=0))]
        full = int((self._moments[0][:, 1:] > 0).sum(axis=1).max(initial=0))
        width = nearest.shape[1]
        similarities = np.zeros((len(nearest), width + 2 * full), np.float32)
        counts = np.zeros_like(similarities)
        similarities[:, :width] = nearest
        counts[:, :width] = nearest > _NOTHING / 2
        middles = _middles()[1:]
        for row in range(len(nearest)):
            n, total, squares = self._moments[:, row, 1:]
            bins = np.flatnonzero(n)[::-1]  # descending, like the nearest
            n = n[bins]
            off = total[bins] / n
            spread = np.sqrt(np.maximum(squares[bins] / n - off * off, 0))
            mean = middles[bins] + off
            terms = slice(width, width + 2 * len(bins))
            similarities[row, terms] = np.column_stack([mean + spread, mean - spread]).ravel()
            counts[row, terms] = np.repeat(n / 2, 2)
        return Spectrum(
            exemplars=np.concatenate([*self._exemplars, np.empty(0, np.float32)]),
            chunks=np.cumsum([0, *(len(some) for some in self._exemplars)]).astype(np.int64),
            similarities=similarities,
            counts=counts,
            models=self._models,
        )


def case_spectrum(case: CaseFeatures, gallery: Blocks, *, nearest: int = NEAREST) -> Spectrum:
    """The spectrum of a test case's generated images against all distractors and their exemplars.

    Args:
        case: mapped (`CaseFeatures.mapped`).
        gallery: the distractors.
        nearest: see `SpectrumBuilder`.

    Raises:
        RunError: features of another length than the gallery's, or no generated image.
    """
    if case.dim != gallery.dim:
        raise RunError(
            f"{case.name}: features of {case.dim} numbers, the distractors' have {gallery.dim}"
        )
    exemplars = [
        case.exemplars_of(int(model)) @ query
        for query, model in zip(case.synth, case.synth_model, strict=True)
    ]
    builder = SpectrumBuilder(case.synth, exemplars, case.synth_model, nearest=nearest)
    for block in gallery.blocks(_ROWS):
        builder.add(block)
    return builder.build()


def joined(spectra: Sequence[Spectrum]) -> Spectrum:
    """The queries of all, one after another; models of different spectra are different models."""
    terms = max(spectrum.similarities.shape[1] for spectrum in spectra)

    def wide(array: NDArray[np.float32]) -> NDArray[np.float32]:
        return np.pad(array, ((0, 0), (0, terms - array.shape[1])))

    models, named = [], 0
    for spectrum in spectra:
        _, which = np.unique(spectrum.models, return_inverse=True)
        models.append(which + named)
        named += int(which.max()) + 1
    return Spectrum(
        exemplars=np.concatenate([spectrum.exemplars for spectrum in spectra]),
        chunks=np.cumsum(
            np.concatenate([[0], *(spectrum.positives for spectrum in spectra)])
        ).astype(np.int64),
        similarities=np.concatenate([wide(spectrum.similarities) for spectrum in spectra]),
        counts=np.concatenate([wide(spectrum.counts) for spectrum in spectra]),
        models=np.concatenate(models).astype(np.int64),
    )


def _middles() -> NDArray[np.float32]:
    """(BINS + 2,) middle of each bin; the first is of what is no similarity."""
    return ((np.arange(BINS + 2) - 0.5) * (2 / BINS) - 1).astype(np.float32)
