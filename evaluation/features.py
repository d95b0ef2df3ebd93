"""The features of a test case, in memory: what the protocol ranks and what tuning learns from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from ingest.errors import ModelError, SourceError, WeightsError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from embed.mapper import MapperPair

    Floats = NDArray[np.floating[Any]]

__all__ = ["CaseFeatures"]


@dataclass(frozen=True, eq=False)
class CaseFeatures:
    """Exemplars and generated images of some customized models, as features.

    They are base features as they come from a backbone, and features after `mapped`.

    Attributes:
        name: of the test case, e.g. `test_artchive`.
        model_ids: (models,) a name each, unique in the case.
        exemplars: float32 (exemplars, dim); those of one model stand together.
        chunks: int64 (models + 1,); model m has the exemplars chunks[m] .. chunks[m + 1], at least
            one.
        synth: float32 (queries, dim), the generated images.
        synth_model: int64 (queries,), the model that each was synthesized with.
        synth_type: (queries,) the prompt type of each, e.g. `gpt` or `media`.
    """

    name: str
    model_ids: tuple[str, ...]
    exemplars: NDArray[np.float32]
    chunks: NDArray[np.int64]
    synth: NDArray[np.float32]
    synth_model: NDArray[np.int64]
    synth_type: tuple[str, ...]

    def __post_init__(self) -> None:
        models = len(self.model_ids)
        dims = {array.shape[1:] for array in (self.exemplars, self.synth)}
        if self.exemplars.ndim != 2 or self.synth.ndim != 2 or len(dims) != 1:
            raise ModelError(
                f"{self.name}: exemplars are {self.exemplars.shape}, generated images "
                f"{self.synth.shape}; both must be (images, dim) of one dim"
            )
        if len(set(self.model_ids)) != models:
            raise SourceError(f"{self.name}: two models of one name")
        if (
            self.chunks.shape != (models + 1,)
            or self.chunks[0] != 0
            or self.chunks[-1] != len(self.exemplars)
        ):
            raise SourceError(f"{self.name}: the exemplars are not divided among {models} models")
        empty = np.flatnonzero(np.diff(self.chunks) < 1)
        if len(empty):
            raise SourceError(f"{self.name}: model {self.model_ids[empty[0]]} has no exemplar")
        if not len(self.synth) == len(self.synth_model) == len(self.synth_type):
            raise SourceError(f"{self.name}: not every generated image has a model and a type")
        if len(self.synth) and not (
            int(self.synth_model.min()) >= 0 and int(self.synth_model.max()) < models
        ):
            raise SourceError(f"{self.name}: a generated image of a model that is not there")
        for what, array in (("exemplars", self.exemplars), ("generated images", self.synth)):
            if not np.isfinite(array).all():
                bad = int((~np.isfinite(array).all(axis=1)).sum())
                raise WeightsError(
                    f"{self.name}: {bad} of {len(array)} {what} have features that are not finite"
                )

    @property
    def dim(self) -> int:
        """Length of a feature."""
        return int(self.exemplars.shape[1])

    @property
    def positives(self) -> NDArray[np.int64]:
        """(queries,) how many exemplars each query has."""
        counts: NDArray[np.int64] = np.diff(self.chunks)[self.synth_model]
        return counts

    def exemplars_of(self, model: int) -> NDArray[np.float32]:
        """(exemplars of that model, dim)."""
        return self.exemplars[self.chunks[model] : self.chunks[model + 1]]

    def mapped(self, pair: MapperPair) -> CaseFeatures:
        """The same case in features: exemplars by the real mapper, queries by the synth one.

        Raises:
            ModelError: base features of another length than the mappers take.
        """
        return replace(self, exemplars=pair.real(self.exemplars), synth=pair.synth(self.synth))

    def of_models(self, models: Sequence[int]) -> CaseFeatures:
        """The same case with some of its models only, in the order given."""
        chosen = np.asarray(models, dtype=np.int64)
        place = np.full(len(self.model_ids), -1, dtype=np.int64)
        place[chosen] = np.arange(len(chosen))
        rows = np.concatenate(
            [np.arange(self.chunks[m], self.chunks[m + 1]) for m in chosen]
            or [np.empty(0, np.int64)]
        )
        keep = np.flatnonzero(place[self.synth_model] >= 0)
        sizes = np.diff(self.chunks)[chosen]
        return replace(
            self,
            model_ids=tuple(self.model_ids[m] for m in chosen),
            exemplars=self.exemplars[rows],
            chunks=np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64),
            synth=self.synth[keep],
            synth_model=place[self.synth_model[keep]],
            synth_type=tuple(self.synth_type[i] for i in keep),
        )
