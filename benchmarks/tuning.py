"""Which recipe of tuning is best: cross-validation by model, by the paper's protocol.

    python -m benchmarks.tuning object_train.json object_val.json \\
        --distractors clipart/ --exclude cases/

The customized models are divided into folds. Each fold is measured with maps that were learned from
the others: four fifths of these to learn from, a fifth to stop (or to choose settings) by. All
recipes see the same models, images and distractors; what is measured took part in nothing. Give no
test split here: the figures are there to choose by.

Base features come from the cache of `attrib evaluate`, or go into it.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benchmarks.tuning_fold import Fold, View
from benchmarks.tuning_recipes import DEFAULT, RECIPES
from embed.lazy_embedder import LazyEmbedder
from embed.registry import find_model
from evaluation.bootstrap import CONFIDENCE, Interval, mean_intervals, paired_difference
from evaluation.case_set import excluded_exemplars, read_cases
from evaluation.cases import TestCase, exemplar_paths
from evaluation.extract import case_features
from evaluation.features import CaseFeatures
from evaluation.gallery import distractors
from evaluation.protocol import average_precision, recall_at
from evaluation.tuning import join_cases, split_models

BACKBONES = ("efficientnet-lite0-stages-48px", "efficientnet-lite0")
STOP = 0.2
METRICS = ("recall_5", "map")


@dataclass(frozen=True, eq=False)
class Base:
    """Base features of one backbone: the models measured, the others, the distractors."""

    case: CaseFeatures
    extra: CaseFeatures | None
    others: NDArray[np.float32]


def main() -> None:
    """Measure every recipe on every fold, print a table; with --json a file."""
    arguments = _arguments()
    begun = time.monotonic()
    names = _named(arguments.recipes)
    case = next(iter(_bases(arguments).values())).case  # into the cache, once for all folds
    if arguments.folds < 2 or arguments.folds > len(case.model_ids):
        sys.exit(f"{len(case.model_ids)} models cannot be divided into {arguments.folds} folds")
    # A fold a process: threads of one process would wait by spinning wherever others are at work.
    os.environ |= dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")
    with ProcessPoolExecutor(arguments.jobs, get_context("spawn")) as pool:
        measured = list(
            pool.map(_measured, [(arguments, names, n) for n in range(arguments.folds)])
        )
    names = [name for name in names if name in measured[0].values]
    owner = np.concatenate([one.owner for one in measured])
    rows = _rows(
        {name: np.concatenate([one.values[name] for one in measured]) for name in names},
        owner,
        {name: sum(one.seconds[name] for one in measured) for name in names},
    )
    result = {
        "models": len(case.model_ids),
        "queries": len(owner),
        "distractors": measured[0].distractors,
        "folds": arguments.folds,
        "seed": arguments.seed,
        "seconds": time.monotonic() - begun,
        "recipes": rows,
    }
    if arguments.json:
        arguments.json.write_text(json.dumps(result, indent=2) + "\n", "utf-8")
    _print(result, rows)


@dataclass(frozen=True, eq=False)
class Measured:
    """One fold: by recipe (queries, metrics) and seconds; the model of each query, of all."""

    values: dict[str, NDArray[np.float64]]
    seconds: dict[str, float]
    owner: NDArray[np.int64]
    distractors: int


def _measured(job: tuple[argparse.Namespace, list[str], int]) -> Measured:
    arguments, names, number = job
    bases = _bases(arguments)
    base = next(iter(bases.values()))
    order = np.random.default_rng(arguments.seed).permutation(len(base.case.model_ids))
    held = np.array_split(order, arguments.folds)[number]
    fold = _fold(bases, held, number)
    values: dict[str, NDArray[np.float64]] = {}
    seconds: dict[str, float] = {}
    for name in names:
        start = time.monotonic()
        try:
            ranked = RECIPES[name](fold).ranks(fold.views, "test")
        except LookupError as exc:
            _say(f"fold {number + 1}, {name}: left out, {exc}")
            continue
        values[name] = np.stack([recall_at(ranked, 5), average_precision(ranked)], axis=1)
        seconds[name] = time.monotonic() - start
        recall, precision = values[name].mean(axis=0)
        _say(f"fold {number + 1}, {name}: {recall:.3f} {precision:.3f}, {seconds[name]:.0f} s")
    owner = held[fold.views[fold.main].test.synth_model]
    return Measured(values, seconds, owner, len(base.others))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("cases", nargs="+", type=Path, metavar="CASE.json")
    parser.add_argument("--distractors", required=True, help="training images: a folder, tar ...")
    parser.add_argument("--exclude", action="append", type=Path, default=[], metavar="FOLDER")
    parser.add_argument("--folds", type=int, default=5)
    parser.add_argument("--only", metavar="CATEGORY", help="models to measure, e.g. object")
    parser.add_argument("--recipes", help="names that contain this, | between several; all if left")
    parser.add_argument("--jobs", type=int, default=2, help="folds at a time")
    parser.add_argument("--seed", type=int, default=0, help="of the folds")
    parser.add_argument("--json", type=Path, help="file to write the figures to")
    return parser.parse_args()


def _named(wanted: str | None) -> list[str]:
    if wanted is None:
        return list(RECIPES)
    parts = wanted.split("|")
    found = [name for name in RECIPES if name == DEFAULT or any(part in name for part in parts)]
    return found


# -- base features ---------------------------------------------------------------------------------


def _bases(arguments: argparse.Namespace) -> dict[str, Base]:
    cases = read_cases(arguments.cases, note=_say).images
    gone = exemplar_paths(cases) | excluded_exemplars(arguments.exclude, note=_say)
    measured = {one.category for case in cases for one in case.models}
    if arguments.only is not None:
        measured = {arguments.only}
    return {name: _base(name, cases, gone, arguments.distractors, measured) for name in BACKBONES}


def _base(
    name: str, cases: Sequence[TestCase], gone: set[Path], spec: str, measured: set[str]
) -> Base:
    model = find_model(name)
    embedder = LazyEmbedder(model)
    _say(f"base features of {name} ...")
    kept: list[CaseFeatures] = []
    extra: list[CaseFeatures] = []
    for case in cases:
        features = case_features(case, embedder, model.backbone, weights_hash=model.weights_hash)
        for into, wanted in ((kept, True), (extra, False)):
            chosen = [
                place
                for place, one in enumerate(case.models)
                if (one.category in measured) is wanted
            ]
            if chosen:
                into.append(features.of_models(chosen))
    gallery = distractors(
        spec, gone, embedder, model.backbone, weights_hash=model.weights_hash, note=_say
    )
    if not kept:
        sys.exit("no model of that category in these test cases")
    return Base(
        join_cases(kept, "measured"),
        join_cases(extra, "further") if extra else None,
        np.concatenate([np.asarray(block) for block in gallery.blocks(8192)]),
    )


def _fold(bases: dict[str, Base], held: NDArray[np.int64], seed: int) -> Fold:
    views = {}
    for name, base in bases.items():
        rest = [place for place in range(len(base.case.model_ids)) if place not in set(held)]
        learn, stop = split_models(base.case.of_models(rest), STOP, seed)
        test = base.case.of_models(held.tolist())
        views[name] = View(learn, stop, test, base.others, base.extra)
    return Fold(views)


# -- figures ---------------------------------------------------------------------------------------


def _rows(
    values: dict[str, NDArray[np.float64]], owner: NDArray[np.int64], seconds: dict[str, float]
) -> dict[str, dict[str, object]]:
    """By recipe; `corrected`: whether a difference holds with all comparisons counted (Bonferroni,
    a two-sided 5 % shared by all recipes and both metrics)."""
    strict = 1 - (1 - CONFIDENCE) / max(1, 2 * (len(values) - 1))
    rows: dict[str, dict[str, object]] = {}
    for name, found in values.items():
        gain = paired_difference(values[DEFAULT], found, owner)
        hard = paired_difference(values[DEFAULT], found, owner, confidence=strict)
        rows[name] = {
            **_by_metric("", mean_intervals(found, owner)),
            **_by_metric("_gain", gain),
            **{
                f"{metric}_better": one.excludes_zero and one.mean > 0
                for metric, one in zip(METRICS, gain, strict=True)
            },
            **{
                f"{metric}_corrected": one.excludes_zero
                for metric, one in zip(METRICS, hard, strict=True)
            },
            "seconds": seconds[name],
        }
    return rows


def _by_metric(ending: str, intervals: list[Interval]) -> dict[str, object]:
    return {m + ending: one.to_dict() for m, one in zip(METRICS, intervals, strict=True)}


def _print(result: dict[str, object], rows: dict[str, dict[str, object]]) -> None:
    print(
        f"{result['models']} models in {result['folds']} folds, {result['queries']} generated "
        f"images, {result['distractors']:,} distractors; {result['seconds']:.0f} s\n"
    )
    print("| recipe | Recall@5 | mAP | Recall@5 less the default's | mAP less the default's | s |")
    print("|---|--:|--:|--:|--:|--:|")
    for name, row in rows.items():
        print(
            f"| {name} | {_mean(row['recall_5'])} | {_mean(row['map'])} | "
            f"{_gain(row['recall_5_gain'])} | {_gain(row['map_gain'])} | {row['seconds']:.0f} |"
        )
    for metric, shown in (("recall_5", "Recall@5"), ("map", "mAP")):
        better = [name for name, row in rows.items() if row[f"{metric}_better"]]
        sure = [name for name in better if rows[name][f"{metric}_corrected"]]
        print(f"\n{shown} above the default's, interval without zero: {_listed(better)}")
        print(f"the same with all {len(rows) - 1} comparisons counted: {_listed(sure)}")


def _mean(found: object) -> str:
    assert isinstance(found, dict)
    return f"{found['mean']:.3f} ({found['low']:.2f}-{found['high']:.2f})"


def _gain(found: object) -> str:
    assert isinstance(found, dict)
    if not found["mean"] and not found["low"]:
        return "0"
    return f"{found['mean']:+.3f} ({found['low']:+.3f} to {found['high']:+.3f})"


def _listed(names: list[str]) -> str:
    return "; ".join(names) or "none"


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
