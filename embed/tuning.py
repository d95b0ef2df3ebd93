"""Tuning a pair of mappers by a contrastive loss (arXiv 2306.09345, section 4.1).

The backbone is frozen: what is learned from are base features, so a tuning takes seconds to
minutes on a CPU. No training code was published; the loss here is the paper's form, and its
temperature, regulariser, rates and sizes are settings chosen by validation.

The maps are learned in the coordinates of their start (`identity` is the paper's). There they
begin as the identity, and a penalty on |M M^T - I|^2 keeps them near orthogonal.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeAlias, get_args

import numpy as np

from embed.alignment import aligned, standardised
from embed.mapper import Mapper, MapperPair
from embed.tuning_data import TuningData
from ingest.errors import UsageError

__all__ = ["Kind", "Score", "Start", "Tuned", "TuningSettings", "Watch", "tune"]

Kind = Literal["linear", "channel", "mlp"]
Start = Literal["identity", "standardised", "aligned"]
Score: TypeAlias = Callable[[MapperPair], float]
Watch: TypeAlias = Callable[[int, float, float], None]


@dataclass(frozen=True)
class TuningSettings:
    """How to tune.

    Attributes:
        kind: linear (affine maps), channel (a weight a channel) or mlp (the paper's ablation).
        start: of linear maps: the identity, or a closed form of `embed.alignment`.
        shrinkage: of `aligned`.
        out_dim: length of the feature, for `aligned` and mlp; others keep the backbone's.
        hidden_dim: of an mlp.
        temperature: of the loss, in units of cosine.
        orthogonality: weight of |M M^T - I|^2 (linear) or of the mean of (w^2 - 1)^2 (channel).
        learning_rate: Adam's.
        models_per_batch: customized models in a batch; all where there are fewer.
        images_per_model: generated images of each in a batch.
        queue: other training images in a batch, as negatives of both directions.
        steps: at most.
        every: steps between two validations.
        patience: validations without a better score before tuning stops.
        seed: of batches and of an mlp's start.
    """

    kind: Kind = "linear"
    start: Start = "aligned"
    shrinkage: float = 3.0
    out_dim: int | None = 512
    hidden_dim: int = 512
    temperature: float = 0.1
    orthogonality: float = 1.0
    learning_rate: float = 1e-3
    models_per_batch: int = 64
    images_per_model: int = 4
    queue: int = 1024
    steps: int = 400
    every: int = 20
    patience: int = 5
    seed: int = 0

    def __post_init__(self) -> None:
        if self.kind not in get_args(Kind) or self.start not in get_args(Start):
            raise UsageError(f"no tuning of kind '{self.kind}' from '{self.start}'")
        if self.kind != "linear" and self.start != "identity":
            raise UsageError(f"{self.kind} mappers cannot start from '{self.start}'")
        above = ["shrinkage", "temperature", "learning_rate", "hidden_dim", "models_per_batch"]
        above += ["images_per_model", "every", "patience"]
        if self.out_dim is not None and self.out_dim < 1:
            raise UsageError(f"out_dim must be above 0, not {self.out_dim}")
        for name in (*above, "orthogonality", "queue", "steps", "seed"):
            value = getattr(self, name)
            if not (value > 0 if name in above else value >= 0):
                raise UsageError(f"{name} must be {'above 0' if name in above else '0 or more'}")


@dataclass(frozen=True, eq=False)
class Tuned:
    """What came out.

    Attributes:
        mappers: of the best validation.
        step: it was made at; 0 is the start.
        score: of it.
        history: (step, loss, score) of every validation; the loss at step 0 is NaN.
    """

    mappers: MapperPair
    step: int
    score: float
    history: list[tuple[int, float, float]] = field(default_factory=list)


def tune(
    data: TuningData,
    settings: TuningSettings,
    score: Score,
    *,
    checkpoint: Path | None = None,
    watch: Watch | None = None,
) -> Tuned:
    """Tune, and keep the maps that score best on data they were not tuned on.

    Args:
        data: base features (n, d) of the customized models to learn from.
        settings: how.
        score: of a mapper pair on other models; higher is better. The start is scored, too: what
            comes out is never worse by it than the start.
        checkpoint: a file that is written at every validation and taken up if it is there, made
            with the same settings and data; it is left in place.
        watch: called with (step, loss, score) at every validation.

    Raises:
        UsageError: settings that do not fit the data; a checkpoint of another tuning.
    """
    import torch

    from embed.tuning_learner import Checkpoint, Learner

    start = _start(data, settings)
    learner = Learner(data, settings, start)
    saved = Checkpoint(checkpoint, _identity(data, settings)) if checkpoint else None
    step, best = 0, Tuned(start or learner.pair(), 0, -np.inf)
    history: list[tuple[int, float, float]] = []
    if saved is not None and (state := saved.read()) is not None:
        step, history, best = learner.resume(state, best)
    else:
        first = score(best.mappers)
        best = Tuned(best.mappers, 0, first)
        history.append((0, float("nan"), first))
        _tell(watch, history)
    with torch.enable_grad():
        while step < settings.steps and _goes_on(history, best, settings):
            loss = 0.0
            for _ in range(min(settings.every, settings.steps - step)):
                loss = learner.step()
                step += 1
            pair = learner.pair()
            history.append((step, loss, score(pair)))
            _tell(watch, history)
            if history[-1][2] > best.score:
                best = Tuned(pair, step, history[-1][2])
                learner.remember_best()
            if saved is not None:
                saved.write(learner.state(step, history))
    return Tuned(best.mappers, best.step, best.score, history)


def _start(data: TuningData, settings: TuningSettings) -> MapperPair | None:
    """None for an mlp: it has no closed form, and begins as the learner draws it."""
    if settings.kind == "mlp":
        return None
    if settings.kind == "channel":
        ones = np.ones(data.dim, np.float32)
        return MapperPair(Mapper.channel(ones), Mapper.channel(ones))
    if settings.start == "aligned":
        return aligned(data, shrinkage=settings.shrinkage, out_dim=settings.out_dim)
    if settings.start == "standardised":
        return standardised(data)
    eye = np.eye(data.dim, dtype=np.float32)
    zeros = np.zeros(data.dim, np.float32)
    return MapperPair(Mapper.linear(eye, zeros), Mapper.linear(eye, zeros))


def _goes_on(
    history: list[tuple[int, float, float]], best: Tuned, settings: TuningSettings
) -> bool:
    return sum(step > best.step for step, _, _ in history) < settings.patience


def _tell(watch: Watch | None, history: list[tuple[int, float, float]]) -> None:
    if watch is not None:
        watch(*history[-1])


def _identity(data: TuningData, settings: TuningSettings) -> str:
    """What a checkpoint belongs to: settings but for their length, and the data."""
    import hashlib
    import json

    named: dict[str, Any] = {**asdict(settings), "steps": 0, "patience": 0}
    digest = hashlib.sha256(json.dumps(named, sort_keys=True).encode())
    for array in (data.exemplars, data.exemplar_model, data.synth, data.synth_model, data.others):
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()
