"""Mapper pairs in closed form: the two sides brought to one scale, and noise between pairs damped.

Generated images differ from training images as a whole (resolution, smoothness, background), and
a generated image differs from its exemplar in ways that are the same for every exemplar. Both are
told by means and covariances, which need far fewer models than a matrix of free weights. Standard
tools: standardisation of each domain, and within-class covariance normalisation (Hatch, Kajarekar,
Stolcke, Interspeech 2006) with a customized model as the class and shrinkage for few models.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from embed.mapper import Mapper, MapperPair
from ingest.errors import UsageError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from embed.tuning_data import TuningData

    Doubles = NDArray[np.float64]

__all__ = ["aligned", "standardised"]

_SMALLEST_SPREAD = 1e-3
"""Of a channel's standard deviation, in units of the whole side's: below, it holds no signal."""


def standardised(data: TuningData) -> MapperPair:
    """x -> (x - mean) / deviation, with the statistics of each side: linear maps (d, d).

    The real side's are those of `others`, the synth side's those of all generated images.

    Raises:
        UsageError: fewer than two images on a side.
    """
    (real_mean, real_spread), (synth_mean, synth_spread) = _statistics(data)
    return MapperPair(
        Mapper.linear(np.diag(1 / real_spread), -real_mean / real_spread),
        Mapper.linear(np.diag(1 / synth_spread), -synth_mean / synth_spread),
    )


def aligned(data: TuningData, *, shrinkage: float, out_dim: int | None = None) -> MapperPair:
    """`standardised`, then the same linear map on both sides that damps what pairs disagree in.

    With Z the covariance of (generated image - its model's mean exemplar), scaled to a mean
    eigenvalue of 1, the map is (Z + shrinkage I)^(-1/2). Of its result the `out_dim` directions
    are kept in which the other training images vary most.

    Args:
        data: base features (n, d).
        shrinkage: above 0; large values leave the features as `standardised` has them.
        out_dim: f; d when None or larger than d.

    Returns:
        linear maps (f, d).

    Raises:
        UsageError: fewer than two images on a side, a shrinkage that is not above 0.
    """
    if not shrinkage > 0:
        raise UsageError(f"shrinkage must be above 0, not {shrinkage}")
    (real_mean, real_spread), (synth_mean, synth_spread) = _statistics(data)
    means = (data.means() - real_mean) / real_spread
    gaps = (data.synth - synth_mean) / synth_spread - means[data.synth_model]
    within = gaps.T @ gaps
    within *= len(within) / np.trace(within)
    values, vectors = np.linalg.eigh(within)
    damp = (vectors / np.sqrt(np.maximum(values, 0) + shrinkage)) @ vectors.T
    if out_dim is not None and out_dim < data.dim:
        others = ((data.others - real_mean) / real_spread) @ damp
        damp = damp @ _leading(others, out_dim)
    return MapperPair(
        Mapper.linear((damp / real_spread[:, None]).T, -(real_mean / real_spread) @ damp),
        Mapper.linear((damp / synth_spread[:, None]).T, -(synth_mean / synth_spread) @ damp),
    )


def _statistics(data: TuningData) -> tuple[tuple[Doubles, Doubles], tuple[Doubles, Doubles]]:
    if len(data.others) < 2 or len(data.synth) < 2:
        raise UsageError(
            f"alignment needs generated images ({len(data.synth)} given) and training images that "
            f"no model was customized on ({len(data.others)} given): at least two of each"
        )
    return _side(data.others), _side(data.synth)


def _side(features: NDArray[np.float32]) -> tuple[Doubles, Doubles]:
    x = features.astype(np.float64)
    spread = x.std(axis=0)
    whole = float(np.sqrt((spread**2).mean()))
    return x.mean(axis=0), spread + _SMALLEST_SPREAD * whole + (0 if whole > 0 else 1)


def _leading(x: Doubles, count: int) -> Doubles:
    """(d, count) directions of largest variance, signs fixed."""
    _, vectors = np.linalg.eigh(np.cov(x.T))
    leading = vectors[:, ::-1][:, :count]
    signs = np.sign(leading[np.abs(leading).argmax(axis=0), np.arange(count)])
    result: Doubles = leading * signs
    return result
