"""Weights of a real backbone that nobody trained, where the hub cannot be reached.

What an embedding costs does not depend on what the weights are, so a benchmark of speed can do with
these. Nothing else can: the features mean nothing.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import timm
import torch
from safetensors.torch import save_file

from embed.backbones import resolve

__all__ = ["made_weights"]


@contextmanager
def made_weights(name: str) -> Iterator[None]:
    """Have random weights of one of timm's backbones (seed 0) in `$ATTRIB_WEIGHTS`."""
    backbone = resolve(name)
    if backbone.family != "timm":
        raise SystemExit(f"weights can be made up for backbones of timm, not for {name}")
    before = os.environ.get("ATTRIB_WEIGHTS")
    torch.manual_seed(0)
    network = timm.create_model(backbone.architecture, num_classes=0)
    with TemporaryDirectory() as folder:
        save_file(network.state_dict(), Path(folder) / f"{backbone.name}.safetensors")
        os.environ["ATTRIB_WEIGHTS"] = folder
        try:
            yield
        finally:
            if before is None:
                del os.environ["ATTRIB_WEIGHTS"]
            else:
                os.environ["ATTRIB_WEIGHTS"] = before
