"""What an evaluation found: one row a generated image, and summaries with intervals."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from evaluation.bootstrap import CONFIDENCE, RESAMPLES, Interval, mean_intervals
from evaluation.features import CaseFeatures
from evaluation.protocol import RECALL_AT, Blocks, Ranks, average_precision, ranks, recall_at
from ingest.errors import UsageError

if TYPE_CHECKING:
    import pyarrow as pa

    from evaluation.reliability import Reliability
    from evaluation.through_index import ThroughIndex

__all__ = [
    "CURVE_AT",
    "METRICS",
    "SCHEMA",
    "CaseResult",
    "ModelResults",
    "RecallCurve",
    "Summary",
    "evaluate",
    "gallery_hash",
    "of_ranks",
]

SCHEMA = "attrib.evaluation/1"
"""Of the JSON form; a change that a reader could trip over takes another number."""

METRICS = (*(f"recall_at_{k}" for k in RECALL_AT), "average_precision")
"""Columns of the metrics, in rows and in summaries."""

CURVE_AT = tuple(int(k) for k in np.unique(np.geomspace(1, 1000, 49).round()))
"""The k of a recall curve: evenly spaced in the logarithm."""


@dataclass(frozen=True)
class Summary:
    """Means over some queries of a test case.

    Attributes:
        label: which queries, e.g. a prompt type.
        metrics: by name, see `METRICS`; all of the same queries and models.
    """

    label: str
    metrics: Mapping[str, Interval]

    @property
    def queries(self) -> int:
        """How many queries it is over."""
        return self.metrics[METRICS[0]].queries

    @property
    def models(self) -> int:
        """How many models they belong to."""
        return self.metrics[METRICS[0]].models

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "label": self.label,
            "queries": self.queries,
            "models": self.models,
            **{
                name: {key: interval.to_dict()[key] for key in ("mean", "low", "high")}
                for name, interval in self.metrics.items()
            },
        }


@dataclass(frozen=True)
class RecallCurve:
    """Recall@k over k, with its interval: (ks,) each.

    Attributes:
        at: the k, ascending.
        recall: mean over queries.
    """

    at: tuple[int, ...]
    recall: tuple[Interval, ...]


@dataclass(frozen=True, eq=False)
class CaseResult:
    """One test case, scored with one attribution model.

    Attributes:
        case: name of the test case.
        model_ids: (models,) the customized models.
        kinds: (models,) what each was customized on, e.g. `object` or `style`.
        model: int64 (queries,) each query's place in `model_ids`.
        prompt_type: (queries,)
        image: (queries,) names each query within its model.
        ranks: of the exemplars.
        gallery: identifies the set of distractors, whatever the attribution model; may be empty.
    """

    case: str
    model_ids: tuple[str, ...]
    kinds: tuple[str, ...]
    model: NDArray[np.int64]
    prompt_type: tuple[str, ...]
    image: tuple[str, ...]
    ranks: Ranks
    gallery: str = ""

    @cached_property
    def metrics(self) -> NDArray[np.float64]:
        """(queries, metrics) in the order of `METRICS`."""
        columns = [recall_at(self.ranks, k) for k in RECALL_AT]
        return np.stack([*columns, average_precision(self.ranks)], axis=1)

    @property
    def queries(self) -> list[tuple[str, str]]:
        """(queries,) the model and the name of each: what tells it from all others of the case."""
        return [(self.model_ids[m], name) for m, name in zip(self.model, self.image, strict=True)]

    @cached_property
    def overall(self) -> Summary:
        """Over all queries; the paper's mAP is its `average_precision`."""
        return self._summary("all", np.ones(len(self.ranks), dtype=bool))

    @cached_property
    def by_prompt_type(self) -> list[Summary]:
        """A summary for each prompt type, in order of name."""
        return self._groups(self.prompt_type)

    @cached_property
    def by_kind(self) -> list[Summary]:
        """A summary for each kind of model, in order of name."""
        return self._groups([self.kinds[model] for model in self.model])

    @cached_property
    def by_exemplars(self) -> list[Summary]:
        """A summary for each number of exemplars a model has: 1, 2, 3-4, 5-8, 9-16 and so on.

        How attribution carries over to larger sets. Recall@k cannot exceed k / exemplars.
        """
        return self._groups(
            [_doubling(int(count)) for count in self.ranks.positives],
            order=lambda label: int(label.split("-")[0]),
        )

    @cached_property
    def curve(self) -> RecallCurve:
        """Recall@k for k = 1 .. 1000."""
        table = np.stack([recall_at(self.ranks, k) for k in CURVE_AT], axis=1)
        return RecallCurve(CURVE_AT, tuple(mean_intervals(table, self.model)))

    def to_dict(self) -> dict[str, Any]:
        """All summaries, for JSON; the rows are in `table`."""
        return {
            "case": self.case,
            "distractors": self.ranks.distractors,
            "gallery": self.gallery,
            "models": len(self.model_ids),
            "queries": len(self.ranks),
            "overall": self.overall.to_dict(),
            "by_prompt_type": [summary.to_dict() for summary in self.by_prompt_type],
            "by_kind": [summary.to_dict() for summary in self.by_kind],
            "by_exemplars": [summary.to_dict() for summary in self.by_exemplars],
            "recall_curve": [
                {"k": k, "mean": point["mean"], "low": point["low"], "high": point["high"]}
                for k, point in zip(
                    self.curve.at, (one.to_dict() for one in self.curve.recall), strict=True
                )
            ],
        }

    def table(self) -> pa.Table:
        """One row a query: case, model, kind, prompt type, image, ranks and metrics."""
        import pyarrow as pa

        rows = {
            "case": pa.array([self.case] * len(self.ranks), pa.string()),
            "model": pa.array([self.model_ids[model] for model in self.model], pa.string()),
            "kind": pa.array([self.kinds[model] for model in self.model], pa.string()),
            "prompt_type": pa.array(self.prompt_type, pa.string()),
            "image": pa.array(self.image, pa.string()),
            "exemplars": pa.array(self.ranks.positives, pa.int64()),
            "ranks": pa.array(
                [self.ranks.of(query) for query in range(len(self.ranks))], pa.list_(pa.int64())
            ),
        }
        metrics = {
            name: pa.array(self.metrics[:, column], pa.float64())
            for column, name in enumerate(METRICS)
        }
        return pa.table({**rows, **metrics})

    def _groups(
        self, labels: Sequence[str], order: Callable[[str], Any] | None = None
    ) -> list[Summary]:
        of = np.asarray(labels, dtype=object)
        return [self._summary(label, of == label) for label in sorted(set(labels), key=order)]

    def _summary(self, label: str, chosen: NDArray[np.bool_]) -> Summary:
        intervals = mean_intervals(self.metrics[chosen], self.model[chosen])
        return Summary(label, dict(zip(METRICS, intervals, strict=True)))


@dataclass(frozen=True, eq=False)
class ModelResults:
    """An attribution model with all test cases that it was scored on.

    Attributes:
        name: of the attribution model, unique in a report.
        cases: one of a name.
        base: its backbone, or whatever else it has in common with the models that it is set beside.
        tuned: whether its mappers were tuned.
        calibration: curves to draw, by what they are of.
        through_index: by test case, the same through an approximate index.
        notes: anything more to keep in the JSON, e.g. the fingerprint.
    """

    name: str
    cases: tuple[CaseResult, ...]
    base: str = ""
    tuned: bool = False
    calibration: Mapping[str, Reliability] = field(default_factory=dict)
    through_index: Mapping[str, ThroughIndex] = field(default_factory=dict)
    notes: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        names = [case.case for case in self.cases]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise UsageError(f"{self.name}: test case {twice[0]} is there twice")

    def of(self, case: str) -> CaseResult | None:
        """The test case of that name, if it was scored."""
        return next((result for result in self.cases if result.case == case), None)

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "attribution_model": self.name,
            "base": self.base,
            "tuned": self.tuned,
            "notes": dict(self.notes),
            "calibration": {label: curve.to_dict() for label, curve in self.calibration.items()},
            "through_index": {
                label: result.to_dict() for label, result in self.through_index.items()
            },
            "bootstrap": {"over": "models", "resamples": RESAMPLES, "confidence": CONFIDENCE},
            "cases": [case.to_dict() for case in self.cases],
        }


def evaluate(
    case: CaseFeatures,
    gallery: Blocks,
    *,
    kind: str | Sequence[str] = "",
    images: Sequence[str] | None = None,
    gallery_id: str = "",
    progress: Callable[[int, int], None] | None = None,
) -> CaseResult:
    """Score a test case by the paper's protocol.

    Args:
        case: final features, see `evaluation.protocol.ranks`, which says what is raised too.
        gallery: the distractors.
        kind: what the models were customized on, e.g. `object`; one for all, or one a model.
        images: (queries,) a name for each query; without, its prompt type and its number within
            model and type.
        gallery_id: names the set of distractors, see `gallery_hash`, so that results on other
            distractors are never compared with these.
        progress: called with the distractors done and in all.

    Raises:
        UsageError: kinds or names that are not one a model, one a query.
    """
    return of_ranks(
        case,
        ranks(case, gallery, progress=progress),
        kind=kind,
        images=images,
        gallery_id=gallery_id,
    )


def of_ranks(
    case: CaseFeatures,
    found: Ranks,
    *,
    kind: str | Sequence[str] = "",
    images: Sequence[str] | None = None,
    gallery_id: str = "",
) -> CaseResult:
    """A result of ranks that are there already, e.g. those through an index; see `evaluate`."""
    kinds = (kind,) * len(case.model_ids) if isinstance(kind, str) else tuple(kind)
    if len(kinds) != len(case.model_ids):
        raise UsageError(f"{case.name}: {len(kinds)} kinds for {len(case.model_ids)} models")
    names = _numbered(case) if images is None else tuple(images)
    if len(names) != len(case.synth):
        raise UsageError(f"{case.name}: {len(names)} names for {len(case.synth)} generated images")
    if len(set(zip(case.synth_model.tolist(), names, strict=True))) != len(names):
        raise UsageError(f"{case.name}: two generated images of one model have the same name")
    return CaseResult(
        case.name,
        case.model_ids,
        kinds,
        case.synth_model,
        case.synth_type,
        names,
        found,
        gallery_id,
    )


def gallery_hash(keys: Iterable[str]) -> str:
    """Hex digest of a set of distractors by their keys, in whatever order."""
    digest = hashlib.sha256()
    for key in sorted(keys):
        content = key.encode("utf-8", "surrogateescape")
        digest.update(len(content).to_bytes(8, "big") + content)
    return digest.hexdigest()


def _numbered(case: CaseFeatures) -> tuple[str, ...]:
    seen: dict[tuple[int, str], int] = {}
    names = []
    for key in zip(case.synth_model.tolist(), case.synth_type, strict=True):
        number = seen.get(key, 0)
        seen[key] = number + 1
        names.append(f"{key[1]}/{number}")
    return tuple(names)


def _doubling(count: int) -> str:
    high = 1 << (count - 1).bit_length()
    low = high // 2 + 1
    return str(count) if low >= high else f"{low}-{high}"
