"""Networks that their authors publish as TorchScript: SSCD.

The exception to "checkpoints are data": a TorchScript file is a program. Its operators are
PyTorch's own and it reaches no Python, but it decides what is computed, so it runs only where a
person has put that file into the weights folder; it is never fetched.
Source: https://github.com/facebookresearch/sscd-copy-detection (arXiv 2202.10261)
"""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING

from embed.hub import could_not_fetch
from embed.weights import find_local
from ingest.errors import WeightsError

if TYPE_CHECKING:
    from torch import nn

    from embed.backbones import Backbone

__all__ = ["load"]


def load(backbone: Backbone) -> nn.Module:
    """The program's output: (n, dim)."""
    import torch

    path = find_local(backbone)
    if path is None:
        raise could_not_fetch(backbone, "it is on no hub")
    try:
        with warnings.catch_warnings():
            # PyTorch announces the end of TorchScript at every load; the file is what it is.
            warnings.simplefilter("ignore")
            module: nn.Module = torch.jit.load(path, map_location="cpu")  # type: ignore[no-untyped-call]
    except (RuntimeError, ValueError, OSError) as exc:
        raise WeightsError(f"{path} cannot be read as a TorchScript program") from exc
    for name, tensor in module.state_dict().items():
        if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
            raise WeightsError(f"{path}: {name} holds numbers that are not finite")
    return module
