"""The files in which the paper's authors publish tuned mappers and calibrators.

Source: https://github.com/PeterWang512/GenDataAttribution ; a mapper file is
`{'real_mapper': state, 'synth_mapper': state}`, a calibrator file the state of two numbers,
`inv_tau` and `bias`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from embed.calibrator import Calibrator
from embed.mapper import Mapper, MapperPair
from embed.weights import read_pickle
from ingest.errors import ModelError, WeightsError

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["read_calibrator", "read_mappers"]

_MAPPER_KEYS = ("real_mapper", "synth_mapper")
_CALIBRATOR_KEYS = ("inv_tau", "bias")


def read_mappers(path: Path) -> MapperPair:
    """The pair of mappers of an official mapper file.

    Raises:
        ModelError: unreadable, carrying code, or not a mapper file.
    """
    content = _read(path)
    if not isinstance(content, dict) or any(key not in content for key in _MAPPER_KEYS):
        raise ModelError(
            f"{path} is not a mapper file: it lacks real_mapper and synth_mapper"
            + (" (it looks like a calibrator)" if _is_calibrator(content) else "")
        )
    real, synth = (_mapper(path, key, content[key]) for key in _MAPPER_KEYS)
    try:
        return MapperPair(real, synth)
    except ModelError as exc:
        raise ModelError(f"{path}: {exc}") from exc


def read_calibrator(path: Path) -> Calibrator:
    """The calibrator of an official calibrator file, fitted on what the file is named for.

    Raises:
        ModelError: unreadable, carrying code, or not a calibrator file.
    """
    content = _read(path)
    if not _is_calibrator(content):
        mapper = isinstance(content, dict) and any(key in content for key in _MAPPER_KEYS)
        raise ModelError(
            f"{path} is not a calibrator file: it lacks inv_tau and bias"
            + (" (it looks like a mapper)" if mapper else "")
        )
    try:
        inv_tau, bias = (float(content[key]) for key in _CALIBRATOR_KEYS)
        return Calibrator.from_official(inv_tau, bias, fitted_on=path.name)
    except (TypeError, ValueError, RuntimeError) as exc:
        raise ModelError(f"{path}: inv_tau and bias must be single numbers") from exc
    except ModelError as exc:
        raise ModelError(f"{path}: {exc}") from exc


def _read(path: Path) -> Any:  # noqa: ANN401
    try:
        return read_pickle(path)
    except WeightsError as exc:
        raise ModelError(str(exc)) from exc


def _is_calibrator(content: object) -> bool:
    return isinstance(content, dict) and all(key in content for key in _CALIBRATOR_KEYS)


def _mapper(path: Path, key: str, state: object) -> Mapper:
    if not isinstance(state, dict):
        raise ModelError(f"{path}: {key} is not a state of tensors")
    try:
        arrays = {str(name): np.asarray(tensor.float()) for name, tensor in state.items()}
    except AttributeError as exc:
        raise ModelError(f"{path}: {key} is not a state of tensors") from exc
    try:
        return Mapper.from_state(arrays)
    except ModelError as exc:
        raise ModelError(f"{path}: {key}: {exc}") from exc
