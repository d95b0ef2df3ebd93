"""Which way of customizing teaches the others: learned from one method, measured on another.

    python -m benchmarks.dataset_transfer --group lora=a/object_train.json,a/object_test.json \\
        --group full=b/object_train.json,b/object_test.json \\
        --validation object_val.json --distractors clipart/ --exclude cases/

The groups are customized toward the same exemplars (`attrib dataset build` with the same `--seed`);
models whose exemplars are not in every group are left out. Half of the exemplars are learned from
and the other half measured, then the other way round, so that each model is measured once, by maps
that saw neither it nor its exemplar. Measured are also the models as the groups are, untuned and
with `--also` models that are there already: how findable exemplars are in each group, and, in pairs
of equal exemplars and prompts, how much more so than in the first group. *Median rank* is over the
images, of the exemplar that stands first.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benchmarks.dataset_cases import (
    Floats,
    features_of,
    gallery_of,
    group_of,
    scores,
    scores_and_ranks,
    shown,
)
from embed.lazy_embedder import LazyEmbedder
from embed.mapper import MapperPair
from embed.model import AttributionModel
from embed.registry import find_model
from embed.tuning import TuningSettings
from evaluation.bootstrap import Interval, mean_intervals, paired_difference
from evaluation.case_set import excluded_exemplars
from evaluation.cases import TestCase, exemplar_paths
from evaluation.features import CaseFeatures
from evaluation.overlap import contents_of
from evaluation.tuning import join_cases, tune_model

METRICS = ("recall_5", "map")


def main() -> None:
    """Measure, print two tables; with --json a file."""
    arguments = _arguments()
    model = find_model(arguments.model)
    embedder = LazyEmbedder(model)
    read = {
        name: features_of(files, name, model, embedder)
        for name, files in map(group_of, arguments.group)
    }
    stop_cases, stop = features_of(arguments.validation, "validation", model, embedder)
    gone = exemplar_paths([*stop_cases, *(case for cases, _ in read.values() for case in cases)])
    gone |= excluded_exemplars(arguments.exclude, note=_say)
    others = gallery_of(arguments.distractors, gone, model, embedder)
    groups = _common(read)
    count = len(next(iter(groups.values())).model_ids)
    if count < 4:
        sys.exit(f"{count} models have exemplars that all groups have; 4 are needed at least")
    result = {
        "models": count,
        "distractors": len(others),
        "backbone": arguments.model,
        "seed": arguments.seed,
        "strength": _strength(groups, others, [find_model(name) for name in arguments.also]),
        "transfer": []
        if arguments.strength_only
        else _transfer(groups, stop, others, model, arguments),
    }
    if arguments.json:
        arguments.json.write_text(json.dumps(result, indent=2) + "\n", "utf-8")
    _print(result, list(groups))


# -- how findable ----------------------------------------------------------------------------------


def _strength(
    groups: dict[str, CaseFeatures], others: NDArray[np.float32], also: Sequence[AttributionModel]
) -> list[dict[str, object]]:
    rows: list[dict[str, object]] = []
    for name, pair in [("untuned", None), *((one.name, one.mappers) for one in also)]:
        first: Floats | None = None
        for group, case in groups.items():
            values, places = scores_and_ranks(case, others, pair)
            first = values if first is None else first
            row = {"by": name, "group": group, **_intervals(values, case.synth_model)}
            row["median_rank"] = float(np.median(places))
            if len(values) == len(first) and values is not first:
                gains = paired_difference(first, values, case.synth_model)
                row |= {f"{m}_gain": g.to_dict() for m, g in zip(METRICS, gains, strict=True)}
            rows.append(row)
    return rows


# -- transfer --------------------------------------------------------------------------------------


def _transfer(
    groups: dict[str, CaseFeatures],
    stop: CaseFeatures,
    others: NDArray[np.float32],
    model: AttributionModel,
    arguments: argparse.Namespace,
) -> list[dict[str, object]]:
    settings = TuningSettings(steps=arguments.steps, seed=arguments.seed)
    count = len(next(iter(groups.values())).model_ids)
    order = np.random.default_rng(arguments.seed).permutation(count)
    folds = [np.sort(order[: count // 2]), np.sort(order[count // 2 :])]
    sources: dict[str, list[MapperPair | None]] = {"untuned": [None, None]}
    for name, cases in [
        *((name, [case]) for name, case in groups.items()),
        *([("all together", list(groups.values()))] if len(groups) > 1 else []),
    ]:
        _say(f"learning from {name} ...")
        sources[name] = [
            tune_model(
                model,
                "benchmark",
                join_cases([case.of_models(fold.tolist()) for case in cases], name),
                stop,
                others,
                settings,
            ).model.mappers
            for fold in folds
        ]
    rows: list[dict[str, object]] = []
    for target, case in groups.items():
        measured = [case.of_models(fold.tolist()) for fold in folds[::-1]]
        owner = np.concatenate(
            [fold[one.synth_model] for fold, one in zip(folds[::-1], measured, strict=True)]
        )
        untuned: Floats | None = None
        for source, pairs in sources.items():
            values = np.concatenate(
                [scores(one, others, pair) for one, pair in zip(measured, pairs, strict=True)]
            )
            untuned = values if untuned is None else untuned
            gains = paired_difference(untuned, values, owner)
            rows.append(
                {
                    "from": source,
                    "on": target,
                    **_intervals(values, owner),
                    **{f"{m}_gain": g.to_dict() for m, g in zip(METRICS, gains, strict=True)},
                }
            )
    return rows


def _common(
    read: dict[str, tuple[list[TestCase], CaseFeatures]],
) -> dict[str, CaseFeatures]:
    """The models whose exemplars (the first, at least) every group has, in one order."""
    places: dict[str, dict[str, int]] = {}
    for name, (cases, _) in read.items():
        models = [(case, one) for case in cases for one in case.models]
        places[name] = {
            next(iter(contents_of(one, case.root).exemplars)): place
            for place, (case, one) in enumerate(models)
        }
    known = sorted(set.intersection(*(set(one) for one in places.values())))
    return {
        name: features.of_models([places[name][digest] for digest in known])
        for name, (_, features) in read.items()
    }


def _intervals(values: Floats, owner: NDArray[np.int64]) -> dict[str, object]:
    found: list[Interval] = mean_intervals(values, owner)
    return {metric: one.to_dict() for metric, one in zip(METRICS, found, strict=True)}


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--group", action="append", required=True, metavar="NAME=CASE.json,...")
    parser.add_argument("--validation", nargs="+", type=Path, required=True, metavar="CASE.json")
    parser.add_argument("--distractors", required=True, help="training images: a folder, tar ...")
    parser.add_argument("--exclude", action="append", type=Path, default=[], metavar="FOLDER")
    parser.add_argument("--model", default="efficientnet-lite0-stages-48px", help="backbone")
    parser.add_argument(
        "--also", action="append", default=[], help="models of the same backbone, measured too"
    )
    parser.add_argument("--strength-only", action="store_true", help="learn nothing")
    parser.add_argument("--steps", type=int, default=0, help="of the tuning; 0: closed form")
    parser.add_argument("--seed", type=int, default=0, help="of halves and tuning")
    parser.add_argument("--json", type=Path, help="file to write the figures to")
    return parser.parse_args()


def _print(result: dict[str, object], groups: list[str]) -> None:
    rows, learned = result["strength"], result["transfer"]
    assert isinstance(rows, list)
    assert isinstance(learned, list)
    print(
        f"{result['models']} exemplars that all of {', '.join(groups)} have; "
        f"{result['distractors']:,} distractors; {result['backbone']}, seed {result['seed']}\n"
    )
    print(
        f"| by | images of | median rank | Recall@5 | mAP | mAP less {groups[0]} |\n"
        "|---|---|--:|--:|--:|--:|"
    )
    for row in rows:
        gain = shown(row["map_gain"], signed=True) if "map_gain" in row else ""
        print(
            f"| {row['by']} | {row['group']} | {row['median_rank']:,g} | "
            f"{shown(row['recall_5'])} | {shown(row['map'])} | {gain} |"
        )
    if not learned:
        return
    print("\n| learned from | measured on | Recall@5 | mAP | mAP less untuned |")
    print("|---|---|--:|--:|--:|")
    for row in learned:
        print(
            f"| {row['from']} | {row['on']} | {shown(row['recall_5'])} | {shown(row['map'])} | "
            f"{shown(row['map_gain'], signed=True)} |"
        )


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
