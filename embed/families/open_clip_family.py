"""Image towers of open_clip: the projected image embedding, not normalised.

Source: https://github.com/mlfoundations/open_clip
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from embed.backbones import Backbone, unknown_model
from embed.hub import could_not_fetch, fetch
from embed.preprocess import Preprocessing
from embed.weights import find_local, load_strict, read_state, without_prefix
from ingest.errors import ModelError

if TYPE_CHECKING:
    from torch import nn

__all__ = ["describe", "image_tower", "load"]

_HUB_FILES = ("open_clip_model.safetensors", "open_clip_pytorch_model.bin")
_PREFIX = "visual."


def load(backbone: Backbone) -> nn.Module:
    """The image tower with its weights; the text tower's are left in the file."""
    open_clip = _library(backbone.name)
    path = find_local(backbone)
    if path is None:
        config = open_clip.get_pretrained_cfg(backbone.architecture, backbone.revision)
        repository, _, file = str((config or {}).get("hf_hub", "")).rpartition("/")
        if not repository:
            raise could_not_fetch(backbone, "open_clip names no hub repository for it")
        path = fetch(backbone, repository, (file,) if file else _HUB_FILES)
    tower = image_tower(backbone)
    load_strict(tower, without_prefix(read_state(path), _PREFIX, path), path)
    return tower


def image_tower(backbone: Backbone) -> nn.Module:
    """The image tower of the architecture, its weights still random."""
    open_clip = _library(backbone.name)
    root = logging.getLogger()
    level = root.level
    # open_clip warns on the root logger that nothing was loaded: here that is the intention.
    root.setLevel(logging.ERROR)
    try:
        model = open_clip.create_model(backbone.architecture, pretrained=None, load_weights=False)
    finally:
        root.setLevel(level)
    tower: nn.Module = model.visual
    return tower


def describe(name: str) -> Backbone:
    """`open_clip:NAME/PRETRAINED` as a backbone, preprocessed as its configuration says.

    Raises:
        UnknownModelError: open_clip has no such pair.
        ModelError: open_clip is not installed, or an input that attrib does not make.
    """
    full = f"open_clip:{name}"
    open_clip = _library(full)
    architecture, _, tag = name.rpartition("/")
    config = open_clip.get_pretrained_cfg(architecture, tag) if architecture else None
    model = open_clip.get_model_config(architecture) if architecture else None
    if not config or not model:
        raise unknown_model(full, [f"open_clip:{a}/{t}" for a, t in open_clip.list_pretrained()])
    repository, _, file = str(config.get("hf_hub", "")).rpartition("/")
    return Backbone(
        name=full,
        family="open_clip",
        architecture=architecture,
        revision=tag,
        dim=int(model["embed_dim"]),
        preprocessing=_preprocessing(full, config, model),
        licence="see its page",
        weights_source=repository or str(config.get("url", "open_clip")),
        weights_file=file or _HUB_FILES[0],
        about="an image tower of open_clip",
    )


def _preprocessing(name: str, config: dict[str, Any], model: dict[str, Any]) -> Preprocessing:
    size = model["vision_cfg"].get("image_size", 224)
    sides = (size, size) if isinstance(size, int) else tuple(size)
    mode = config.get("resize_mode", "shortest")
    if sides[0] != sides[1] or mode not in ("shortest", "squash"):
        raise ModelError(
            f"{name} takes {sides[1]} x {sides[0]} pixels resized by '{mode}'; "
            "attrib makes square inputs by 'shortest' or 'squash'"
        )
    return Preprocessing(
        resize=int(sides[0]),
        crop=int(sides[0]),
        interpolation=config.get("interpolation", "bicubic"),
        mean=tuple(config["mean"]),
        std=tuple(config["std"]),
        squash=mode == "squash",
    )


def _library(name: str) -> Any:  # noqa: ANN401
    try:
        import open_clip
    except ImportError as exc:
        raise ModelError(
            f"{name} needs open_clip, which is not installed; pip install open_clip_torch"
        ) from exc
    return open_clip
