"""Weights of backbones: where they lie, and reading them as data, never as code.

The weights folder holds one file a backbone, named for it. A file is a safetensors file or a
PyTorch checkpoint of plain tensors; a pickle that would run code is refused. The one exception
is TorchScript (`embed.families.torchscript`).
"""

from __future__ import annotations

import argparse
import hashlib
import os
import pickle
import re
import warnings
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import platformdirs

from ingest.errors import WeightsError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from torch import Tensor, nn

    from embed.backbones import Backbone

    State = dict[str, Tensor]

__all__ = [
    "find_local",
    "load_strict",
    "local_path",
    "read_pickle",
    "read_state",
    "tensor_hash",
    "weights_folder",
    "without_prefix",
]

SUFFIXES = (".safetensors", ".pth", ".pt", ".bin")
_WRAPPERS = ("state_dict", "model_state_dict", "model")


def weights_folder() -> Path:
    """`$ATTRIB_WEIGHTS`, or `weights` in the user's cache folder. It need not exist."""
    named = os.environ.get("ATTRIB_WEIGHTS")
    return Path(named) if named else Path(platformdirs.user_cache_dir("attrib")) / "weights"


def local_path(backbone: Backbone) -> Path:
    """Where a downloaded weights file of the backbone belongs, with its own kind of suffix."""
    suffix = Path(backbone.weights_file).suffix
    return weights_folder() / (_stem(backbone) + (suffix if suffix in SUFFIXES else ".pth"))


def find_local(backbone: Backbone) -> Path | None:
    """The backbone's file in the weights folder: `<name>.safetensors`, .pth, .pt or .bin."""
    for suffix in SUFFIXES:
        path = weights_folder() / (_stem(backbone) + suffix)
        if path.is_file():
            return path
    return None


def read_state(path: Path) -> State:
    """The tensors of a weights file by name, on the CPU.

    A checkpoint that keeps them under `state_dict`, `model_state_dict` or `model` is unwrapped.

    Raises:
        WeightsError: unreadable, carrying code, without tensors, or holding NaN or infinity.
    """
    import torch

    if path.suffix == ".safetensors":
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        try:
            state: Any = load_file(path)
        except (OSError, SafetensorError, ValueError) as exc:
            raise WeightsError(f"{path} cannot be read as safetensors: {_line(exc)}") from exc
    else:
        state = read_pickle(path)
        for wrapper in _WRAPPERS:
            if isinstance(state, dict) and isinstance(state.get(wrapper), dict):
                state = state[wrapper]
                break
    if not isinstance(state, dict) or not state:
        raise WeightsError(f"{path} holds no tensors by name")
    for name, tensor in state.items():
        if not isinstance(tensor, torch.Tensor):
            raise WeightsError(f"{path}: {name} is a {type(tensor).__name__}, not a tensor")
        if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
            raise WeightsError(f"{path}: {name} holds numbers that are not finite")
    return {str(name): tensor for name, tensor in state.items()}


def read_pickle(path: Path) -> Any:  # noqa: ANN401
    """What a PyTorch file holds, loaded with `weights_only=True`.

    Raises:
        WeightsError: unreadable, or a pickle that would import or call something.
    """
    import torch

    try:
        # Training scripts often save their parsed arguments beside the weights; argparse's
        # Namespace only holds values.
        with torch.serialization.safe_globals([argparse.Namespace]), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of other pickle protocols: they load or they fail
            return torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, OSError, EOFError, ValueError, KeyError) as exc:
        if _is_torchscript(path):
            raise WeightsError(
                f"{path} is a TorchScript program, not weights; save its state_dict as safetensors"
            ) from exc
        if found := re.search(r"GLOBAL ([\w.]+)", str(exc)):
            raise WeightsError(
                f"{path} is refused: its pickle carries code ({found[1]}); "
                "save the tensors as safetensors"
            ) from exc
        raise WeightsError(f"{path} cannot be read as a PyTorch file: {_line(exc)}") from exc


def without_prefix(state: Mapping[str, Tensor], prefix: str, path: Path) -> State:
    """The entries under `prefix`, without it.

    Raises:
        WeightsError: no entry has that prefix.
    """
    kept = {name[len(prefix) :]: t for name, t in state.items() if name.startswith(prefix)}
    if not kept:
        raise WeightsError(f"{path} has no entry that begins with {prefix!r}; it has {_few(state)}")
    return kept


def load_strict(module: nn.Module, state: Mapping[str, Tensor], path: Path | str) -> None:
    """Load `state` into `module`, every name and shape matching.

    Raises:
        WeightsError: missing or unexpected names (the first of them and their count), or shapes
            that differ.
    """
    wanted = module.state_dict()
    # A step counter of training that evaluation never reads; converters often drop it.
    optional = {name for name in wanted if name.endswith("num_batches_tracked")}
    missing = [name for name in wanted if name not in state and name not in optional]
    unexpected = [name for name in state if name not in wanted]
    shapes = [
        f"{name} is {tuple(state[name].shape)} instead of {tuple(wanted[name].shape)}"
        for name in wanted
        if name in state and state[name].shape != wanted[name].shape
    ]
    faults = []
    if missing:
        faults.append(f"{len(missing)} entries missing ({_few(missing)})")
    if unexpected:
        faults.append(f"{len(unexpected)} unexpected ({_few(unexpected)})")
    if shapes:
        faults.append(f"{len(shapes)} of another shape ({shapes[0]})")
    if faults:
        raise WeightsError(f"{path} does not fit the network: {'; '.join(faults)}")
    module.load_state_dict(dict(state), strict=False)


def tensor_hash(module: nn.Module) -> str:
    """sha256 (64 hex digits) over the module's tensors in the order of their names.

    It is of the numbers, not of the file: the same weights as .pth and as safetensors have the
    same hash. Counters of training steps do not count.
    """
    digest = hashlib.sha256()
    for name, tensor in sorted(module.state_dict().items()):
        if name.endswith("num_batches_tracked"):
            continue
        array = tensor.detach().cpu().contiguous().numpy()
        digest.update(f"{name} {array.dtype.str} {array.shape}\n".encode())
        digest.update(memoryview(array.reshape(-1)).cast("B"))
    return digest.hexdigest()


def _stem(backbone: Backbone) -> str:
    return re.sub(r"[/:]", "--", backbone.name)


def _is_torchscript(path: Path) -> bool:
    try:
        with zipfile.ZipFile(path) as archive:
            return any(name.endswith("constants.pkl") for name in archive.namelist())
    except (OSError, zipfile.BadZipFile):
        return False


def _few(names: Iterable[str]) -> str:
    listed = list(names)
    return ", ".join(listed[:3]) + (", ..." if len(listed) > 3 else "")


def _line(exc: BaseException) -> str:
    # torch wraps the reason in a page of advice that would turn the protection off.
    reason = re.search(r"WeightsUnpickler error:\s*(.*)", str(exc))
    text = reason[1].strip() if reason else " ".join(str(exc).split())
    text = text or type(exc).__name__
    return text if len(text) <= 160 else text[:157] + "..."
