"""The spectrum in bounded memory against the full matrix of similarities."""

from __future__ import annotations

import tracemalloc
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pytest
from numpy.testing import assert_allclose
from numpy.typing import NDArray

from embed.calibrator import Calibrator
from evaluation.divergence import deployed, kl, kl_smoothed, kl_softmax
from evaluation.features import CaseFeatures
from evaluation.spectrum import BINS, SpectrumBuilder, case_spectrum, joined
from ingest.errors import RunError
from search.calibration import influence

SEED = 20_260_811
CALIBRATORS = [
    Calibrator(tau, b) for tau in (0.01, 0.05, 0.4) for b in (-0.6, -0.1, -0.02, 0.0, 0.3)
]


@dataclass
class Rows:
    """A gallery in memory, in blocks of odd sizes."""

    features: NDArray[np.float32]
    step: int = 37

    @property
    def dim(self) -> int:
        return self.features.shape[1]

    def blocks(self, rows: int, /) -> Iterator[NDArray[np.float32]]:
        for start in range(0, len(self.features), min(self.step, rows)):
            yield self.features[start : start + min(self.step, rows)]


def exact(x: NDArray[np.float64]) -> NDArray[np.float32]:
    """Length 1 but for rounding to 1/256: similarities are then the same bits however computed."""
    return (np.rint(x / np.linalg.norm(x, axis=1, keepdims=True) * 256) / 256).astype(np.float32)


def unit(rng: np.random.Generator, rows: int, dim: int) -> NDArray[np.float32]:
    """Clustered, as features of images are: similarities are spread wide."""
    x = rng.normal(size=(rows, dim)) + 1.5 * rng.normal(size=(8, dim))[rng.integers(0, 8, rows)]
    return exact(x)


def made_case(rng: np.random.Generator, dim: int = 12) -> CaseFeatures:
    """3 models with 1, 4 and 2 exemplars, 5, 2 and 3 generated images."""
    chunks = np.array([0, 1, 5, 7])
    exemplars = unit(rng, 7, dim)
    synth_model = np.array([0] * 5 + [1] * 2 + [2] * 3)
    synth = exact(exemplars[chunks[synth_model]] + 0.25 * rng.normal(size=(10, dim)))
    return CaseFeatures(
        "made", ("a", "b", "c"), exemplars, chunks, synth, synth_model, ("gpt",) * 10
    )


def full_shares(
    case: CaseFeatures, distractors: NDArray[np.float32], calibrator: Calibrator
) -> list[NDArray[np.float64]]:
    """Influence of each query over its whole gallery, own exemplars first."""
    shares = []
    for query, model in zip(case.synth, case.synth_model, strict=True):
        gallery = np.concatenate([case.exemplars_of(int(model)), distractors])
        shares.append(influence((gallery @ query)[None], calibrator)[0])
    return shares


def full_kl(
    case: CaseFeatures, distractors: NDArray[np.float32], calibrator: Calibrator
) -> NDArray[np.float64]:
    values = []
    for query, model in zip(case.synth, case.synth_model, strict=True):
        own = case.exemplars_of(int(model))
        s = (np.concatenate([own, distractors]) @ query).astype(np.float64)
        u = np.exp((s - s.max()) / calibrator.tau) + calibrator.b
        w = np.logaddexp(0, 100 * u) / 100
        shares = w[: len(own)] / w.sum()
        values.append(np.mean(np.log(1 / len(own) / shares)))
    return np.array(values)


@pytest.mark.parametrize("nearest", [1, 64, 4096])
def test_the_loss_is_that_of_the_full_matrix(nearest: int) -> None:
    rng = np.random.default_rng(SEED)
    print(f"seed {SEED}")
    case, distractors = made_case(rng), unit(rng, 3000, 12)
    spectrum = case_spectrum(case, Rows(distractors), nearest=nearest)
    assert spectrum.gallery.tolist() == [3001] * 5 + [3004] * 2 + [3002] * 3
    for calibrator in CALIBRATORS:
        assert_allclose(
            kl(spectrum, calibrator), full_kl(case, distractors, calibrator), rtol=1e-6, atol=1e-6
        )


def test_deployed_influence_is_that_of_the_definition() -> None:
    rng = np.random.default_rng(SEED + 1)
    case, distractors = made_case(rng), unit(rng, 2000, 12)
    spectrum = case_spectrum(case, Rows(distractors))
    for calibrator in CALIBRATORS:
        shares = full_shares(case, distractors, calibrator)
        sizes = spectrum.positives
        given = deployed(spectrum, calibrator)
        assert_allclose(
            given.shares,
            np.concatenate([s[:n] for s, n in zip(shares, sizes, strict=True)]),
            rtol=1e-4,
            atol=1e-9,
        )
        assert_allclose(given.mass, [s[:n].sum() for s, n in zip(shares, sizes, strict=True)], 1e-4)
        assert_allclose(given.support, [(s > 0).sum() for s in shares], rtol=2e-3, atol=1)


def test_softmax_and_smoothing() -> None:
    rng = np.random.default_rng(SEED + 2)
    case, distractors = made_case(rng), unit(rng, 500, 12)
    spectrum = case_spectrum(case, Rows(distractors))
    soft = kl_softmax(spectrum, 0.07)
    expected, smoothed = [], []
    for shares, n in zip(
        full_shares(case, distractors, Calibrator(0.07, 0.0)), spectrum.positives, strict=True
    ):
        expected.append(-np.mean(np.log(shares[:n])) - np.log(n))
        spread = 0.9 * shares + 0.1 / len(shares)
        smoothed.append(-np.mean(np.log(spread[:n])) - np.log(n))
    assert_allclose(soft, expected, rtol=1e-6)
    assert_allclose(
        kl_smoothed(spectrum, Calibrator(0.07, 0.0), smoothing=0.1), smoothed, rtol=1e-6
    )


def test_rows_of_the_gallery_that_are_exemplars_are_left_out() -> None:
    rng = np.random.default_rng(SEED + 3)
    distractors, queries = unit(rng, 90, 6), unit(rng, 3, 6)
    # Query 0 has rows 5 and 60, query 1 row 5, query 2 row 89.
    own = [[5, 60], [5], [89]]
    exemplars = [distractors[rows] @ query for rows, query in zip(own, queries, strict=True)]
    builder = SpectrumBuilder(queries, exemplars, nearest=8)
    pairs = np.array([[0, 5], [0, 60], [1, 5], [2, 89]])
    for start in range(0, 90, 30):
        here = pairs[(pairs[:, 1] >= start) & (pairs[:, 1] < start + 30)]
        builder.add(distractors[start : start + 30], (here[:, 0], here[:, 1] - start))
    spectrum = builder.build()
    assert spectrum.gallery.tolist() == [90, 90, 90]
    for query in range(3):
        rest = np.delete(distractors, own[query], axis=0) @ queries[query]
        present = spectrum.counts[query] > 0
        assert_allclose(spectrum.similarities[query][:8], np.sort(rest)[::-1][:8], rtol=1e-6)
        weighted = spectrum.counts[query] * spectrum.similarities[query]
        assert_allclose(weighted[present].sum(), rest.sum(), rtol=1e-4)
        assert spectrum.largest[query] == max(exemplars[query].max(), rest.max())


def test_a_bin_keeps_count_mean_and_variance() -> None:
    # One query along the first axis; four distractors in one bin of the histogram, one at each end.
    middle = (BINS // 2 + 100.5) * 2 / BINS - 1
    inside = middle + np.array([-0.3, -0.2, 0.1, 0.4]) * 2 / BINS
    s = np.array([0.9, *inside, -1.0, 1.0], np.float32)
    features = np.stack([s, np.sqrt(1 - s * s)], axis=1).astype(np.float32)
    builder = SpectrumBuilder(
        np.array([[1, 0]], np.float32), [np.array([0.5], np.float32)], nearest=1
    )
    builder.add(features[:3])
    builder.add(features[3:])
    spectrum = builder.build()
    assert spectrum.counts.tolist() == [[1, 0.5, 0.5, 2, 2, 0.5, 0.5]]
    mean, spread = inside.mean(), inside.std()
    assert_allclose(
        spectrum.similarities[0],
        [1, 0.9, 0.9, mean + spread, mean - spread, -1, -1],
        rtol=0,
        atol=2e-7,
    )


def test_fewer_distractors_than_are_kept_exactly_and_none_at_all() -> None:
    rng = np.random.default_rng(SEED + 4)
    case = made_case(rng)
    few = case_spectrum(case, Rows(unit(rng, 5, 12)))
    assert few.similarities.shape == (10, 5)
    none = case_spectrum(case, Rows(np.empty((0, 12), np.float32)))
    assert none.similarities.shape == (10, 0)
    assert none.gallery.tolist() == [1] * 5 + [4] * 2 + [2] * 3
    assert_allclose(kl(none, Calibrator(0.1, -0.1))[:5], 0, atol=1e-15)  # the only image there is
    assert_allclose(deployed(none, Calibrator(0.1, -0.1)).mass, 1, rtol=1e-15)


def test_a_part_of_the_queries() -> None:
    rng = np.random.default_rng(SEED + 5)
    spectrum = case_spectrum(made_case(rng), Rows(unit(rng, 300, 12)))
    calibrator = Calibrator(0.1, -0.05)
    chosen = [7, 0, 5]
    part = spectrum.of_queries(chosen)
    assert part.models.tolist() == [2, 0, 1]
    assert part.positives.tolist() == [2, 1, 4]
    assert_allclose(kl(part, calibrator), kl(spectrum, calibrator)[chosen], rtol=1e-14)


def test_memory_does_not_grow_with_the_gallery() -> None:
    rng = np.random.default_rng(SEED + 6)
    queries = unit(rng, 40, 8)
    block = unit(rng, 4096, 8)
    peaks = []
    for blocks in (2, 12):
        tracemalloc.start()
        builder = SpectrumBuilder(queries, [np.ones(1, np.float32)] * 40)
        for _ in range(blocks):
            builder.add(block)
        assert builder.build().gallery[0] == 4096 * blocks + 1
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < 1.05 * peaks[0]


def test_what_cannot_be_calibrated_on() -> None:
    rng = np.random.default_rng(SEED + 7)
    with pytest.raises(RunError, match=r"^made: features of 12 numbers, the distractors' have 9$"):
        case_spectrum(made_case(rng), Rows(unit(rng, 5, 9)))
    with pytest.raises(RunError, match=r"^no generated image to calibrate on$"):
        SpectrumBuilder(np.empty((0, 3), np.float32), []).build()
    empty = SpectrumBuilder(unit(rng, 1, 3), [np.empty(0, np.float32)])
    with pytest.raises(RunError, match=r"^a generated image without exemplar cannot be calibrated"):
        empty.build()


def test_spectra_of_several_test_cases_are_joined() -> None:
    rng = np.random.default_rng(SEED + 8)
    first = case_spectrum(made_case(rng), Rows(unit(rng, 300, 12)))
    second = case_spectrum(made_case(rng), Rows(unit(rng, 20, 12))).of_queries([9, 0, 8])
    both = joined([first, second])
    assert both.models.tolist() == [*first.models.tolist(), 4, 3, 4]
    assert both.gallery.tolist() == [*first.gallery.tolist(), 22, 21, 22]
    calibrator = Calibrator(0.1, -0.05)
    apart = np.concatenate([kl(first, calibrator), kl(second, calibrator)])
    assert_allclose(kl(both, calibrator), apart, rtol=1e-12)
