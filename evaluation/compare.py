"""Whether one report's attribution model is better than another's, on the same generated images.

Both saw the same images, so the difference is taken image by image before models are resampled:
what is hard for both cancels, and far smaller differences show than two intervals side by side do.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from evaluation.bootstrap import ENOUGH, Interval, paired_difference
from evaluation.report import JSON_FILE, ROWS_FILE, TITLES
from evaluation.results import METRICS, SCHEMA
from ingest.errors import SourceError, UsageError

__all__ = ["CaseComparison", "Comparison", "compare"]

_Key = tuple[str, str, str]


@dataclass(frozen=True)
class CaseComparison:
    """Two attribution models on one test case, or on all of them together.

    Attributes:
        case: its name; `all` for all together, where there is more than one.
        metrics: by name, see `results.METRICS`: mean of a, mean of b, and b - a with its interval.
    """

    case: str
    metrics: dict[str, tuple[float, float, Interval]]


@dataclass(frozen=True)
class Comparison:
    """b against a, in pairs.

    Attributes:
        a: name of the first attribution model.
        b: of the second.
        cases: one a test case, then all together where there is more than one.
    """

    a: str
    b: str
    cases: tuple[CaseComparison, ...]

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "schema": SCHEMA,
            "a": self.a,
            "b": self.b,
            "cases": [
                {
                    "case": one.case,
                    **{
                        name: {"a": a, "b": b, "difference": difference.to_dict()}
                        for name, (a, b, difference) in one.metrics.items()
                    },
                }
                for one in self.cases
            ],
        }

    def markdown(self) -> str:
        """A table; differences that are more than chance are bold, see `Interval.excludes_zero`."""
        lines = [
            f"b = {self.b} against a = {self.a}; differences with 95 % intervals, a paired "
            "bootstrap over models. Bold: the interval excludes 0, and there are at least "
            f"{ENOUGH} models.",
            "",
            "| test case | metric | a | b | b - a | interval | models |",
            "|---|---|--:|--:|--:|--:|--:|",
        ]
        for one in self.cases:
            for name, (a, b, difference) in one.metrics.items():
                mark = "**" if difference.excludes_zero else ""
                ends = "n/a, fewer than 2 models"
                if difference.low is not None and difference.high is not None:
                    ends = f"[{difference.low:+.3f}, {difference.high:+.3f}]"
                lines.append(
                    f"| {one.case} | {TITLES[name]} | {a:.3f} | {b:.3f} "
                    f"| {mark}{difference.mean:+.3f}{mark} | {ends} | {difference.models} |"
                )
        return "\n".join(lines) + "\n"


@dataclass(frozen=True, eq=False)
class _Scored:
    """One attribution model of a report.

    `values`: (queries, metrics) in the order of `keys`; `galleries`: by test case.
    """

    folder: Path
    name: str
    keys: list[_Key]
    values: NDArray[np.float64]
    galleries: dict[str, tuple[int, str]]


def compare(
    a: Path, b: Path, *, model_a: str | None = None, model_b: str | None = None
) -> Comparison:
    """Test b - a on the generated images that both reports are about.

    Args:
        a: folder of a report, see `evaluation.report.write_report`.
        b: of another one, or the same.
        model_a: which attribution model of `a`; needed where it has several.
        model_b: likewise of `b`.

    Raises:
        SourceError: no report there, or a damaged one.
        UsageError: several attribution models and none chosen, or none of that name; reports on
            other queries, or with other distractors.
    """
    first, second = _read(a, model_a), _read(b, model_b)
    _check_same(first, second)
    row = {key: place for place, key in enumerate(second.keys)}
    paired = second.values[[row[key] for key in first.keys]]
    cases = np.array([key[0] for key in first.keys], dtype=object)
    # Models are named within their test case.
    numbers: dict[tuple[str, str], int] = {}
    model = np.array([numbers.setdefault(key[:2], len(numbers)) for key in first.keys])
    names = list(dict.fromkeys(key[0] for key in first.keys))
    found: list[CaseComparison] = []
    for name in [*names, *(["all"] if len(names) > 1 else [])]:
        chosen = np.ones(len(cases), dtype=bool)
        if len(found) < len(names):
            chosen = cases == name
        one, other = first.values[chosen], paired[chosen]
        differences = paired_difference(one, other, model[chosen])
        means = zip(one.mean(axis=0), other.mean(axis=0), differences, strict=True)
        metrics = {
            metric: (float(mean_a), float(mean_b), difference)
            for metric, (mean_a, mean_b, difference) in zip(METRICS, means, strict=True)
        }
        found.append(CaseComparison(name, metrics))
    return Comparison(first.name, second.name, tuple(found))


def _read(folder: Path, wanted: str | None) -> _Scored:
    import pyarrow as pa
    import pyarrow.parquet as pq

    rows_file, json_file = folder / ROWS_FILE, folder / JSON_FILE
    for file in (rows_file, json_file):
        if not file.is_file():
            raise SourceError(f"{folder} has no {file.name}; it is not a report of an evaluation")
    try:
        content = json.loads(json_file.read_text("utf-8"))
        schema = content["schema"]
        if schema != SCHEMA:
            raise SourceError(f"{json_file} is of schema {schema}, this attrib reads {SCHEMA}")
        galleries = {
            one["attribution_model"]: {
                case["case"]: (case["distractors"], case["gallery"]) for case in one["cases"]
            }
            for one in content["results"]
        }
        columns = ["attribution_model", "case", "model", "image", *METRICS]
        table = pq.read_table(rows_file, columns=columns)
    except (OSError, ValueError, KeyError, TypeError, pa.ArrowException) as exc:
        raise SourceError(f"the report in {folder} is damaged; evaluate again") from exc
    name = _chosen(folder, list(galleries), wanted)
    mine = {
        column: [
            value
            for of, value in zip(
                table["attribution_model"].to_pylist(), table[column].to_pylist(), strict=True
            )
            if of == name
        ]
        for column in columns[1:]
    }
    keys = list(zip(mine["case"], mine["model"], mine["image"], strict=True))
    if not keys:
        raise SourceError(f"the report in {folder} has no generated image of {name}")
    values = np.array([mine[metric] for metric in METRICS], dtype=np.float64).T
    if len(set(keys)) != len(keys) or not {key[0] for key in keys} <= set(galleries[name]):
        raise SourceError(f"the report in {folder} is damaged; evaluate again")
    return _Scored(folder, name, keys, values, galleries[name])


def _chosen(folder: Path, names: list[str], wanted: str | None) -> str:
    shown = ", ".join(names)
    if wanted is None:
        if len(names) == 1:
            return names[0]
        raise UsageError(f"{folder} has several attribution models ({shown}); say which")
    if wanted not in names:
        raise UsageError(f"{folder} has no attribution model {wanted}; it has {shown}")
    return wanted


def _check_same(a: _Scored, b: _Scored) -> None:
    common = len(set(a.keys) & set(b.keys))
    if common != len(a.keys) or common != len(b.keys):
        raise UsageError(
            f"{a.folder} and {b.folder} are about different generated images: {len(a.keys)} and "
            f"{len(b.keys)}, of which {common} are common; evaluate both on the same test cases"
        )
    for case in dict.fromkeys(key[0] for key in a.keys):
        (one, id_of_one), (other, id_of_other) = a.galleries[case], b.galleries[case]
        if one != other or id_of_one != id_of_other:
            raise UsageError(
                f"{case} was scored among {one} distractors in {a.folder} and {other} "
                f"{'others ' if one == other else ''}in {b.folder}; evaluate both with the same"
            )
