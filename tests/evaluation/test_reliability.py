"""The calibration curve against one worked by hand, a full matrix, and a perfect calibrator."""

from __future__ import annotations

import json

import numpy as np
from numpy.testing import assert_allclose

from embed.calibrator import Calibrator
from evaluation.reliability import EDGES, reliability
from evaluation.spectrum import Spectrum
from search.calibration import influence

SEED = 20_260_813


def made(
    exemplars: list[list[float]], distractors: list[list[float]], models: list[int]
) -> Spectrum:
    width = max(map(len, distractors))
    padded = [row + [0.0] * (width - len(row)) for row in distractors]
    counts = [[1.0] * len(row) + [0.0] * (width - len(row)) for row in distractors]
    return Spectrum(
        exemplars=np.array([s for own in exemplars for s in own], np.float32),
        chunks=np.cumsum([0, *map(len, exemplars)]).astype(np.int64),
        similarities=np.array(padded, np.float32),
        counts=np.array(counts, np.float32),
        models=np.array(models),
    )


def test_worked_by_hand() -> None:
    # tau 1, b -1/2. Gaps 0 and ln(4/3) weigh 1/2 and 1/4; a gap of ln 4 nothing.
    near, far = float(-np.log(4 / 3)), float(-np.log(4))
    spectrum = made([[0.0], [near, far]], [[near, near], [0.0]], models=[0, 1])
    found = reliability(spectrum, Calibrator(1.0, -0.5))
    # Query 0: 1/2 on its exemplar, 1/4 on each distractor. Query 1: its exemplars have 1/3 and 0,
    # the distractor 2/3. In the bin 0.2 .. 0.4 are 1/4, 1/4 and 1/3.
    bins = {round(bin_.low, 6): bin_ for bin_ in found.bins if bin_.pairs}
    assert sorted(bins) == [0.0, 0.2, 0.4, 0.6]
    assert [bins[low].pairs for low in sorted(bins)] == [1, 3, 1, 1]
    assert_allclose(
        [bins[low].predicted for low in sorted(bins)], [0, 5 / 12, 1 / 4, 1 / 3], rtol=1e-6
    )
    assert_allclose([bins[low].observed.mean for low in sorted(bins)], [1 / 4, 1 / 4, 1 / 2, 0])
    assert_allclose(bins[0.2].mean_influence, 5 / 18, rtol=1e-6)
    assert_allclose(bins[0.2].frequency, 1 / 6)
    assert_allclose(found.error, (1 / 4 + 1 / 6 + 1 / 4 + 1 / 3) / 2, rtol=1e-6)
    assert (found.queries, found.models) == (2, 2)
    assert (bins[0.0].low, bins[0.0].high) == (0, 0)
    assert found.bins[-1].high == 1


def test_it_is_that_of_the_full_matrix_in_bins() -> None:
    rng = np.random.default_rng(SEED)
    print(f"seed {SEED}")
    positives, models = [1, 3, 2, 1], [0, 0, 1, 1]
    own = [rng.normal(0.6, 0.1, n).astype(np.float32) for n in positives]
    others = rng.normal(0.4, 0.1, (4, 300)).astype(np.float32)
    spectrum = made([o.tolist() for o in own], others.tolist(), models)
    calibrator = Calibrator(0.05, -0.01)
    p, t = [], []
    for mine, rest in zip(own, others, strict=True):
        p.append(influence(np.concatenate([mine, rest])[None], calibrator)[0])
        t.append(np.repeat([1 / len(mine), 0], [len(mine), 300]))
    all_p, all_t = np.concatenate(p), np.concatenate(t)
    found = reliability(spectrum, calibrator)
    assert sum(bin_.pairs for bin_ in found.bins) == 4 * 300 + 7
    assert_allclose(sum(bin_.predicted for bin_ in found.bins), 1, rtol=1e-6)
    assert_allclose(sum(bin_.observed.mean for bin_ in found.bins), 1, rtol=1e-12)
    for bin_ in found.bins[1:]:
        inside = (all_p > bin_.low) & (all_p <= bin_.high)
        assert bin_.pairs == inside.sum()
        assert_allclose(bin_.predicted, all_p[inside].sum() / 4, rtol=1e-6, atol=1e-12)
        assert_allclose(bin_.observed.mean, all_t[inside].sum() / 4, rtol=1e-12, atol=1e-15)
    assert found.bins[0].pairs == (all_p == 0).sum()


def test_truth_drawn_by_influence_is_well_calibrated_and_by_another_temperature_not() -> None:
    rng = np.random.default_rng(SEED + 1)
    print(f"seed {SEED + 1}")
    calibrator = Calibrator(0.05, -0.02)
    gallery = rng.normal(0.4, 0.1, (4000, 60)).astype(np.float32)
    shares = influence(gallery, calibrator)
    truth = np.array([rng.choice(60, p=row / row.sum()) for row in shares])
    exemplars = [[float(row[i])] for row, i in zip(gallery, truth, strict=True)]
    rest = [np.delete(row, i).tolist() for row, i in zip(gallery, truth, strict=True)]
    spectrum = made(exemplars, rest, list(range(4000)))
    good = reliability(spectrum, calibrator)
    assert good.error < 0.02
    for bin_ in good.bins:
        if bin_.pairs:
            assert abs(bin_.predicted - bin_.observed.mean) < 0.02
    assert reliability(spectrum, Calibrator(0.02, -0.02)).error > 0.15


def test_intervals_are_over_models() -> None:
    # 40 queries of 2 models, one always right and one always wrong: two observations, not 40.
    right, wrong = ([0.9], [0.1]), ([0.1], [0.9])
    rows = [right] * 20 + [wrong] * 20
    spectrum = made([own for own, _ in rows], [rest for _, rest in rows], [0] * 20 + [1] * 20)
    found = reliability(spectrum, Calibrator(0.05, -0.1))
    top = found.bins[-1]
    assert (top.predicted, top.observed.mean) == (1, 0.5)
    assert (top.observed.low, top.observed.high) == (0, 1)
    assert found.error == 0.5
    alone = made([own for own, _ in rows], [rest for _, rest in rows], list(range(40)))
    again = reliability(alone, Calibrator(0.05, -0.1))
    low, high = again.bins[-1].observed.low, again.bins[-1].observed.high
    assert low is not None
    assert high is not None
    assert 0.3 < low < 0.5 < high < 0.7
    assert again == reliability(alone, Calibrator(0.05, -0.1))


def test_to_dict_is_plain() -> None:
    found = reliability(made([[0.5]], [[0.4, 0.2]], [7]), Calibrator(0.1, 0.1))
    values = json.loads(json.dumps(found.to_dict()))
    assert values["error"] == found.error
    assert len(values["bins"]) == len(EDGES) + 1
    assert values["bins"][-1]["low"] == EDGES[-1]
