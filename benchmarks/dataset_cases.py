"""What `dataset_curve` and `dataset_transfer` have in common: base features of groups of test
cases, tuning on some of the models, and scores on others."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from embed.lazy_embedder import LazyEmbedder
from embed.mapper import MapperPair
from embed.model import AttributionModel
from embed.registry import find_model
from embed.tuning import TuningSettings
from evaluation.case_set import excluded_exemplars, read_cases
from evaluation.cases import TestCase, exemplar_paths
from evaluation.extract import case_features
from evaluation.features import CaseFeatures
from evaluation.gallery import distractors
from evaluation.overlap import refuse_overlap
from evaluation.protocol import ArrayBlocks, average_precision, ranks, recall_at
from evaluation.tuning import join_cases, tune_model

__all__ = [
    "Bench",
    "Floats",
    "features_of",
    "gallery_of",
    "group_of",
    "read_bench",
    "scores",
    "scores_and_ranks",
    "shown",
]

Floats = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Bench:
    """Base features.

    Attributes:
        model: whose backbone they are of.
        groups: models to learn from, by name.
        stop: models that tuning is stopped by.
        test: models to measure on.
        gallery: (n, d) distractors of the test.
        others: (m, d) distractors of the tuning: those that are no exemplar of a group either.
    """

    model: AttributionModel
    groups: Mapping[str, CaseFeatures]
    stop: CaseFeatures
    test: CaseFeatures
    gallery: NDArray[np.float32]
    others: NDArray[np.float32]

    def tuned(self, learn: CaseFeatures, settings: TuningSettings) -> MapperPair:
        """As `attrib tune` does."""
        made = tune_model(self.model, "benchmark", learn, self.stop, self.others, settings)
        return made.model.mappers

    def score(self, pair: MapperPair | None) -> Floats:
        """(queries, 2): Recall@5 and average precision of the test; None for untuned."""
        return scores(self.test, self.gallery, pair)


def scores(case: CaseFeatures, gallery: NDArray[np.float32], pair: MapperPair | None) -> Floats:
    """(queries, 2): Recall@5 and average precision by the paper's protocol."""
    return scores_and_ranks(case, gallery, pair)[0]


def scores_and_ranks(
    case: CaseFeatures, gallery: NDArray[np.float32], pair: MapperPair | None
) -> tuple[Floats, NDArray[np.int64]]:
    """`scores`, and (queries,) the rank of the exemplar that stands first, 1 being the best."""
    pair = MapperPair.identity(case.dim) if pair is None else pair
    ranked = ranks(case.mapped(pair), ArrayBlocks(pair.real(gallery)))
    both = np.stack([recall_at(ranked, 5), average_precision(ranked)], axis=1)
    return both, ranked.flat[ranked.offsets[:-1]]


def features_of(
    files: Sequence[Path], name: str, model: AttributionModel, embedder: LazyEmbedder
) -> tuple[list[TestCase], CaseFeatures]:
    """Test cases and their base features, joined under one name."""
    cases = list(read_cases(files, note=_say).images)
    found = [
        case_features(case, embedder, model.backbone, weights_hash=model.weights_hash)
        for case in cases
    ]
    return cases, join_cases(_distinct(found), name)


def gallery_of(
    source: str, gone: set[Path], model: AttributionModel, embedder: LazyEmbedder
) -> NDArray[np.float32]:
    """(n, d): base features of all distractors but those that are `gone`."""
    found = distractors(
        source, gone, embedder, model.backbone, weights_hash=model.weights_hash, note=_say
    )
    return np.concatenate([np.asarray(block) for block in found.blocks(8192)])


def read_bench(arguments: argparse.Namespace, groups: Mapping[str, Sequence[Path]]) -> Bench:
    """All of the base features: `arguments` has model, test, validation, distractors, exclude.

    Raises:
        UsageError: a test model is in a group, or in the validation.
    """
    model = find_model(arguments.model)
    embedder = LazyEmbedder(model)
    learn_cases: list[TestCase] = []
    learn: dict[str, CaseFeatures] = {}
    for name, files in groups.items():
        cases, learn[name] = features_of(files, name, model, embedder)
        learn_cases += cases
    test_cases, test = features_of(arguments.test, "test", model, embedder)
    stop_cases, stop = features_of(arguments.validation, "validation", model, embedder)
    refuse_overlap([*learn_cases, *stop_cases], test_cases, "tuning and test")
    gone = exemplar_paths([*test_cases, *stop_cases])
    gone |= excluded_exemplars(arguments.exclude, note=_say)
    galleries = []
    for without in (gone, gone | exemplar_paths(learn_cases)):
        galleries.append(gallery_of(arguments.distractors, without, model, embedder))
    return Bench(model, learn, stop, test, *galleries)


def _distinct(found: Sequence[CaseFeatures]) -> list[CaseFeatures]:
    """Under names of their own: sets that are made alike name their files alike."""
    return [replace(case, name=f"{number}/{case.name}") for number, case in enumerate(found)]


def group_of(text: str) -> tuple[str, list[Path]]:
    """``NAME=CASE.json,CASE.json``, as it is typed."""
    name, separator, files = text.partition("=")
    if not separator or not name or not files:
        sys.exit(f"a group is NAME=CASE.json[,CASE.json...], not {text!r}")
    return name, [Path(file) for file in files.split(",")]


def shown(figure: object, *, signed: bool = False) -> str:
    """``0.612 (.43-.78)``, of an interval's `to_dict`."""
    assert isinstance(figure, dict)
    mean, low, high = figure["mean"], figure["low"], figure["high"]
    if signed:
        if not mean and not low:
            return ""
        between = "" if low is None else f" ({low:+.3f}, {high:+.3f})"
        return f"{mean:+.3f}{between}"
    return f"{mean:.3f}" + ("" if low is None else f" ({low:.2f}-{high:.2f})")


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
