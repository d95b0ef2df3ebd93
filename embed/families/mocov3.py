"""MoCo v3: the momentum-free encoder of the official checkpoint, without its projection head.

Source: https://github.com/facebookresearch/moco-v3 ; the state lies under `state_dict` with the
prefix `module.base_encoder.`, in the names of timm's vision transformer.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from embed.hub import could_not_fetch
from embed.weights import find_local, load_strict, read_state, without_prefix

if TYPE_CHECKING:
    from torch import nn

    from embed.backbones import Backbone

__all__ = ["load"]

_PREFIX = "module.base_encoder."


def load(backbone: Backbone) -> nn.Module:
    """The class token after the last norm: (n, dim)."""
    path = find_local(backbone)
    if path is None:
        raise could_not_fetch(backbone, "it is on no hub")
    state = read_state(path)
    encoder = without_prefix(state, _PREFIX, path)
    import timm

    options: dict[str, Any] = dict(backbone.options)
    module: nn.Module = timm.create_model(backbone.architecture, num_classes=0, **options)
    kept = {name: t for name, t in encoder.items() if not name.startswith("head.")}
    load_strict(module, kept, path)
    return module
