"""The steps of tuning: batches, loss, optimiser, and what of it a checkpoint keeps."""

from __future__ import annotations

import io
import pickle
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from embed.mapper import Mapper, MapperPair
from ingest.errors import ModelError, UsageError

if TYPE_CHECKING:
    from embed.tuning import Tuned, TuningSettings
    from embed.tuning_data import TuningData

__all__ = ["Checkpoint", "Learner", "contrastive_loss"]

_NO_LOSS = -1e9


def contrastive_loss(
    queries: Tensor,
    query_model: Tensor,
    exemplars: Tensor,
    exemplar_model: Tensor,
    others: Tensor,
    temperature: float,
) -> Tensor:
    """InfoNCE in both directions, with several positives on both sides.

    From a generated image: minus the mean, over its model's exemplars, of the log-softmax over all
    exemplars of the batch and `others`. From an exemplar: the same over its model's generated
    images, against all generated images of the batch. Each direction is a mean over its images.

    Args:
        queries: (q, f) normalised features of generated images; `query_model` (q,).
        exemplars: (e, f) normalised; `exemplar_model` (e,).
        others: (n, f) normalised features of further training images, n may be 0.
        temperature: of the softmax, in units of cosine.

    Returns:
        a scalar.
    """
    to_exemplars = queries @ exemplars.T / temperature
    to_others = queries @ others.T / temperature
    same = query_model[:, None] == exemplar_model[None, :]
    everything = torch.cat([to_exemplars, to_others], dim=1)
    forth = _positives_mean(to_exemplars, same) - torch.logsumexp(everything, dim=1)
    back = _positives_mean(to_exemplars.T, same.T) - torch.logsumexp(to_exemplars.T, dim=1)
    return -forth.mean() - back.mean()


def _positives_mean(scores: Tensor, same: Tensor) -> Tensor:
    return (scores * same).sum(dim=1) / same.sum(dim=1)


class Learner:
    """Mappers that learn, in the coordinates of their start."""

    def __init__(
        self, data: TuningData, settings: TuningSettings, start: MapperPair | None
    ) -> None:
        self._settings = settings
        self._start = start
        self._draw = torch.Generator().manual_seed(settings.seed)
        moves = settings.kind == "linear" and start is not None
        real = start.real_mapper if moves and start else lambda x: x
        synth = start.synth_mapper if moves and start else lambda x: x
        self._exemplars = _tensor(real(data.exemplars))
        self._others = _tensor(real(data.others)) if len(data.others) else None
        self._synth = _tensor(synth(data.synth))
        self._exemplar_model = torch.from_numpy(data.exemplar_model)
        self._of_model = [
            torch.from_numpy(np.flatnonzero(data.synth_model == m)) for m in range(data.models)
        ]
        dim = self._synth.shape[1]
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(settings.seed)
            self._sides = [_module(settings, dim) for _ in range(2)]
        if settings.kind == "mlp":  # both sides begin alike, as everything else here does
            self._sides[1].load_state_dict(self._sides[0].state_dict())
        parameters = [p for side in self._sides for p in side.parameters()]
        self._optimiser = torch.optim.Adam(parameters, lr=settings.learning_rate)
        self._best: list[dict[str, Tensor]] | None = None

    def step(self) -> float:
        """One step on one batch; returns the loss, regulariser included."""
        real, synth = (side.train() for side in self._sides)
        rows, models = self._batch()
        chosen = torch.isin(self._exemplar_model, models).nonzero()[:, 0]
        queue = self._queue()
        training = real(torch.cat([self._exemplars[chosen], queue]))
        training = nn.functional.normalize(training, dim=1)
        loss = contrastive_loss(
            nn.functional.normalize(synth(self._synth[rows]), dim=1),
            models,
            training[: len(chosen)],
            self._exemplar_model[chosen],
            training[len(chosen) :],
            self._settings.temperature,
        )
        loss = loss + self._settings.orthogonality * sum(_bent(side) for side in self._sides)
        self._optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        self._optimiser.step()
        return float(loss.detach())

    def pair(self) -> MapperPair:
        """The mappers as they are now, start included."""
        return self._pair([side.state_dict() for side in self._sides])

    def remember_best(self) -> None:
        """The checkpoint's best is now."""
        self._best = [_copied(side.state_dict()) for side in self._sides]

    def state(self, step: int, history: list[tuple[int, float, float]]) -> dict[str, Any]:
        """All that `resume` needs."""
        return {
            "step": step,
            "history": history,
            "sides": [_copied(side.state_dict()) for side in self._sides],
            "optimiser": self._optimiser.state_dict(),
            "draw": self._draw.get_state(),
            "best": self._best,
        }

    def resume(
        self, state: dict[str, Any], start: Tuned
    ) -> tuple[int, list[tuple[int, float, float]], Tuned]:
        """Go on where `state` was made; returns step, history and the best so far."""
        from embed.tuning import Tuned

        for side, values in zip(self._sides, state["sides"], strict=True):
            side.load_state_dict(values)
        self._optimiser.load_state_dict(state["optimiser"])
        self._draw.set_state(state["draw"])
        self._best = state["best"]
        history = [(int(step), float(loss), float(score)) for step, loss, score in state["history"]]
        best = max(history, key=lambda row: (row[2], -row[0]))
        pair = start.mappers if self._best is None else self._pair(self._best)
        return int(state["step"]), history, Tuned(pair, best[0], best[2])

    def _batch(self) -> tuple[Tensor, Tensor]:
        """(rows of synth, their models)."""
        count = len(self._of_model)
        models = torch.randperm(count, generator=self._draw)[: self._settings.models_per_batch]
        rows = []
        for model in models.tolist():
            own = self._of_model[model]
            order = torch.randperm(len(own), generator=self._draw)
            rows.append(own[order[: self._settings.images_per_model]])
        owners = [torch.full((len(r),), m) for r, m in zip(rows, models.tolist(), strict=True)]
        return torch.cat(rows), torch.cat(owners)

    def _queue(self) -> Tensor:
        if self._others is None or self._settings.queue == 0:
            return self._exemplars[:0]
        count = min(self._settings.queue, len(self._others))
        drawn = torch.randint(len(self._others), (count,), generator=self._draw)
        return self._others[drawn]

    def _pair(self, states: list[dict[str, Tensor]]) -> MapperPair:
        starts = (
            (self._start.real_mapper, self._start.synth_mapper) if self._start else (None, None)
        )
        real, synth = (
            _mapper(self._settings.kind, state, start)
            for state, start in zip(states, starts, strict=True)
        )
        return MapperPair(real, synth)


class Checkpoint:
    """A file that holds where a tuning is. Read as data only."""

    def __init__(self, path: Path, identity: str) -> None:
        self._path = path
        self._identity = identity

    def read(self) -> dict[str, Any] | None:
        """The state; None where there is no file.

        Raises:
            UsageError: a file of another tuning, or no checkpoint.
        """
        if not self._path.exists():
            return None
        advice = f"remove {self._path}, or name another file"
        try:
            state = torch.load(self._path, weights_only=True)
        except (OSError, RuntimeError, ValueError, EOFError, pickle.UnpicklingError) as exc:
            raise UsageError(f"{self._path} is no checkpoint of a tuning; {advice}") from exc
        if not isinstance(state, dict) or state.get("identity") != self._identity:
            raise UsageError(
                f"{self._path} belongs to a tuning with other settings or data; {advice}"
            )
        return state

    def write(self, state: dict[str, Any]) -> None:
        """Replace the file, whole or not at all.

        Raises:
            ModelError: the disk is full, the folder read-only, or the like.
        """
        file = io.BytesIO()  # torch tells of a full disk by a RuntimeError without a reason
        torch.save({**state, "identity": self._identity}, file)
        temporary = self._path.with_name(f".{self._path.name}.part")
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            temporary.write_bytes(file.getvalue())
            temporary.replace(self._path)
        except OSError as exc:
            raise ModelError(
                f"the checkpoint cannot be written to {self._path}: {exc.strerror or exc}"
            ) from exc


class _Channel(nn.Module):
    """The layout of the official state: `weights` (1, d)."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.weights = nn.Parameter(torch.ones(1, dim))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.weights


def _module(settings: TuningSettings, dim: int) -> nn.Module:
    if settings.kind == "channel":
        return _Channel(dim)
    if settings.kind == "linear":
        linear = nn.Linear(dim, dim)
        nn.init.eye_(linear.weight)
        nn.init.zeros_(linear.bias)
        return linear
    hidden, out = settings.hidden_dim, settings.out_dim or dim
    return nn.Sequential(
        nn.Linear(dim, hidden, bias=False),
        nn.BatchNorm1d(hidden),
        nn.ReLU(),
        nn.Identity(),  # the official state leaves a number for dropout here
        nn.Linear(hidden, out, bias=False),
        nn.BatchNorm1d(out, affine=False),
    )


def _mapper(kind: str, state: dict[str, Tensor], start: Mapper | None) -> Mapper:
    arrays = {name: value.detach().numpy() for name, value in state.items()}
    if kind != "linear" or start is None:
        return Mapper.from_state(arrays)
    turn = arrays["weight"].astype(np.float64)
    return Mapper.linear(
        turn @ start.arrays["weight"], turn @ start.arrays["bias"] + arrays["bias"]
    )


def _bent(side: nn.Module) -> Tensor:
    if isinstance(side, nn.Linear):
        gram = side.weight @ side.weight.T
        return ((gram - torch.eye(len(gram))) ** 2).sum()
    if isinstance(side, _Channel):
        return ((side.weights**2 - 1) ** 2).mean()  # a sum over channels would hold them still
    return torch.zeros(())


def _copied(state: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: value.detach().clone() for name, value in state.items()}


def _tensor(array: Any) -> Tensor:  # noqa: ANN401
    return torch.from_numpy(np.ascontiguousarray(array, dtype=np.float32))
