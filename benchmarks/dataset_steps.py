"""How an exemplar's rank depends on how long the generator was tuned toward it, in any test cases.

    python -m benchmarks.dataset_steps object_train.json object_val.json object_test.json \\
        --distractors clipart/ --exclude cases/

Models are grouped by the `customization_steps` of the test cases. Nothing is learned: ranks are by
the untuned backbone, which has seen none of them, or by `--also` models (then leave out the files
that those were tuned on). *Median rank* is over images, of the exemplar that stands first.
Spearman's rank correlation is that of steps and a model's mean average precision, its interval by
the bootstrap over models.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.stats import spearmanr

from benchmarks.dataset_cases import Floats, features_of, gallery_of, scores_and_ranks, shown
from embed.lazy_embedder import LazyEmbedder
from embed.registry import find_model
from evaluation.bootstrap import mean_intervals
from evaluation.case_set import excluded_exemplars
from evaluation.cases import exemplar_paths

_RESAMPLES = 10_000


def main() -> None:
    """Measure, and print a table."""
    arguments = _arguments()
    model = find_model(arguments.model)
    embedder = LazyEmbedder(model)
    cases, features = features_of(arguments.cases, "cases", model, embedder)
    steps = [one.steps for case in cases for one in case.models]
    if any(one is None for one in steps):
        sys.exit("some models do not tell their customization_steps")
    of_model = np.array(steps)
    gone = exemplar_paths(cases) | excluded_exemplars(arguments.exclude, note=_say)
    others = gallery_of(arguments.distractors, gone, model, embedder)
    print(f"{len(of_model)} models, {len(others):,} distractors, {arguments.model}\n")
    for name, pair in [
        ("untuned", None),
        *((name, find_model(name).mappers) for name in arguments.also),
    ]:
        print("| by | steps | models | median rank | Recall@5 | mAP |\n|---|--:|--:|--:|--:|--:|")
        values, places = scores_and_ranks(features, others, pair)
        owner = features.synth_model
        for wanted in sorted(set(of_model.tolist())):
            rows = of_model[owner] == wanted
            recall, precision = mean_intervals(values[rows], owner[rows])
            print(
                f"| {name} | {wanted} | {int((of_model == wanted).sum())} | "
                f"{np.median(places[rows]):,g} | {shown(recall.to_dict())} | "
                f"{shown(precision.to_dict())} |"
            )
        means = np.array([values[owner == m, 1].mean() for m in range(len(of_model))])
        rho, low, high = correlation(of_model, means, arguments.seed)
        print(f"\nSpearman, {name}: {rho:+.2f} ({low:+.2f}, {high:+.2f})\n")


def correlation(
    steps: NDArray[np.int64], precision: Floats, seed: int
) -> tuple[float, float, float]:
    """Of steps and mean average precision over models, with its 95 % interval."""
    rng = np.random.default_rng(seed)
    drawn = rng.integers(0, len(steps), (_RESAMPLES, len(steps)))
    resampled = [
        float(spearmanr(steps[rows], precision[rows]).statistic)
        for rows in drawn
        if len(set(steps[rows].tolist())) > 1
    ]
    low, high = np.quantile(resampled, [0.025, 0.975])
    return float(spearmanr(steps, precision).statistic), float(low), float(high)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("cases", nargs="+", type=Path, metavar="CASE.json")
    parser.add_argument("--distractors", required=True, help="training images: a folder, tar ...")
    parser.add_argument("--exclude", action="append", type=Path, default=[], metavar="FOLDER")
    parser.add_argument("--model", default="efficientnet-lite0-stages-48px", help="backbone")
    parser.add_argument(
        "--also", action="append", default=[], help="models of the same backbone, measured too"
    )
    parser.add_argument("--seed", type=int, default=0, help="of the bootstrap")
    return parser.parse_args()


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
