"""The calibrator's two numbers, as part of an attribution model. Its mathematics is in `search`."""

from __future__ import annotations

from dataclasses import dataclass
from math import isfinite

from ingest.errors import ModelError

__all__ = ["BIAS_GAIN", "UNFITTED", "Calibrator"]

BIAS_GAIN = 0.001
"""The official state stores `bias`, and b = 0.001 * bias."""


@dataclass(frozen=True)
class Calibrator:
    """w = relu(exp((s - max s) / tau) + b), influence = w / sum(w) (paper, soft influence).

    Attributes:
        tau: temperature, above 0, in units of cosine.
        b: offset; below 0 it cuts off every similarity <= max + tau * ln(-b).
        fitted_on: what tau and b were fitted on; '' while they are defaults ("unfitted").
    """

    tau: float
    b: float
    fitted_on: str = ""

    def __post_init__(self) -> None:
        if not (isfinite(self.tau) and self.tau > 0):
            raise ModelError(f"calibrator: tau must be a number above 0, not {self.tau}")
        if not (isfinite(self.b) and self.b > -1):
            raise ModelError(f"calibrator: b must be a number above -1, not {self.b}")

    @property
    def fitted(self) -> bool:
        """Whether tau and b come from data."""
        return bool(self.fitted_on)

    @classmethod
    def from_official(cls, inv_tau: float, bias: float, fitted_on: str) -> Calibrator:
        """From the state of the paper's calibrator (`inv_tau`, `bias`)."""
        if not (isfinite(inv_tau) and inv_tau > 0):
            raise ModelError(f"calibrator: inv_tau must be a number above 0, not {inv_tau}")
        return cls(tau=1.0 / inv_tau, b=BIAS_GAIN * bias, fitted_on=fitted_on)


UNFITTED = Calibrator(tau=0.05, b=-0.02)
"""Where nothing was fitted: a cosine 0.05 lower weighs 1/e, and one 0.196 lower weighs nothing."""
