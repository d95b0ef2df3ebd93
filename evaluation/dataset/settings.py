"""Settings of a dataset build, nested by concern."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from math import isfinite
from typing import Any, Literal, TypeAlias

from ingest.errors import UsageError

__all__ = [
    "METHODS",
    "OPTIMIZER",
    "BuildSettings",
    "Customization",
    "Kind",
    "Method",
    "Sampling",
    "recorded",
    "settings_of",
]

Kind: TypeAlias = Literal["object", "style"]
Method: TypeAlias = Literal["custom-diffusion", "lora", "full"]

METHODS: tuple[Method, ...] = ("custom-diffusion", "lora", "full")

OPTIMIZER: dict[str, Any] = {
    "name": "AdamW",
    "betas": [0.9, 0.999],
    "eps": 1e-8,
    "weight_decay": 1e-2,
}
"""As published."""

_RATES: dict[Method, float] = {"custom-diffusion": 1e-5, "lora": 1e-4, "full": 5e-6}


@dataclass(frozen=True)
class Customization:
    """How a generator is tuned toward exemplars.

    Attributes:
        method: what is trained: ``custom-diffusion`` (keys and values of cross-attention, and the
            new token; Kumari et al., CVPR 2023), ``lora`` (low-rank adapters of all attention, and
            the token) or ``full`` (the whole denoiser, and the token).
        steps: of the optimizer; the strength of the customization.
        learning_rate: per image of a batch, as published: it is multiplied by `batch_size`. None
            for the method's usual one.
        batch_size: exemplar images a step; as many prior images come with them.
        prior_images: real images of the class for prior preservation; 0 for none.
        prior_weight: of their part of the loss.
        rank: of LoRA.
        augment: flips, and scales that the prompt tells of ("far away", "close up").
        gradient_checkpointing: less memory, about a third more time.
    """

    method: Method = "custom-diffusion"
    steps: int = 250
    learning_rate: float | None = None
    batch_size: int = 4
    prior_images: int = 200
    prior_weight: float = 1.0
    rank: int = 8
    augment: bool = True
    gradient_checkpointing: bool = False

    def __post_init__(self) -> None:
        if self.method not in _RATES:
            raise UsageError(f"no method {self.method!r}; there are {', '.join(_RATES)}")
        for name in ("steps", "batch_size", "rank"):
            if getattr(self, name) < 1:
                raise UsageError(f"{name} must be at least 1, not {getattr(self, name)}")
        if self.prior_images < 0 or not 0 <= self.prior_weight < float("inf"):
            raise UsageError("prior images and their weight cannot be negative or endless")
        if self.learning_rate is not None and not 0 < self.learning_rate < 1:
            raise UsageError(f"a learning rate of {self.learning_rate:g} is not between 0 and 1")

    @property
    def rate(self) -> float:
        """Learning rate of the optimizer."""
        chosen = _RATES[self.method] if self.learning_rate is None else self.learning_rate
        return chosen * self.batch_size

    @property
    def alpha(self) -> int | None:
        """Of LoRA, whose product counts alpha / rank times; None for other methods."""
        return self.rank if self.method == "lora" else None


@dataclass(frozen=True)
class Sampling:
    """How images are synthesized. `guidance`: scale of classifier-free guidance."""

    steps: int = 50
    guidance: float = 6.0
    batch_size: int = 8

    def __post_init__(self) -> None:
        if self.steps < 1 or self.batch_size < 1:
            raise UsageError("sampling steps and batch size must be at least 1")
        if not isfinite(self.guidance):
            raise UsageError(f"a guidance of {self.guidance:g} is no number")


@dataclass(frozen=True)
class BuildSettings:
    """A whole dataset.

    Attributes:
        kind: ``object``: one exemplar and its class word a model. ``style``: the images of one
            creator.
        models: customized models wanted; fewer come where there are fewer exemplars.
        per_model: images synthesized with each, half by free prompts and half by procedural ones.
        base_images: images of the generator itself that each model's are compared with.
        exemplars_per_style: images of a creator that a style model is tuned on, at most.
        seed: of all choices, noise and sampling.
        splits: shares of models for train, val and test; they sum to 1.
    """

    kind: Kind = "object"
    models: int = 20
    per_model: int = 40
    base_images: int = 8
    exemplars_per_style: int = 8
    seed: int = 0
    splits: tuple[float, float, float] = (0.6, 0.15, 0.25)
    customization: Customization = field(default_factory=Customization)
    sampling: Sampling = field(default_factory=Sampling)

    def __post_init__(self) -> None:
        if self.kind not in ("object", "style"):
            raise UsageError(f"a dataset is of objects or of styles, not of {self.kind!r}")
        if min(self.models, self.exemplars_per_style) < 1:
            raise UsageError("at least one model, with one exemplar, is needed")
        if self.per_model < 2:
            raise UsageError(f"at least 2 images a model are needed, not {self.per_model}")
        if self.base_images < 2:
            raise UsageError(f"at least 2 images of the generator itself, not {self.base_images}")
        if not (all(share >= 0 for share in self.splits) and abs(sum(self.splits) - 1) <= 1e-9):
            raise UsageError(f"splits are shares that sum to 1, not {self.splits}")


def recorded(settings: BuildSettings, class_field: str | None) -> dict[str, Any]:
    """As a plan and a manifest hold them: with what follows from them, and what is always so.

    Args:
        settings: of the build.
        class_field: of the library.
    """
    values = asdict(settings)
    values["splits"] = list(settings.splits)
    values["class_field"] = class_field
    custom = settings.customization
    values["customization"] |= {"rate": custom.rate, "optimizer": OPTIMIZER, "alpha": custom.alpha}
    return values


def settings_of(values: Mapping[str, Any]) -> BuildSettings:
    """The settings that a plan holds: the inverse of `recorded`.

    Raises:
        ValueError: they are none.
    """
    try:
        derived = ("rate", "optimizer", "alpha")
        customization = {k: v for k, v in values["customization"].items() if k not in derived}
        own = {name: value for name, value in values.items() if name != "class_field"}
        return BuildSettings(
            **{
                **own,
                "splits": tuple(values["splits"]),
                "customization": Customization(**customization),
                "sampling": Sampling(**values["sampling"]),
            }
        )
    except (TypeError, KeyError, AttributeError, UsageError) as exc:
        raise ValueError(f"no settings of a dataset: {exc}") from exc
