"""From test cases to a tuned, calibrated attribution model with its card."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from embed.mapper import Mapper, MapperPair
from embed.model import AttributionModel
from embed.tuning import Tuned, TuningSettings, Watch, tune
from embed.tuning_data import TuningData
from evaluation.bootstrap import paired_difference
from evaluation.features import CaseFeatures
from evaluation.fit import CalibratorFit, Objective, fit_calibrator
from evaluation.protocol import ArrayBlocks, average_precision, ranks, recall_at
from evaluation.spectrum import case_spectrum
from ingest.errors import UsageError

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["TunedModel", "join_cases", "split_models", "tune_model"]

_OTHERS = 20_000
"""Training images that tuning looks at: statistics, negatives and validation need no more."""

_LARGEST_HALF = 65504.0


@dataclass(frozen=True, eq=False)
class TunedModel:
    """What a tuning made.

    Attributes:
        model: tuned, and calibrated where that was asked for.
        tuned: step, score and history.
        fit: of the calibrator; None where it was not asked for.
        validation: measured on the models held out, in plain values; it stands in the card, too.
    """

    model: AttributionModel
    tuned: Tuned
    fit: CalibratorFit | None
    validation: dict[str, Any] = field(default_factory=dict)


def join_cases(cases: Sequence[CaseFeatures], name: str) -> CaseFeatures:
    """Several test cases as one, its models named `case/model`."""
    if not cases:
        raise UsageError("no test case given")
    starts = np.cumsum([0, *(len(case.model_ids) for case in cases)])
    sizes = np.concatenate([np.diff(case.chunks) for case in cases])
    return CaseFeatures(
        name=name,
        model_ids=tuple(f"{case.name}/{one}" for case in cases for one in case.model_ids),
        exemplars=np.concatenate([case.exemplars for case in cases]),
        chunks=np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64),
        synth=np.concatenate([case.synth for case in cases]),
        synth_model=np.concatenate(
            [case.synth_model + start for case, start in zip(cases, starts[:-1], strict=True)]
        ),
        synth_type=tuple(kind for case in cases for kind in case.synth_type),
    )


def split_models(case: CaseFeatures, share: float, seed: int) -> tuple[CaseFeatures, CaseFeatures]:
    """(for tuning, for validation): whole models, drawn by `seed`.

    Raises:
        UsageError: a share outside 0..1, or fewer than two models.
    """
    if not 0 < share < 1:
        raise UsageError(f"the share of models to validate on must be between 0 and 1, not {share}")
    count = len(case.model_ids)
    if count < 2:
        raise UsageError(f"{count} model cannot be split; name test cases to validate on")
    held = min(max(round(count * share), 1), count - 1)
    order = np.random.default_rng(seed).permutation(count)
    return case.of_models(np.sort(order[held:]).tolist()), case.of_models(
        np.sort(order[:held]).tolist()
    )


def tune_model(
    model: AttributionModel,
    name: str,
    train: CaseFeatures,
    validation: CaseFeatures,
    others: NDArray[np.floating[Any]],
    settings: TuningSettings,
    *,
    calibrate_on: str | None = None,
    objective: Objective = "exact",
    gallery: NDArray[np.floating[Any]] | None = None,
    facts: dict[str, Any] | None = None,
    checkpoint: Path | None = None,
    watch: Watch | None = None,
) -> TunedModel:
    """Tune on some customized models, stop by others, calibrate on these.

    Args:
        model: whose backbone is tuned on; its own mappers are not used.
        name: of the new model.
        train, validation: base features (n, d); no customized model in both.
        others: (n, d) base features of training images that no model was customized on.
        settings: of the tuning.
        calibrate_on: what the validation models are called in the calibrator; None leaves it
            unfitted.
        objective: of the calibration, see `evaluation.fit`.
        gallery: the distractors that the calibrator is fitted against; `others` when None.
        facts: for the card's `tuning`, e.g. the hashes of the customized models.
        checkpoint: see `embed.tuning.tune`.
        watch: see `embed.tuning.tune`.

    Raises:
        ModelError: features of another length than the backbone's.
        UsageError: as `embed.tuning.tune`.
    """
    whole = np.asarray(others if gallery is None else gallery, np.float32)
    if len(others) > _OTHERS:
        drawn = np.random.default_rng(settings.seed).choice(len(others), _OTHERS, replace=False)
        others = others[np.sort(drawn)]
    few = np.asarray(others, np.float32)
    data = TuningData(
        exemplars=train.exemplars,
        exemplar_model=np.repeat(np.arange(len(train.model_ids)), np.diff(train.chunks)),
        synth=train.synth,
        synth_model=train.synth_model,
        others=few,
    )

    def precision(pair: MapperPair) -> NDArray[np.float64]:
        found = ranks(validation.mapped(pair), ArrayBlocks(pair.real(few)))
        return np.stack([average_precision(found), recall_at(found, 5)], axis=1)

    tuned = tune(
        data,
        settings,
        lambda pair: float(precision(pair)[:, 0].mean()),
        checkpoint=checkpoint,
        watch=watch,
    )
    mappers = MapperPair(*(_rounded(m) for m in _sides(tuned.mappers)))
    before = precision(MapperPair.identity(train.dim))
    after = precision(mappers)
    gain = paired_difference(before, after, validation.synth_model, seed=settings.seed)
    measured = {
        "models": len(validation.model_ids),
        "queries": len(validation.synth),
        "distractors": len(few),
        "map": {"untuned": float(before[:, 0].mean()), "tuned": float(after[:, 0].mean())},
        "recall_5": {"untuned": float(before[:, 1].mean()), "tuned": float(after[:, 1].mean())},
        "map_gain": gain[0].to_dict(),
        "recall_5_gain": gain[1].to_dict(),
    }
    fresh = AttributionModel(
        name=name,
        backbone=model.backbone,
        mappers=mappers,
        tuned_on=f"{train.name} ({len(train.model_ids)} models)",
        weights_hash=model.weights_hash,
    )
    fit = None
    if calibrate_on is not None:
        spectrum = case_spectrum(validation.mapped(mappers), ArrayBlocks(mappers.real(whole)))
        fit = fit_calibrator(spectrum, calibrate_on, objective=objective)
        fresh = fresh.with_calibrator(fit.calibrator)
    card = {
        "tuning": {
            **(facts or {}),
            "settings": asdict(settings),
            "step": tuned.step,
            "validation": measured,
        },
        **({"calibration": _summary(fit)} if fit else {}),
    }
    return TunedModel(replace(fresh, card=card), tuned, fit, measured)


def _summary(fit: CalibratorFit) -> dict[str, Any]:
    return {
        "objective": fit.objective,
        "kl_before": fit.before.kl_smoothed,
        "kl_after": fit.after.kl_smoothed,
        "kl_softmax": fit.softmax.kl_smoothed,
        "softmax_tau": fit.softmax_tau,
        "mass_on_exemplars": fit.after.mass,
        "queries": fit.queries,
        "models": fit.models,
        "gallery": fit.gallery,
    }


def _sides(pair: MapperPair) -> tuple[Mapper, Mapper]:
    return pair.real_mapper, pair.synth_mapper


def _rounded(mapper: Mapper) -> Mapper:
    """To numbers that float16 holds, so that a saved model takes half the room."""
    halves = {
        name: np.clip(array, -_LARGEST_HALF, _LARGEST_HALF).astype(np.float16).astype(np.float32)
        for name, array in mapper.arrays.items()
    }
    return Mapper(mapper.kind, halves, mapper.in_dim)
