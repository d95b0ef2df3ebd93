"""The feature files of the paper's authors, and of FastGDA.

Sources: https://github.com/PeterWang512/GenDataAttribution (`{test_case}.pth`,
`laion_subset.pth`) and FastGDA (`data_feats.npy`). They hold base features. Large ones are
memory-mapped, and looked through by blocks.
"""

from __future__ import annotations

import pickle
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from embed.weights import read_pickle
from evaluation.features import CaseFeatures
from ingest.errors import SourceError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.floating[Any]]

__all__ = [
    "open_npy",
    "read_case_file",
    "read_npy_features",
    "read_subset_file",
    "refuse_not_finite",
]

_BLOCK_BYTES = 16 * 1024 * 1024
_CASE_KEYS = ("exemplar_tensors", "exemplar_chunks", "synth_tensors", "synth_ids")
_SUBSET_KEYS = ("feats", "paths")


def read_case_file(path: Path) -> CaseFeatures:
    """The features of a `{test_case}.pth`; its models are named by their positions.

    Raises:
        WeightsError: unreadable, carrying code, or with features that are not finite.
        SourceError: of another layout; exemplars that are not divided among the models.
    """
    content = _read(path, _CASE_KEYS, "features of a test case", other=("laion_subset", "feats"))
    exemplars = _matrix(path, "exemplar_tensors", content["exemplar_tensors"])
    chunks = _chunks(path, content["exemplar_chunks"], len(exemplars))
    models = len(chunks) - 1
    tensors, ids = content["synth_tensors"], content["synth_ids"]
    if not isinstance(tensors, dict) or not isinstance(ids, dict) or set(tensors) != set(ids):
        raise SourceError(f"{path}: synth_tensors and synth_ids are not of the same prompt types")
    synth, owners, types = [], [], []
    for kind in tensors:
        what = f"synth_tensors {kind}"
        of_kind = np.asarray(_integers(path, f"synth_ids {kind}", ids[kind]), dtype=np.int64)
        if tensors[kind] is None and not len(of_kind):
            continue
        features = _matrix(path, what, tensors[kind])
        if features.shape[1] != exemplars.shape[1]:
            raise SourceError(
                f"{path}: {what} have {features.shape[1]} numbers each, the exemplars "
                f"{exemplars.shape[1]}"
            )
        if len(of_kind) != len(features):
            raise SourceError(f"{path}: {what} are {len(features)}, their ids {len(of_kind)}")
        if len(of_kind) and not 0 <= of_kind.min() <= of_kind.max() < models:
            raise SourceError(
                f"{path}: synth_ids {kind} are {of_kind.min()} to {of_kind.max()}, there are "
                f"{models} models"
            )
        synth.append(features)
        owners.append(of_kind)
        types += [str(kind)] * len(features)
    if not types:
        raise SourceError(f"{path} holds no generated image")
    digits = len(str(models - 1))
    return CaseFeatures(
        name=path.stem,
        model_ids=tuple(f"{model:0{digits}d}" for model in range(models)),
        exemplars=np.asarray(exemplars, dtype=np.float32),
        chunks=chunks,
        synth=np.concatenate(synth).astype(np.float32, copy=False),
        synth_model=np.concatenate(owners),
        synth_type=tuple(types),
    )


def read_subset_file(path: Path) -> tuple[Floats, list[str]]:
    """The features of a `laion_subset.pth` and the paths of their images.

    Returns:
        (images, dim) of the file's own kind of floating-point numbers, memory-mapped wherever
        the file allows it, and (images,) paths.

    Raises:
        WeightsError: unreadable, or carrying code.
        SourceError: of another layout, or with features that are not finite.
    """
    content = _read(path, _SUBSET_KEYS, "features of images", other=("test case", _CASE_KEYS[0]))
    features = _matrix(path, "feats", content["feats"])
    paths = content["paths"]
    if not isinstance(paths, list | tuple) or not all(isinstance(p, str) for p in paths):
        raise SourceError(f"{path}: paths is not a list of paths")
    if len(paths) != len(features):
        raise SourceError(f"{path} has {len(features)} features, but {len(paths)} paths")
    refuse_not_finite(features, str(path))
    return features, list(paths)


def read_npy_features(path: Path) -> Floats:
    """(images, dim) features of an .npy file (FastGDA's `data_feats.npy`), memory-mapped.

    Raises:
        SourceError: as `open_npy`; or features that are not finite.
    """
    features = open_npy(path)
    refuse_not_finite(features, str(path))
    return features


def open_npy(path: Path) -> Floats:
    """(images, dim) features of an .npy file, memory-mapped and not looked through.

    Raises:
        SourceError: unreadable, or not (images, dim) floating-point numbers.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of odd headers: they load or they fail
            array = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError, OverflowError, SyntaxError, MemoryError) as exc:
        why = " ".join(str(exc).split())[:160] or type(exc).__name__
        raise SourceError(f"{path} cannot be read as an .npy file: {why}") from exc
    if not isinstance(array, np.ndarray):
        array.close()
        raise SourceError(f"{path} is an archive of arrays, expected one array (.npy)")
    if array.ndim != 2 or not np.issubdtype(array.dtype, np.floating) or 0 in array.shape:
        raise SourceError(
            f"{path} holds {array.dtype} {array.shape}, expected floating-point numbers of "
            "shape (images, dim)"
        )
    return array


def refuse_not_finite(features: Floats, what: str) -> None:
    """Look through features (images, dim) by blocks, so that a memory map stays one.

    Raises:
        SourceError: it says how many images have features that are not finite.
    """
    step = max(1, _BLOCK_BYTES // max(1, features.shape[1] * features.itemsize))
    bad = 0
    for start in range(0, len(features), step):
        bad += int((~np.isfinite(features[start : start + step]).all(axis=1)).sum())
    if bad:
        raise SourceError(
            f"{what}: {bad} of {len(features)} images have features that are not finite"
        )


# -- reading ---------------------------------------------------------------------------------------


def _read(path: Path, keys: Sequence[str], what: str, other: tuple[str, str]) -> dict[str, Any]:
    content = _load(path)
    if isinstance(content, dict) and all(key in content for key in keys):
        return content
    looks = isinstance(content, dict) and other[1] in content
    raise SourceError(
        f"{path} does not hold {what}: it lacks {', '.join(keys)}"
        + (f" (it looks like a {other[0]} file)" if looks else "")
    )


def _load(path: Path) -> Any:  # noqa: ANN401
    import torch

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except (pickle.UnpicklingError, RuntimeError, OSError, EOFError, ValueError, KeyError):
        # Files of before PyTorch 1.6 cannot be mapped; and what cannot be read at all is refused
        # there, with the reason.
        return read_pickle(path)


def _matrix(path: Path, what: str, value: object) -> Floats:
    """(images, dim) as numpy, without a copy where there is a type for it."""
    import torch

    if not isinstance(value, torch.Tensor):
        raise SourceError(f"{path}: {what} is a {type(value).__name__}, not a tensor")
    if value.ndim != 2 or not value.is_floating_point() or not value.shape[1]:
        raise SourceError(
            f"{path}: {what} is {str(value.dtype).removeprefix('torch.')} {tuple(value.shape)}, "
            "expected floating-point numbers of shape (images, dim)"
        )
    if value.layout != torch.strided or value.device.type != "cpu":
        raise SourceError(f"{path}: {what} is not a dense tensor")
    value = value.detach()
    if value.dtype not in (torch.float16, torch.float32, torch.float64):
        value = value.float()  # numpy has no bfloat16
    array: Floats = value.numpy()
    return array


def _chunks(path: Path, value: object, exemplars: int) -> NDArray[np.int64]:
    """int64 (models + 1,) from a list of (start, end), which must follow on each other."""
    if not isinstance(value, list | tuple) or not value:
        raise SourceError(f"{path}: exemplar_chunks is not a list of (start, end)")
    ends = [0]
    for model, chunk in enumerate(value):
        start, end = _integers(path, f"exemplar_chunks {model}", chunk, count=2)
        if start != ends[-1]:
            raise SourceError(
                f"{path}: the exemplars of model {model} begin at {start}, those before it end at "
                f"{ends[-1]}"
            )
        if end <= start:
            raise SourceError(f"{path}: model {model} has no exemplar ({start} to {end})")
        ends.append(end)
    if ends[-1] != exemplars:
        raise SourceError(
            f"{path}: exemplar_chunks end at {ends[-1]}, there are {exemplars} exemplars"
        )
    return np.asarray(ends, dtype=np.int64)


def _integers(path: Path, what: str, value: object, count: int | None = None) -> list[int]:
    import torch

    if isinstance(value, torch.Tensor):
        value = value.tolist()
    if (
        not isinstance(value, list | tuple)
        or not all(isinstance(i, int) and not isinstance(i, bool) for i in value)
        or any(abs(i) > 2**53 for i in value)
        or (count is not None and len(value) != count)
    ):
        wanted = "whole numbers" if count is None else f"{count} whole numbers"
        raise SourceError(f"{path}: {what} are not {wanted}")
    return list(value)
