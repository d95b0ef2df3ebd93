"""What mappers are tuned on: base features of customized models and of other training images."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float32]
    Integers = NDArray[np.int64]

__all__ = ["TuningData"]


@dataclass(frozen=True, eq=False)
class TuningData:
    """Pairs that are influence by construction: a model's exemplars and its generated images.

    Attributes:
        exemplars: float32 (exemplars, d) base features.
        exemplar_model: int64 (exemplars,), the customized model of each, from 0.
        synth: float32 (images, d) base features.
        synth_model: int64 (images,), the customized model of each.
        others: float32 (n, d) base features of training images that no model was customized on.
    """

    exemplars: Floats
    exemplar_model: Integers
    synth: Floats
    synth_model: Integers
    others: Floats

    @property
    def dim(self) -> int:
        """d."""
        return int(self.exemplars.shape[1])

    @property
    def models(self) -> int:
        """How many customized models there are."""
        return int(self.exemplar_model.max()) + 1

    def means(self) -> NDArray[np.float64]:
        """(models, d) mean exemplar of each model."""
        sums = np.zeros((self.models, self.dim))
        np.add.at(sums, self.exemplar_model, self.exemplars.astype(np.float64))
        counts = np.bincount(self.exemplar_model, minlength=self.models)
        result: NDArray[np.float64] = sums / counts[:, None]
        return result
