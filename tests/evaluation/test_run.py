"""A whole evaluation on feature files: figures, what stands beside what, and what is refused."""

from __future__ import annotations

import json
import os
import pickle
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from published import published

from embed.calibrator import Calibrator
from embed.mapper import Mapper, MapperPair
from embed.model import AttributionModel
from embed.registry import find_model
from evaluation.calibration_scores import calibration_scores
from evaluation.case_set import CaseSet, read_cases
from evaluation.features import CaseFeatures
from evaluation.lineup import by_backbone, is_tuned
from evaluation.results import METRICS
from evaluation.run import Evaluation, evaluate_models
from evaluation.run_report import reported_model, run_markdown, write_run
from evaluation.spectrum import SpectrumBuilder
from ingest.errors import ModelError, UsageError, WeightsError

DIM = 1280
MODELS = 7


class Silent:
    """Progress that counts."""

    def start(self, pending: int | None) -> None:
        self.pending = pending

    def advance(self, images: int) -> None:
        pass


@contextmanager
def silent(doing: str) -> Iterator[Silent]:
    yield Silent()


def no_note(line: str) -> None:
    raise AssertionError(line)


@pytest.fixture(scope="module")
def plain() -> AttributionModel:
    return find_model("efficientnet-lite0")


@pytest.fixture(scope="module")
def tuned(plain: AttributionModel) -> AttributionModel:
    """Weighs up the channels that carry the signal of `files`."""
    weights = np.full(DIM, 0.2, np.float32)
    weights[:64] = 2.0
    pair = MapperPair(Mapper.channel(weights), Mapper.channel(weights))
    return replace(
        plain, name="mine", mappers=pair, calibrator=Calibrator(0.03, -0.05, "other models")
    )


def content() -> tuple[dict[str, Any], dict[str, Any]]:
    """A test case of models with 1 to 4 exemplars, and 300 distractors, in base features."""
    random = np.random.default_rng(3)

    def drawn(count: int) -> Any:
        return random.standard_normal((count, DIM)).astype(np.float32)

    sizes = [1 + model % 4 for model in range(MODELS)]
    ends = np.cumsum([0, *sizes])
    exemplars = drawn(int(ends[-1]))
    synth, ids = {}, {}
    for kind, count in (("gpt", 3), ("media", 2)):
        ids[kind] = [model for model in range(MODELS) for _ in range(count)]
        features = drawn(len(ids[kind]))
        for row, model in enumerate(ids[kind]):
            features[row, :64] += 0.8 * exemplars[ends[model], :64]
        synth[kind] = torch.from_numpy(features)
    case = {
        "exemplar_tensors": torch.from_numpy(exemplars),
        "exemplar_chunks": [(int(a), int(b)) for a, b in pairwise(ends)],
        "synth_tensors": synth,
        "synth_ids": ids,
    }
    subset = {"feats": torch.from_numpy(drawn(300)), "paths": [f"{i}.jpg" for i in range(300)]}
    return case, subset


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("official")
    case, subset = content()
    torch.save(case, folder / "test_made.pth")
    torch.save(subset, folder / "laion_subset.pth")
    return folder / "test_made.pth", folder / "laion_subset.pth"


@pytest.fixture(scope="module")
def done(files: tuple[Path, Path], tuned: AttributionModel) -> Evaluation:
    cases = read_cases([files[0]], note=no_note)
    return evaluate_models([tuned], cases, files[1], watch=silent, note=no_note, through=True)


def test_the_figures_are_those_of_the_published_evaluation(
    done: Evaluation, files: tuple[Path, Path], plain: AttributionModel, tuned: AttributionModel
) -> None:
    assert [result.name for result in done.results] == ["efficientnet-lite0", "mine"]
    (base,) = read_cases([files[0]], note=no_note).files
    distractors = content()[1]["feats"].numpy()
    means = {}
    for result, model in zip(done.results, (plain, tuned), strict=True):
        (case,) = result.cases
        precision, recall = published(
            base.mapped(model.mappers), model.mappers.real(distractors), [5, 10, 100]
        )
        assert np.abs(case.metrics - np.column_stack([recall, precision])).max() < 1e-9
        means[result.name] = np.array([*recall.mean(axis=0), precision.mean()])
        assert case.ranks.distractors == 300
    (difference,) = done.differences
    assert (difference.case, difference.tuned, difference.untuned) == (
        "test_made",
        "mine",
        "efficientnet-lite0",
    )
    found = np.array([difference.metrics[metric].mean for metric in METRICS])
    assert np.abs(found - (means["mine"] - means["efficientnet-lite0"])).max() < 1e-12
    assert difference.metrics["average_precision"].excludes_zero
    assert difference.metrics["average_precision"].mean > 0.1
    assert difference.metrics["average_precision"].models == MODELS


def test_influence_is_scored_where_the_calibrator_was_fitted(done: Evaluation) -> None:
    assert list(done.calibration) == [("mine", "test_made")]
    scores = done.calibration["mine", "test_made"]
    assert scores.kl.mean == pytest.approx(scores.scores.kl, rel=1e-12)
    assert scores.kl.models == MODELS
    untuned, mine = done.to_dict()["results"]
    assert untuned["calibration"] == {}
    assert list(mine["calibration"]) == ["test_made"]
    written = mine["notes"]["calibration_scores"]["test_made"]
    assert written["mass"]["mean"] == pytest.approx(scores.scores.mass, rel=1e-12)
    assert written["expected_calibration_error"] == scores.reliability.error


def test_calibration_by_hand() -> None:
    """One exemplar at cosine 1, one distractor at 0: w = 1 + b and e^(-1 / tau) + b."""
    query = np.array([[1.0, 0.0]], np.float32)
    builder = SpectrumBuilder(query, [np.array([1.0], np.float32)])
    builder.add(np.array([[0.0, 1.0]], np.float32))
    tau, b = 0.5, 0.25
    exemplar, distractor = 1 + b, np.exp(-1 / tau) + b
    share = exemplar / (exemplar + distractor)
    scores = calibration_scores(builder.build(), Calibrator(tau, b))
    assert scores.mass.mean == pytest.approx(share, rel=1e-6)
    smoothed = 0.999 * share + 0.001 / 2
    assert scores.kl_smoothed.mean == pytest.approx(-np.log(smoothed), rel=1e-6)
    # Both weights lie where softplus is its argument.
    assert scores.kl.mean == pytest.approx(-np.log(share), abs=1e-6)
    assert scores.scores.support_median == 2
    assert scores.reliability.error == pytest.approx(1 - share, rel=1e-6)
    assert scores.kl.low is None


def test_through_an_index(done: Evaluation) -> None:
    for result in done.results:
        through = result.through_index["test_made"].to_dict()
        # 300 distractors are fewer than the hits asked for: nothing can be lost.
        assert through["index_recall"]["mean"] == 1
        assert all(error["mean"] == 0 for error in through["index_error"].values())


def test_the_report_has_all_of_it(done: Evaluation, tmp_path: Path) -> None:
    written = write_run(tmp_path / "report", done)
    assert all(file.is_file() for file in written)
    assert {file.name for file in written} >= {
        "results.parquet",
        "results.json",
        "results.md",
        "calibration-mine-test_made.svg",
    }
    content = json.loads((tmp_path / "report" / "results.json").read_text("utf-8"))
    assert content == json.loads(json.dumps(done.to_dict()))
    page = (tmp_path / "report" / "results.md").read_text("utf-8")
    assert page == run_markdown(done)
    difference = done.differences[0].metrics["average_precision"]
    assert f"| **{difference.mean:+.3f}** [{difference.low:+.3f}, {difference.high:+.3f}] |" in page
    for heading in ("exemplars a model", "Through an index", "Calibrated influence"):
        assert heading in page
    assert "Warning" not in page


def test_the_same_call_gives_the_same(
    done: Evaluation, files: tuple[Path, Path], tuned: AttributionModel
) -> None:
    cases = read_cases([files[0]], note=no_note)
    again = evaluate_models([tuned], cases, files[1], watch=silent, note=no_note, through=True)
    assert again.to_dict() == done.to_dict()


def test_a_warning_reaches_the_report(done: Evaluation) -> None:
    page = run_markdown(replace(done, warnings=("model mine was tuned on 2 of these models",)))
    assert "\n**Warning:** model mine was tuned on 2 of these models.\n" in page


def test_which_model_of_a_report(done: Evaluation, tmp_path: Path) -> None:
    write_run(tmp_path / "both", done)
    assert reported_model(tmp_path / "both") == "mine"
    assert reported_model(tmp_path / "none") is None
    untuned = tuple(replace(result, tuned=False) for result in done.results)
    write_run(tmp_path / "two", replace(done, results=untuned))
    with pytest.raises(UsageError) as caught:
        reported_model(tmp_path / "two")
    assert str(caught.value) == (
        f"{tmp_path / 'two'} has several attribution models (efficientnet-lite0, mine); choose "
        "with --model, once for both reports or once for each"
    )


# -- which models ----------------------------------------------------------------------------------


def test_the_untuned_stands_before_the_tuned(
    plain: AttributionModel, tuned: AttributionModel
) -> None:
    assert (is_tuned(plain), is_tuned(tuned)) == (False, True)
    other = find_model("dino-vitb16")

    def names(models: list[AttributionModel], untuned: bool = True) -> list[list[str]]:
        return [[model.name for model in group] for group in by_backbone(models, untuned)]

    assert names([tuned]) == [["efficientnet-lite0", "mine"]]
    assert names([tuned], untuned=False) == [["mine"]]
    assert names([tuned, other, plain]) == [["efficientnet-lite0", "mine"], ["dino-vitb16"]]
    like_it = replace(tuned, name="efficientnet-lite0")
    assert names([like_it]) == [["efficientnet-lite0 untuned", "efficientnet-lite0"]]
    with pytest.raises(UsageError, match=r"^two of the models are named mine; evaluate each once$"):
        by_backbone([tuned, tuned], True)


def test_weights_that_nobody_pinned(tuned: AttributionModel) -> None:
    unpinned = replace(tuned.backbone, weights_hash="", name="some")
    one, other = (
        replace(tuned, backbone=unpinned, name=name, weights_hash=digest * 64)
        for name, digest in (("one", "a"), ("other", "b"))
    )
    (group,) = by_backbone([one], True)
    assert [model.weights_hash for model in group] == ["a" * 64] * 2
    with pytest.raises(UsageError) as caught:
        by_backbone([one, other], True)
    assert str(caught.value) == (
        "one, other stand on different weights of some; evaluate them one by one"
    )


# -- what is read ----------------------------------------------------------------------------------


class Harm:
    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, ("touch harmed",)


def test_feature_files_that_do_not_hold(
    files: tuple[Path, Path], tuned: AttributionModel, tmp_path: Path
) -> None:
    code = tmp_path / "code.pth"
    code.write_bytes(pickle.dumps({"exemplar_tensors": Harm()}, protocol=2))
    with pytest.raises(WeightsError, match="its pickle carries code"):
        read_cases([code], note=no_note)
    case, _ = content()
    case["synth_tensors"]["gpt"][3, 5] = float("nan")
    torch.save(case, tmp_path / "nan.pth")
    with pytest.raises(WeightsError) as caught:
        read_cases([tmp_path / "nan.pth"], note=no_note)
    assert str(caught.value) == "nan: 1 of 35 generated images have features that are not finite"
    small = CaseFeatures(
        "small",
        ("0",),
        np.ones((1, 4), np.float32),
        np.array([0, 1]),
        np.ones((1, 4), np.float32),
        np.array([0]),
        ("gpt",),
    )
    with pytest.raises(ModelError) as wrong:
        evaluate_models([tuned], CaseSet((), (small,)), files[1], watch=silent, note=no_note)
    assert str(wrong.value) == (
        "small has features of 4 numbers, mine takes 1280; name a model on the backbone that they "
        "were made with"
    )
