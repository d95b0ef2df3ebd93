"""What every index checks before it changes or asks anything, and how ids and payloads travel."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from uuid import UUID

import numpy as np
from numpy.typing import NDArray

from ingest.errors import UsageError
from search.index import INDEXED_FIELDS, Features, Payload

__all__ = [
    "check_features",
    "check_fields",
    "check_mass",
    "check_points",
    "check_positive",
    "pack_ids",
    "payload_sizes",
    "payloads_json",
    "unpack_ids",
]

_NORM_TOLERANCE = 1e-3  # what float16 features still reach; anything further off is another thing
_NORM_EXACT = 1e-6  # closer than this a row is stored bit for bit
_ID_BYTES = 16


def check_points(
    ids: Sequence[UUID], vectors: Features, payloads: Sequence[Payload], dim: int
) -> Features:
    """The vectors of points to be put in, as `check_features` gives them.

    Raises:
        UsageError: lengths differ, ids repeat, or a vector is wrong.
    """
    if len(vectors) != len(ids) or len(payloads) != len(ids):
        raise UsageError(
            f"{len(ids)} ids, {len(vectors)} vectors and {len(payloads)} payloads; "
            "there must be as many of each"
        )
    if len(set(ids)) != len(ids):
        raise UsageError("an id stands twice in one upsert")
    return check_features(vectors, dim, "vectors")


def check_features(given: Features, dim: int, name: str) -> Features:
    """`given` as contiguous float32 of norm 1.

    Raises:
        UsageError: it is no (n, dim) array of floating-point rows of (nearly) that norm.
    """
    if given.ndim != 2 or given.shape[1] != dim:
        raise UsageError(f"{name} must be an array of shape (n, {dim}), not {given.shape}")
    if given.dtype.kind != "f":
        raise UsageError(f"{name} must be floating point, not {given.dtype}")
    rows = np.ascontiguousarray(given, dtype=np.float32)
    norms: NDArray[np.float32] = np.sqrt(np.einsum("ij,ij->i", rows, rows))
    off = np.abs(norms - 1.0)
    # Written so that a NaN counts as wrong: no comparison with it is true.
    wrong = np.flatnonzero(~(off <= _NORM_TOLERANCE))
    if len(wrong):
        at = int(wrong[0])
        what = "a number that is not finite"
        if np.isfinite(rows[at]).all():
            what = f"norm {norms[at]:.4g}"
        raise UsageError(f"row {at} of {name} has {what}; features are L2-normalised")
    if (off > _NORM_EXACT).any():
        # The engine compares by inner product, which is the cosine only for norm 1.
        rows = np.where(off[:, None] > _NORM_EXACT, rows / norms[:, None], rows)
    return rows


def pack_ids(ids: Sequence[UUID]) -> bytes:
    """Ids laid end to end, 16 bytes each; UsageError where one is no UUID."""
    try:
        return b"".join([uuid.bytes for uuid in ids])
    except AttributeError as exc:
        raise UsageError("ids must be UUIDs") from exc


def unpack_ids(ids: bytes) -> list[UUID]:
    """The inverse of `pack_ids`."""
    return [UUID(bytes=ids[at : at + _ID_BYTES]) for at in range(0, len(ids), _ID_BYTES)]


def payloads_json(payloads: Sequence[Payload]) -> bytes:
    """Payloads as one JSON list; UsageError where one cannot be written so."""
    with _as_json(payloads):
        return json.dumps(list(payloads), ensure_ascii=False, allow_nan=False).encode()


def payload_sizes(payloads: Sequence[Payload]) -> list[int]:
    """About how many bytes each payload is as JSON; UsageError where one cannot be written so."""
    with _as_json(payloads):
        return [len(json.dumps(payload, allow_nan=False)) for payload in payloads]


@contextmanager
def _as_json(payloads: Sequence[Payload]) -> Iterator[None]:
    try:
        if not all(isinstance(payload, dict) for payload in payloads):
            raise TypeError("it is no dict")
        yield
    except (TypeError, ValueError, RecursionError) as exc:
        detail = " ".join(str(exc).split())
        raise UsageError(f"a payload cannot be stored as JSON: {detail}") from exc


def check_fields(names: Sequence[str]) -> None:
    """UsageError where a field has no index."""
    for name in names:
        if name not in INDEXED_FIELDS:
            raise UsageError(f"cannot filter by {name!r}; choose among {', '.join(INDEXED_FIELDS)}")


def check_positive(name: str, value: int) -> None:
    """UsageError where a number is below 1."""
    if value < 1:
        raise UsageError(f"{name} must be at least 1, not {value}")


def check_mass(mass: float | None) -> None:
    """UsageError where it is no share of the influence that rows could reach."""
    if mass is not None and not 0 < mass <= 1:  # NaN is refused here too
        raise UsageError(f"mass must be above 0 and at most 1, not {mass:g}")
