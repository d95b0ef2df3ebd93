"""The figures of an evaluation that a model's card keeps."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

from evaluation.results import METRICS, CaseResult
from ingest.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from embed.model import AttributionModel
    from evaluation.bootstrap import Interval
    from evaluation.calibration_scores import CalibrationScores
    from evaluation.run import Evaluation

__all__ = ["with_figures"]


def with_figures(model: AttributionModel, evaluation: Evaluation) -> dict[str, Any]:
    """The model's card with what the evaluation found of it.

    They stand in the card's `test`, by test case; older figures of a test case of the same name
    are replaced, those of others stay. The model's fingerprint stands beside them, so that a
    reader knows when they are of an earlier calibrator or mapper.

    Raises:
        UsageError: the model was not evaluated.
    """
    result = next((one for one in evaluation.results if one.name == model.name), None)
    if result is None:
        raise UsageError(f"model {model.name} was not evaluated")
    figures = {
        case.case: {
            **_facts(case),
            "fingerprint": result.notes.get("fingerprint"),
            "metrics": _ends(case.overall.metrics),
            **_untuned(evaluation, model.name, case.case),
            **_calibration(evaluation.calibration.get((model.name, case.case))),
            "warnings": list(result.notes.get("warnings", [])),
        }
        for case in result.cases
    }
    kept = model.card.get("test", {})
    return {**model.card, "test": {**(kept if isinstance(kept, dict) else {}), **figures}}


def _facts(case: CaseResult) -> dict[str, Any]:
    return {
        "models": len(case.model_ids),
        "kinds": dict(sorted(Counter(kind for kind in case.kinds if kind).items())),
        "queries": len(case.ranks),
        "distractors": case.ranks.distractors,
    }


def _untuned(evaluation: Evaluation, name: str, case: str) -> dict[str, Any]:
    """The untuned model's figures and the paired difference, where it was scored too."""
    for difference in evaluation.differences:
        if (difference.tuned, difference.case) == (name, case):
            other = next(one for one in evaluation.results if one.name == difference.untuned)
            scored = other.of(case)
            metrics = {} if scored is None else _ends(scored.overall.metrics)
            return {
                "untuned": {"name": other.name, "metrics": metrics},
                "minus_untuned": _ends(difference.metrics),
            }
    return {}


def _calibration(found: CalibrationScores | None) -> dict[str, Any]:
    if found is None:
        return {}
    return {
        "calibration": {
            "kl": _end(found.kl_smoothed),
            "kl_softmax": found.softmax.kl_smoothed,
            "mass_on_exemplars": _end(found.mass),
            "expected_calibration_error": found.reliability.error,
        }
    }


def _ends(metrics: Mapping[str, Interval]) -> dict[str, dict[str, float | None]]:
    return {name: _end(metrics[name]) for name in METRICS}


def _end(interval: Interval) -> dict[str, float | None]:
    return {"mean": interval.mean, "low": interval.low, "high": interval.high}
