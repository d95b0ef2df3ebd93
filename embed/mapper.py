"""The tuned layers on top of a backbone, in numpy: from base features to features.

A pair of mappers is small (a matrix or two), so queries and re-mapping need no torch. The layouts
are those of the paper's tuned models (arXiv 2306.09345): a linear layer, a weight per channel, or
linear layers without bias, each followed by batch normalisation, ReLU between them.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Literal, get_args

import numpy as np

from ingest.errors import ModelError, WeightsError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import ArrayLike, NDArray

    Floats = NDArray[np.float32]

__all__ = ["Mapper", "MapperKind", "MapperPair", "normalised"]

MapperKind = Literal["identity", "linear", "channel", "mlp"]

_BATCH_NORM_EPS = 1e-5
_LAYERS_PER_STEP = 4  # linear, batch norm, ReLU, dropout: the numbering of the official state
_SMALLEST_NORM = 1e-12
_BLOCK_ROWS = 4096  # mapped at once: what bounds memory


class Mapper:
    """One mapper: base features (n, d) to (n, f), not normalised. Immutable.

    Attributes:
        kind: identity, linear (y = x W^T + b), channel (y = x * w) or mlp.
        arrays: its float32 arrays under the names of the official state:
            linear `weight` (f, d), `bias` (f,); channel `weights` (1, d);
            mlp `0.weight` (h, d), `1.weight`, `1.bias`, `1.running_mean`, `1.running_var` (h,),
            `4.weight` (f, h), `5.running_mean`, `5.running_var` (f,), ...
        in_dim: d.
        out_dim: f.
    """

    def __init__(self, kind: MapperKind, arrays: Mapping[str, ArrayLike], in_dim: int) -> None:
        if kind not in get_args(MapperKind):
            raise ModelError(f"mapper: unknown kind {kind!r}")
        self.kind: MapperKind = kind
        self.arrays: dict[str, Floats] = {}
        for name in sorted(arrays):
            # safetensors writes the memory as it lies: a transposed array would come back another.
            array = np.array(arrays[name], dtype=np.float32, order="C")
            if not np.isfinite(array).all():
                raise ModelError(f"mapper: {name} holds a number that is not finite")
            array.setflags(write=False)
            self.arrays[name] = array
        self.in_dim = in_dim
        self._steps = [
            (matrix.astype(np.float64), offset.astype(np.float64))
            for matrix, offset in _steps(kind, self.arrays, in_dim)
        ]
        self.out_dim = len(self._steps[-1][1]) if self._steps else in_dim

    @classmethod
    def identity(cls, dim: int) -> Mapper:
        """The mapper that changes nothing."""
        return cls("identity", {}, dim)

    @classmethod
    def linear(cls, weight: ArrayLike, bias: ArrayLike) -> Mapper:
        """y = x W^T + b, weight (f, d), bias (f,)."""
        return cls("linear", {"weight": weight, "bias": bias}, _columns(weight, "weight"))

    @classmethod
    def channel(cls, weights: ArrayLike) -> Mapper:
        """y = x * w, weights (d,) or (1, d)."""
        row = np.asarray(weights, dtype=np.float32).reshape(1, -1)
        return cls("channel", {"weights": row}, row.shape[1])

    @classmethod
    def from_state(cls, state: Mapping[str, ArrayLike]) -> Mapper:
        """From a state in the official layout; its kind is told by its names.

        Raises:
            ModelError: names or shapes of no kind of mapper.
        """
        arrays = {name: a for name, a in state.items() if not name.endswith("num_batches_tracked")}
        if set(arrays) == {"weight", "bias"}:
            return cls.linear(arrays["weight"], arrays["bias"])
        if set(arrays) == {"weights"}:
            return cls.channel(arrays["weights"])
        if "0.weight" in arrays:
            return cls("mlp", arrays, _columns(arrays["0.weight"], "0.weight"))
        raise ModelError(f"not a mapper: its entries are {_listed(arrays)}")

    def __call__(self, base: ArrayLike) -> Floats:
        """Map base features.

        Args:
            base: (n, d).

        Returns:
            float32 (n, f).

        Raises:
            ModelError: another d than the mapper's.
            WeightsError: base features that are not finite.
        """
        x = np.asarray(base, dtype=np.float32)
        if x.ndim != 2 or x.shape[1] != self.in_dim:
            raise ModelError(f"base features are {x.shape}, the mapper takes (n, {self.in_dim})")
        if not np.isfinite(x).all():
            bad = int((~np.isfinite(x).all(axis=1)).sum())
            raise WeightsError(f"{bad} of {len(x)} base features hold numbers that are not finite")
        if not self._steps:
            return np.array(x, dtype=np.float32)
        out: Floats = np.empty((len(x), self.out_dim), dtype=np.float32)
        for start in range(0, len(x), _BLOCK_ROWS):
            out[start : start + _BLOCK_ROWS] = self._mapped(x[start : start + _BLOCK_ROWS])
        return out

    def _mapped(self, x: Floats) -> NDArray[np.float64]:
        """In double precision: a sum in single precision depends on where in a batch a row stands.

        So an image's feature is the same whatever it was mapped with: at ingest, when a collection
        is re-mapped, alone as a query or among others.
        """
        y = x.astype(np.float64)
        for number, (matrix, offset) in enumerate(self._steps):
            if number:
                y = np.maximum(y, 0)
            y = (y * matrix if matrix.ndim == 1 else y @ matrix) + offset
        return y


@dataclass(frozen=True, eq=False)
class MapperPair:
    """The two mappers of an attribution model.

    Attributes:
        real_mapper: for training images.
        synth_mapper: for generated images; the same d and f.
    """

    real_mapper: Mapper
    synth_mapper: Mapper

    def __post_init__(self) -> None:
        real, synth = self.real_mapper, self.synth_mapper
        if (real.in_dim, real.out_dim) != (synth.in_dim, synth.out_dim):
            raise ModelError(
                f"the real mapper is {real.in_dim} -> {real.out_dim}, "
                f"the synth mapper {synth.in_dim} -> {synth.out_dim}; they must agree"
            )

    @classmethod
    def identity(cls, dim: int) -> MapperPair:
        """The pair that changes nothing."""
        return cls(Mapper.identity(dim), Mapper.identity(dim))

    @property
    def in_dim(self) -> int:
        """Length of the base feature, d."""
        return self.real_mapper.in_dim

    @property
    def out_dim(self) -> int:
        """Length of the feature, f."""
        return self.real_mapper.out_dim

    def real(self, base: ArrayLike) -> Floats:
        """Features of training images: float32 (n, f) from base (n, d); see `normalised`."""
        return normalised(self.real_mapper(base))

    def synth(self, base: ArrayLike) -> Floats:
        """Features of generated images: float32 (n, f) from base (n, d); see `normalised`."""
        return normalised(self.synth_mapper(base))


def normalised(x: Floats) -> Floats:
    """Rows of length 1: float32 (n, f).

    A row of zeros stays zeros: its similarity to everything is then 0, never NaN.
    """
    norms = np.sqrt(np.einsum("nf,nf->n", x, x, dtype=np.float64))
    return np.asarray(x / np.maximum(norms, _SMALLEST_NORM)[:, None], dtype=np.float32)


def _steps(kind: MapperKind, arrays: dict[str, Floats], d: int) -> list[tuple[Floats, Floats]]:
    """(matrix (d, f) or scale (d,), offset (f,)) of each layer, ReLU between them."""
    if kind == "identity":
        if arrays:
            raise ModelError(f"identity mapper with entries {_listed(arrays)}")
        return []
    if kind == "channel":
        _names(kind, arrays, {"weights"})
        _shape(arrays, "weights", (1, d))
        return [(arrays["weights"][0], np.zeros(d, dtype=np.float32))]
    if kind == "linear":
        _names(kind, arrays, {"weight", "bias"})
        f = len(arrays["bias"]) if arrays["bias"].ndim else 0
        _shape(arrays, "weight", (f, d))
        _shape(arrays, "bias", (f,))
        return [(np.ascontiguousarray(arrays["weight"].T), arrays["bias"])]
    return _mlp_steps(arrays, d)


def _mlp_steps(arrays: dict[str, Floats], d: int) -> list[tuple[Floats, Floats]]:
    linears = [int(name[:-7]) for name, a in arrays.items() if _is_linear(name, a)]
    linears.sort()
    if linears != [_LAYERS_PER_STEP * step for step in range(len(linears))]:
        raise ModelError(f"mlp mapper: linear layers at {linears}, expected 0, 4, 8, ...")
    known: set[str] = set()
    steps = []
    for position in linears:
        weight, norm = f"{position}.weight", f"{position + 1}."
        f = len(arrays[weight])
        _shape(arrays, weight, (f, d))
        scale, offset = np.ones(f), np.zeros(f)
        known.add(weight)
        # Evaluation-time batch norm is an affine map: it folds into the linear layer before it.
        if norm + "running_mean" in arrays and norm + "running_var" in arrays:
            vectors = [norm + "running_mean", norm + "running_var"]
            affine = norm + "weight" in arrays and norm + "bias" in arrays
            vectors += [norm + "weight", norm + "bias"] if affine else []
            for name in vectors:
                _shape(arrays, name, (f,))
            known.update(vectors)
            variance = arrays[norm + "running_var"].astype(np.float64)
            if (variance < 0).any():
                raise ModelError(f"mlp mapper: {norm}running_var is below 0")
            scale = 1.0 / np.sqrt(variance + _BATCH_NORM_EPS)
            if affine:
                scale = scale * arrays[norm + "weight"]
                offset = arrays[norm + "bias"].astype(np.float64)
            offset = offset - arrays[norm + "running_mean"] * scale
        matrix = arrays[weight].astype(np.float64).T * scale  # (d, f)
        steps.append((np.ascontiguousarray(matrix, np.float32), offset.astype(np.float32)))
        d = f
    if extra := set(arrays) - known:
        raise ModelError(f"mlp mapper: entries that do not belong: {_listed(extra)}")
    for (_, before), (after, _) in pairwise(steps):
        assert len(before) == len(after)  # noqa: S101  (checked by _shape above)
    return steps


def _is_linear(name: str, array: Floats) -> bool:
    return array.ndim == 2 and name.endswith(".weight") and name[:-7].isdigit()


def _columns(weight: ArrayLike, name: str) -> int:
    shape = np.shape(weight)
    if len(shape) != 2:
        raise ModelError(f"mapper: {name} is {shape}, expected two axes")
    return int(shape[1])


def _names(kind: str, arrays: Mapping[str, Floats], expected: set[str]) -> None:
    if set(arrays) != expected:
        raise ModelError(
            f"{kind} mapper: entries are {_listed(arrays)}, expected {_listed(expected)}"
        )


def _shape(arrays: Mapping[str, Floats], name: str, shape: tuple[int, ...]) -> None:
    if arrays[name].shape != shape:
        raise ModelError(f"mapper: {name} is {arrays[name].shape}, expected {shape}")


def _listed(names: object) -> str:
    listed = sorted(str(name) for name in names)  # type: ignore[attr-defined]
    return ", ".join(listed[:4]) + (f" and {len(listed) - 4} more" if len(listed) > 4 else "")
