"""A model folder as text, so that a worker embeds with just the model that it was asked to."""

from __future__ import annotations

import base64
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from embed.model import AttributionModel, load
from ingest.errors import ModelError, WorkersError
from workers.shard_spec import pack, unpack

if TYPE_CHECKING:
    from embed.backbones import Backbone

__all__ = ["pack_model", "same_weights", "unpack_model"]

_FILES = ("model.json", "mapper.safetensors")


def pack_model(folder: Path) -> str:
    """The folder's files as text.

    Raises:
        ModelError: it cannot be read.
    """
    try:
        return pack(
            {name: base64.b64encode((folder / name).read_bytes()).decode() for name in _FILES}
        )
    except OSError as exc:
        raise ModelError(f"{folder} cannot be read: {exc.strerror}") from exc


def unpack_model(packed: str) -> AttributionModel:
    """The model of such a text. It is data alone: JSON and arrays.

    Raises:
        ModelError: damaged, or of a newer format.
    """
    try:
        files = unpack(packed)
        with tempfile.TemporaryDirectory(prefix="attrib-model-") as scratch:
            for name in _FILES:
                (Path(scratch) / name).write_bytes(base64.b64decode(files[name]))
            return load(Path(scratch))
    except (ValueError, KeyError, TypeError) as exc:
        raise ModelError("the model that Redis has is damaged") from exc


def same_weights(model: AttributionModel, backbone: Backbone, weights_hash: str) -> None:
    """Refuse to embed with other weights than the index was begun with.

    Raises:
        WorkersError: it names both.
    """
    if model.weights_hash != weights_hash:
        raise WorkersError(
            f"the weights of {backbone.name} are not those that the index is built with: the index "
            f"has {model.weights_hash[:16]}, this worker has {weights_hash[:16]}; copy the weights "
            "folder to this machine"
        )
