"""Networks of timm: their pooled features, without the classifier.

Source: https://github.com/huggingface/pytorch-image-models
"""

from __future__ import annotations

from math import floor
from typing import TYPE_CHECKING, Any

from embed.backbones import Backbone, unknown_model
from embed.hub import could_not_fetch, fetch
from embed.preprocess import Preprocessing
from embed.weights import find_local, load_strict, read_state
from ingest.errors import ModelError, WeightsError

if TYPE_CHECKING:
    from torch import nn

__all__ = ["describe", "load"]

_HUB_FILES = ("model.safetensors", "pytorch_model.bin")


def load(backbone: Backbone) -> nn.Module:
    """Build the network and load its weights, every entry matching."""
    path = find_local(backbone)
    if path is None:
        config = _config(backbone.architecture)
        if config is None or not config.hf_hub_id:
            raise could_not_fetch(backbone, "timm names no hub repository for it")
        files = (config.hf_hub_filename,) if config.hf_hub_filename else _HUB_FILES
        path = fetch(backbone, config.hf_hub_id, files)
    state = read_state(path)
    import timm

    options: dict[str, Any] = dict(backbone.options)
    for name in _classifiers(backbone.architecture):
        state.pop(f"{name}.weight", None)
        state.pop(f"{name}.bias", None)
    try:
        # timm's own filter renames old layouts and resamples position embeddings. With a number
        # of classes other than its configuration's it would skip missing entries in silence, so
        # the configuration is given the 0 classes that are asked for.
        module: nn.Module = timm.create_model(
            backbone.architecture,
            pretrained=True,
            pretrained_cfg_overlay={"state_dict": dict(state), "num_classes": 0},
            num_classes=0,
            **options,
        )
    except (RuntimeError, KeyError, ValueError, AttributeError) as exc:
        plain = timm.create_model(backbone.architecture, num_classes=0, **options)
        load_strict(plain, state, path)  # says what does not fit, in our words
        raise WeightsError(f"{path} does not fit the network: {type(exc).__name__}") from exc
    return module


def describe(name: str) -> Backbone:
    """`timm:NAME` as a backbone, with the preprocessing of timm's own configuration.

    Raises:
        UnknownModelError: timm has no such network.
        ModelError: an input that is not square, or a crop that attrib does not make.
    """
    import timm
    import torch

    config = _config(name)
    if config is None or not timm.is_model(name.split(".")[0]):
        known = [f"timm:{model}" for model in timm.list_models(pretrained=True)]
        raise unknown_model(f"timm:{name}", known)
    with torch.device("meta"):
        # The dimension stands nowhere but in the built network; on "meta" it costs no memory.
        network: Any = timm.create_model(name, num_classes=0)
    dim = int(network.head_hidden_size)
    return Backbone(
        name=f"timm:{name}",
        family="timm",
        architecture=name,
        revision="main",
        dim=dim,
        preprocessing=_preprocessing(f"timm:{name}", config),
        licence=str(config.license or "see its page"),
        weights_source=str(config.hf_hub_id or config.url or "timm"),
        weights_file=str(config.hf_hub_filename or _HUB_FILES[0]),
        about="a network of timm",
    )


def _config(architecture: str) -> Any:  # noqa: ANN401
    import timm

    try:
        return timm.models.get_pretrained_cfg(architecture)
    except RuntimeError:  # a tag that the network does not have
        return None


def _classifiers(architecture: str) -> tuple[str, ...]:
    config = _config(architecture)
    names = config.classifier if config else None
    return (names,) if isinstance(names, str) else tuple(names or ())


def _preprocessing(name: str, config: Any) -> Preprocessing:  # noqa: ANN401
    _, height, width = config.input_size
    if height != width or config.crop_mode not in ("center", "squash"):
        raise ModelError(
            f"{name} takes {width} x {height} pixels cropped by '{config.crop_mode}'; "
            "attrib makes square inputs by 'center' or 'squash'"
        )
    interpolation = "bicubic" if config.interpolation == "bicubic" else "bilinear"
    return Preprocessing(
        resize=floor(height / config.crop_pct),
        crop=height,
        interpolation=interpolation,  # type: ignore[arg-type]
        mean=tuple(config.mean),
        std=tuple(config.std),
        squash=config.crop_mode == "squash",
    )
