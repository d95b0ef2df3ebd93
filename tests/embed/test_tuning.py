"""Closed-form alignment, the contrastive loss and tuning on made-up customized models."""

from __future__ import annotations

from dataclasses import replace
from math import log
from pathlib import Path

import numpy as np
import pytest
import torch
from folders import small_disk

from embed.alignment import aligned, standardised
from embed.mapper import MapperPair
from embed.registry import find_model, list_models
from embed.tuning import TuningSettings, tune
from embed.tuning_data import TuningData
from embed.tuning_learner import contrastive_loss
from ingest.errors import ModelError, UsageError

SEED = 5
DIM = 6


def data(models: int = 12, images: int = 5) -> TuningData:
    rng = np.random.default_rng(SEED)
    exemplars = rng.normal(size=(models, DIM))
    owners = np.repeat(np.arange(models), images)
    noise = rng.normal(size=(len(owners), DIM)) * [0.1, 0.1, 0.1, 3, 3, 3]
    return TuningData(
        exemplars=exemplars.astype(np.float32),
        exemplar_model=np.arange(models),
        synth=(2 * (exemplars[owners] + noise) + 7).astype(np.float32),
        synth_model=owners,
        others=rng.normal(size=(300, DIM)).astype(np.float32),
    )


def hits(pair: MapperPair, made: TuningData) -> float:
    nearest = (pair.synth(made.synth) @ pair.real(made.exemplars).T).argmax(axis=1)
    return float((nearest == made.synth_model).mean())


def test_standardised_sides_have_mean_0_and_deviation_1() -> None:
    made = data()
    pair = standardised(made)
    for mapped in (pair.real_mapper(made.others), pair.synth_mapper(made.synth)):
        np.testing.assert_allclose(mapped.mean(axis=0), 0, atol=1e-5)
        np.testing.assert_allclose(mapped.std(axis=0), 1, rtol=5e-3)


def test_alignment_damps_what_pairs_disagree_in() -> None:
    made = data()
    found = [
        hits(p, made)
        for p in (MapperPair.identity(DIM), standardised(made), aligned(made, shrinkage=0.05))
    ]
    assert found[0] < found[1] < found[2]
    assert aligned(made, shrinkage=1, out_dim=3).out_dim == 3
    with pytest.raises(UsageError, match="shrinkage must be above 0"):
        aligned(made, shrinkage=0)


def test_the_loss_of_one_pair_among_one_other_by_hand() -> None:
    query, exemplar, other = (torch.tensor([row]) for row in ([1.0, 0], [1.0, 0], [0, 1.0]))
    model = torch.tensor([0])
    loss = contrastive_loss(query, model, exemplar, model, other, temperature=1.0)
    # Forth: log(e^1 + e^0) - 1; back: the only generated image is its own, 0.
    assert float(loss) == pytest.approx(log(np.e + 1) - 1)


def test_a_killed_tuning_resumes_to_the_same_maps(tmp_path: Path) -> None:
    made = data()
    settings = TuningSettings(start="identity", steps=30, every=10, patience=9, queue=32)
    whole = tune(made, settings, lambda pair: hits(pair, made))
    file = tmp_path / "tuning.pt"
    tune(made, replace(settings, steps=10), lambda pair: hits(pair, made), checkpoint=file)
    resumed = tune(made, settings, lambda pair: hits(pair, made), checkpoint=file)
    assert [row[0] for row in resumed.history] == [0, 10, 20, 30]
    assert resumed.history[1:] == whole.history[1:]
    for name, array in whole.mappers.real_mapper.arrays.items():
        np.testing.assert_array_equal(array, resumed.mappers.real_mapper.arrays[name])
    with pytest.raises(UsageError, match="other settings or data"):
        tune(made, replace(settings, seed=1), lambda pair: 0.0, checkpoint=file)


def test_a_checkpoint_that_does_not_fit_on_the_disk(tmp_path: Path) -> None:
    made = data()
    settings = TuningSettings(start="identity", steps=10, every=10, queue=32)
    with small_disk(tmp_path / "disk", "4k") as disk, pytest.raises(ModelError) as caught:
        tune(made, settings, lambda pair: hits(pair, made), checkpoint=disk / "tuning.pt")
    assert str(caught.value) == (
        f"the checkpoint cannot be written to {disk / 'tuning.pt'}: No space left on device"
    )


@pytest.mark.parametrize("kind", ["linear", "channel", "mlp"])
def test_every_kind_tunes_and_is_never_worse_than_its_start(kind: str) -> None:
    made = data()
    settings = TuningSettings(kind=kind, start="identity", out_dim=4, hidden_dim=8, steps=20)  # type: ignore[arg-type]
    tuned = tune(made, settings, lambda pair: hits(pair, made))
    assert tuned.mappers.real_mapper.kind == kind
    assert tuned.score >= tuned.history[0][2]
    assert tuned.score == pytest.approx(hits(tuned.mappers, made))


def test_the_model_that_comes_with_attrib() -> None:
    model = find_model("efficientnet-lite0-clipart")
    assert (model.backbone.name, model.dim) == ("efficientnet-lite0-stages-48px", 512)
    assert model.calibrator.fitted
    assert len(model.card["tuning"]["models"]) == 46
    listed = {row.name: row for row in list_models()}
    assert listed[model.name].model is not None
    assert listed[model.name].model.tuned_on.startswith("object_train")
