"""A residual layer on features: x + W2 relu(W1 x + b1), one for each side, W2 = 0 at the start."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from embed.mapper import normalised
from embed.tuning_data import TuningData
from embed.tuning_learner import contrastive_loss

__all__ = ["Map", "residual_pair"]

Floats = NDArray[np.float32]
Map = Callable[[Floats], Floats]

HIDDEN = 256
STEPS, EVERY, PATIENCE = 200, 20, 4
IMAGES, QUEUE = 4, 1024
TEMPERATURE, RATE, DECAY = 0.1, 1e-4, 1e-2


class _Residual(nn.Module):
    def __init__(self, dim: int) -> None:
        super().__init__()
        self.first = nn.Linear(dim, HIDDEN)
        self.second = nn.Linear(HIDDEN, dim)
        nn.init.zeros_(self.second.weight)
        nn.init.zeros_(self.second.bias)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return nn.functional.normalize(x + self.second(torch.relu(self.first(x))), dim=1)


def residual_pair(data: TuningData, score: Callable[[Map, Map], float]) -> tuple[Map, Map]:
    """(real, synth) maps of features (n, f) to features (n, f); the best by `score` of all steps.

    The loss is that of `embed.tuning_learner`; AdamW's decay takes the place of the penalty.
    """
    torch.manual_seed(0)
    draw = np.random.default_rng(0)
    sides = [_Residual(data.dim), _Residual(data.dim)]
    sides[1].load_state_dict(sides[0].state_dict())
    parameters = [p for side in sides for p in side.parameters()]
    optimiser = torch.optim.AdamW(parameters, lr=RATE, weight_decay=DECAY)
    exemplars, others = torch.from_numpy(data.exemplars), torch.from_numpy(data.others)
    owner = torch.from_numpy(data.exemplar_model)
    best, best_at, at = _maps(sides), 0, 0
    top = score(*best)
    while at < STEPS and at - best_at < EVERY * PATIENCE:
        shuffled = draw.permutation(len(data.synth))
        by_model = [shuffled[data.synth_model[shuffled] == m][:IMAGES] for m in range(data.models)]
        rows = np.concatenate(by_model)
        queue = torch.from_numpy(draw.integers(len(others), size=QUEUE))
        loss = contrastive_loss(
            sides[1](torch.from_numpy(data.synth[rows])),
            torch.from_numpy(data.synth_model[rows]),
            sides[0](exemplars),
            owner,
            sides[0](others[queue]),
            TEMPERATURE,
        )
        optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
        at += 1
        if at % EVERY == 0 and (found := score(*(now := _maps(sides)))) > top:
            best, best_at, top = now, at, found
    return best


def _maps(sides: list[_Residual]) -> tuple[Map, Map]:
    return _map(deepcopy(sides[0])), _map(deepcopy(sides[1]))


def _map(side: _Residual) -> Map:
    def run(x: Floats) -> Floats:
        with torch.no_grad():
            return normalised(side(torch.from_numpy(np.ascontiguousarray(x))).numpy())

    return run
