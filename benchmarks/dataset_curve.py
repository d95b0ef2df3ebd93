"""Does more ground truth help: models tuned on ever more customized models, measured on a test.

    python -m benchmarks.dataset_curve object_test.json --validation object_val.json \\
        --distractors clipart/ --exclude cases/ \\
        --learn mine=object_train.json --learn theirs=a/object_train.json,a/object_test.json \\
        --sizes 4,8,16,32 --draws 8

For each group of `--learn`, and for all groups together, so many models are drawn, without
replacement, `--draws` times; each draw is tuned on as `attrib tune` does (`--steps 0`: its closed
form), stopped by the validation models and ranked on the test by the paper's protocol. A query's
score is its mean over the draws; intervals are over test models, differences on the same queries.
How much it matters which models were drawn stands beside it (standard deviation over draws).

No test model may be in a group: the overlap is looked for and refused. Exemplars of the groups are
among the distractors of the test, as they would be in use, and not among those of the tuning.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benchmarks.dataset_cases import Bench, Floats, group_of, read_bench, shown
from embed.tuning import TuningSettings
from evaluation.bootstrap import mean_intervals, paired_difference
from evaluation.features import CaseFeatures
from evaluation.tuning import join_cases

METRICS = ("recall_5", "map")


def main() -> None:
    """Measure, print a table; with --json a file."""
    arguments = _arguments()
    groups = dict(map(group_of, arguments.learn))
    bench = read_bench(arguments, groups)
    settings = TuningSettings(steps=arguments.steps, seed=arguments.seed)
    owner = bench.test.synth_model
    untuned = bench.score(None)
    rows = [{"group": "untuned", "models": 0, **_figures(untuned[None], untuned, owner)}]
    learned = dict(bench.groups)
    if len(learned) > 1:
        learned["together"] = join_cases(list(learned.values()), "together")
    for name, case in learned.items():
        for size in _sizes(arguments.sizes, len(case.model_ids)):
            found = _drawn(bench, case, size, arguments, settings)
            rows.append({"group": name, "models": size, **_figures(found, untuned, owner)})
            _say(_row(rows[-1]))
    result = {
        "backbone": arguments.model,
        "test_models": len(bench.test.model_ids),
        "queries": len(owner),
        "distractors": len(bench.gallery),
        "steps": arguments.steps,
        "draws": arguments.draws,
        "seed": arguments.seed,
        "rows": rows,
    }
    if arguments.json:
        arguments.json.write_text(json.dumps(result, indent=2) + "\n", "utf-8")
    _print(result, rows)


def _drawn(
    bench: Bench,
    case: CaseFeatures,
    size: int,
    arguments: argparse.Namespace,
    settings: TuningSettings,
) -> Floats:
    """(draws, queries, metrics); all models can be drawn in one way only."""
    count = len(case.model_ids)
    scores = []
    for draw in range(arguments.draws if size < count else 1):
        chosen = np.random.default_rng([arguments.seed, size, draw]).permutation(count)[:size]
        scores.append(bench.score(bench.tuned(case.of_models(np.sort(chosen).tolist()), settings)))
    return np.stack(scores)


def _figures(scores: Floats, untuned: Floats, owner: NDArray[np.int64]) -> dict[str, object]:
    mean = scores.mean(axis=0)
    gains = paired_difference(untuned, mean, owner)
    spread = scores.mean(axis=1).std(axis=0, ddof=1) if len(scores) > 1 else np.full(2, np.nan)
    figures: dict[str, object] = {"draws": len(scores)}
    intervals = mean_intervals(mean, owner)
    for place, metric in enumerate(METRICS):
        figures[metric] = intervals[place].to_dict()
        figures[metric + "_gain"] = gains[place].to_dict()
        figures[metric + "_spread"] = None if len(scores) < 2 else float(spread[place])
    return figures


def _sizes(wanted: str, count: int) -> list[int]:
    sizes = sorted({int(size) for size in wanted.split(",")})
    return [size for size in sizes if 2 <= size < count] + [count]


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("test", nargs="+", type=Path, metavar="CASE.json")
    parser.add_argument("--learn", action="append", required=True, metavar="NAME=CASE.json,...")
    parser.add_argument("--validation", nargs="+", type=Path, required=True, metavar="CASE.json")
    parser.add_argument("--distractors", required=True, help="training images: a folder, tar ...")
    parser.add_argument("--exclude", action="append", type=Path, default=[], metavar="FOLDER")
    parser.add_argument("--model", default="efficientnet-lite0-stages-48px", help="backbone")
    parser.add_argument("--sizes", default="4,8,16,32,64", help="models to learn from")
    parser.add_argument("--draws", type=int, default=8, help="of models, for each size")
    parser.add_argument("--steps", type=int, default=400, help="of the tuning; 0: closed form")
    parser.add_argument("--seed", type=int, default=0, help="of draws and tuning")
    parser.add_argument("--json", type=Path, help="file to write the figures to")
    return parser.parse_args()


def _print(result: dict[str, object], rows: list[dict[str, object]]) -> None:
    print(
        f"{result['test_models']} test models, {result['queries']} generated images, "
        f"{result['distractors']:,} distractors; {result['backbone']}, seed {result['seed']}\n"
    )
    print(
        "| learned from | models | Recall@5 | mAP | Recall@5 less untuned | mAP less untuned | "
        "mAP, sd over draws |"
    )
    print("|---|--:|--:|--:|--:|--:|--:|")
    for row in rows:
        print(_row(row))


def _row(row: dict[str, object]) -> str:
    spread = row["map_spread"]
    between = "" if spread is None else f"{spread:.3f} ({row['draws']})"
    return (
        f"| {row['group']} | {row['models'] or ''} | {shown(row['recall_5'])} | "
        f"{shown(row['map'])} | {shown(row['recall_5_gain'], signed=True)} | "
        f"{shown(row['map_gain'], signed=True)} | "
        f"{between} |"
    )


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
