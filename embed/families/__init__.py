"""One short file a family of backbones: building the network and reading its weights.

Every family has `load(backbone) -> nn.Module`: a module in evaluation mode on the CPU, in
float32, from normalised images (n, 3, height, width) to base features (n, dim).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from embed.weights import tensor_hash
from ingest.errors import WeightsError

if TYPE_CHECKING:
    from torch import nn

    from embed.backbones import Backbone

__all__ = ["load_module"]


def load_module(backbone: Backbone) -> tuple[nn.Module, str]:
    """The backbone's network with its weights, and the hash of these (`tensor_hash`).

    Raises:
        WeightsError: weights that are missing, damaged, of another network, or not those that
            `backbone.weights_hash` pins.
        ModelError: a library that the backbone needs is not installed.
    """
    module = _loader(backbone)
    module.eval()
    for parameter in module.parameters():
        parameter.requires_grad = False
    found = tensor_hash(module)
    if backbone.weights_hash and found != backbone.weights_hash:
        raise WeightsError(
            f"weights of {backbone.name} are not the known ones: "
            f"sha256 {found[:16]}, expected {backbone.weights_hash[:16]}"
        )
    return module, found


def _loader(backbone: Backbone) -> nn.Module:
    # Imported one by one: a family's library loads only with its own backbones.
    if backbone.family == "efficientnet-lite":
        from embed.families import efficientnet_lite as family
    elif backbone.family == "timm":
        from embed.families import timm_family as family  # type: ignore[no-redef]
    elif backbone.family == "open_clip":
        from embed.families import open_clip_family as family  # type: ignore[no-redef]
    elif backbone.family == "mocov3":
        from embed.families import mocov3 as family  # type: ignore[no-redef]
    elif backbone.family == "csd":
        from embed.families import csd as family  # type: ignore[no-redef]
    else:
        from embed.families import torchscript as family  # type: ignore[no-redef]
    return family.load(backbone)
