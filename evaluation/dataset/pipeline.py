"""What a pipeline's folder says of itself, read before any of its weights is loaded."""

from __future__ import annotations

import json
import re
import struct
from collections.abc import Mapping
from math import prod
from pathlib import Path
from typing import Any

from ingest.errors import ModelError
from ingest.item import printable

__all__ = ["KNOWN", "check_kind", "weight_bytes"]

KNOWN = (
    "StableDiffusionPipeline",
    "StableDiffusionXLPipeline",
    "StableDiffusion3Pipeline",
    "FluxPipeline",
)
"""Classes of diffusers that make images of a text alone, and whose loss is known here."""

_FLOAT = 4
_MAX_HEADER = 100 << 20  # the same limit that safetensors has
# Without those of a variant (.fp16.), which are not loaded.
_WEIGHTS = re.compile(r"(diffusion_pytorch_model|model)(-\d+-of-\d+)?\.safetensors")
_NOT_LOADED = {"safety_checker", "feature_extractor", "image_encoder"}


def check_kind(index: Mapping[str, Any], name: str) -> None:
    """Refuse a pipeline that does not make images of a text alone.

    Args:
        index: of ``model_index.json``.
        name: of the pipeline, for the message.

    Raises:
        ModelError: it is another, or lacks a part.
    """
    kind = index.get("_class_name")
    if kind not in KNOWN:
        shown = printable(str(kind))[:60]
        raise ModelError(
            f"{name} is a {shown}, not a pipeline that makes images of a text alone; known are "
            "Stable Diffusion 1.x, 2.x, XL and 3.x, and Flux.1"
        )
    denoiser = "unet" if "unet" in index else "transformer"
    for part in (denoiser, "vae", "text_encoder", "tokenizer", "scheduler"):
        given = index.get(part)
        if not isinstance(given, list) or len(given) != 2 or None in given:
            raise ModelError(f"{name} is incomplete: its model_index.json names no {part}")


def weight_bytes(folder: Path) -> int:
    """Memory that the weights of a pipeline's folder take as float32, by their files' headers.

    Files that are damaged count nothing here: whoever loads them says what is wrong.
    """
    total = 0
    for part in folder.iterdir():
        if not part.is_dir() or part.name in _NOT_LOADED:
            continue
        for path in part.iterdir():
            if _WEIGHTS.fullmatch(path.name):
                total += _FLOAT * _numbers(path)
    return total


def _numbers(path: Path) -> int:
    try:
        with path.open("rb") as file:
            (length,) = struct.unpack("<Q", file.read(8))
            header = json.loads(file.read(length)) if length <= _MAX_HEADER else {}
        return sum(prod(entry["shape"]) for name, entry in header.items() if name[:2] != "__")
    except (OSError, ValueError, KeyError, TypeError, AttributeError, struct.error):
        return 0
