"""How good a fitted calibrator is on the generated images of a test case."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from embed.calibrator import Calibrator
from evaluation.bootstrap import Interval, mean_intervals
from evaluation.divergence import deployed, kl, kl_smoothed
from evaluation.fit import Scores, best_softmax, score
from evaluation.reliability import Reliability, reliability

if TYPE_CHECKING:
    from evaluation.spectrum import Spectrum

__all__ = ["CalibrationScores", "calibration_scores"]


@dataclass(frozen=True)
class CalibrationScores:
    """A calibrator on one test case.

    Attributes:
        kl: the paper's loss as a divergence (softplus), in nats, with its interval over models.
        kl_smoothed: the divergence of influence as answers give it, a thousandth spread evenly.
        mass: influence on the exemplars as answers give it, 0..1.
        scores: all of it as means over queries, and the support.
        softmax_tau: temperature of the softmax that is best on these very queries.
        softmax: scores of that softmax.
        reliability: the calibration curve, with the expected calibration error.
    """

    kl: Interval
    kl_smoothed: Interval
    mass: Interval
    scores: Scores
    softmax_tau: float
    softmax: Scores
    reliability: Reliability

    def to_dict(self) -> dict[str, Any]:
        """For JSON; the calibration curve has a place of its own in a report."""
        return {
            "kl": self.kl.to_dict(),
            "kl_smoothed": self.kl_smoothed.to_dict(),
            "mass": self.mass.to_dict(),
            "expected_calibration_error": self.reliability.error,
            "scores": self.scores.to_dict(),
            "softmax": {"tau": self.softmax_tau, **self.softmax.to_dict()},
        }


def calibration_scores(spectrum: Spectrum, calibrator: Calibrator) -> CalibrationScores:
    """Score a calibrator on queries that it should not have been fitted on.

    The softmax beside it was fitted on these queries: it has an advantage.
    """
    columns = (
        kl(spectrum, calibrator),
        kl_smoothed(spectrum, calibrator),
        deployed(spectrum, calibrator).mass,
    )
    loss, smoothed, mass = mean_intervals(np.stack(columns, axis=1), spectrum.models)
    tau = best_softmax(spectrum)
    return CalibrationScores(
        kl=loss,
        kl_smoothed=smoothed,
        mass=mass,
        scores=score(spectrum, calibrator),
        softmax_tau=tau,
        softmax=score(spectrum, Calibrator(tau, 0.0)),
        reliability=reliability(spectrum, calibrator),
    )
