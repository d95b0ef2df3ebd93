"""Features as a request carries them: a list of numbers, or their bytes in base64."""

from __future__ import annotations

import base64
import binascii

import numpy as np
from numpy.typing import NDArray

from search.service.problems import Problem

__all__ = ["features_of"]

_NUMBERS = frozenset((int, float))


def features_of(value: object, dim: int) -> NDArray[np.float32]:
    """(dim,) features; whether they are normalised is looked at where they are used.

    A list of numbers, or base64 of little-endian float32 or float16; which of the two their length
    tells. Base64 is a fifth of the list's text and is read without looking at every number.

    Raises:
        Problem: neither, another length, or a number that is not finite.
    """
    features = _decoded(value, dim) if isinstance(value, str) else _listed(value)
    if not np.isfinite(features).all():
        raise _wrong("features must be finite numbers")
    if len(features) != dim:
        raise _wrong(f"{len(features)} features were given, the model has {dim}")
    return features


def _listed(value: object) -> NDArray[np.float32]:
    numbers = value if isinstance(value, list) else []
    if not numbers or not _NUMBERS.issuperset(map(type, numbers)):
        raise _wrong(
            "features must be a list of numbers, or base64 of them, L2-normalised, of the synth "
            "mapper"
        )
    try:
        with np.errstate(over="ignore"):
            return np.array(numbers, np.float64).astype(np.float32)
    except OverflowError:
        return np.array([np.inf], np.float32)


def _decoded(text: str, dim: int) -> NDArray[np.float32]:
    try:
        data = base64.b64decode(text, validate=True)
    except (ValueError, binascii.Error) as exc:
        raise _wrong("features as a text must be base64, with its padding") from exc
    for kind in ("<f4", "<f2"):
        if len(data) == dim * np.dtype(kind).itemsize:
            return np.frombuffer(data, kind).astype(np.float32)
    raise _wrong(
        f"{len(data)} bytes of features were given; the {dim} of the model are {4 * dim} as "
        f"float32, {2 * dim} as float16"
    )


def _wrong(detail: str) -> Problem:
    return Problem(422, "wrong-call", detail)
