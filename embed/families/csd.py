"""CSD, contrastive style descriptors: CLIP's ViT-L/14 image tower with a style projection.

Source: https://github.com/learn2phoenix/CSD (arXiv 2404.01292); its checkpoint keeps the tower
without CLIP's own projection under `module.backbone.` and the (width, dim) style projection as
`module.last_layer_style`. The content projection is not used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from embed.families.open_clip_family import image_tower
from embed.hub import could_not_fetch
from embed.weights import find_local, load_strict, read_state
from ingest.errors import WeightsError

if TYPE_CHECKING:
    from torch import nn

    from embed.backbones import Backbone

__all__ = ["load"]


def load(backbone: Backbone) -> nn.Module:
    """The style descriptor, not normalised: (n, dim)."""
    path = find_local(backbone)
    if path is None:
        raise could_not_fetch(backbone, "it is on no hub")
    state = {name.removeprefix("module."): t for name, t in read_state(path).items()}
    style = state.get("last_layer_style")
    if style is None:
        raise WeightsError(f"{path} has no last_layer_style: not a checkpoint of CSD")
    # The tower has a projection of its own at the end, x @ proj: the style projection is that.
    tower = image_tower(backbone)
    kept = {
        name.removeprefix("backbone."): tensor
        for name, tensor in state.items()
        if name.startswith("backbone.")
    }
    load_strict(tower, {**kept, "proj": style}, path)
    return tower
