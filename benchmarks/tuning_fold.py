"""One fold of `benchmarks.tuning`: base features to learn from, to stop by, to measure on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from embed.tuning_data import TuningData
from evaluation.features import CaseFeatures
from evaluation.protocol import ArrayBlocks, Ranks, ranks

__all__ = ["Floats", "Fold", "Solution", "View"]

Floats = NDArray[np.float32]
Side = Callable[[dict[str, Floats]], Floats]


@dataclass(frozen=True, eq=False)
class View:
    """Base features of one backbone, in one fold.

    Attributes:
        learn: customized models to learn from.
        stop: others, to stop and to choose by.
        test: others again, to measure on.
        others: (n, d) distractors.
        extra: models of the kinds that are not measured, which a recipe may learn from, too.
    """

    learn: CaseFeatures
    stop: CaseFeatures
    test: CaseFeatures
    others: Floats
    extra: CaseFeatures | None

    def data(self) -> TuningData:
        """What is learned from."""
        owner = np.repeat(np.arange(len(self.learn.model_ids)), np.diff(self.learn.chunks))
        return TuningData(
            self.learn.exemplars, owner, self.learn.synth, self.learn.synth_model, self.others
        )

    def through(self, real: Callable[[Floats], Floats], synth: Callable[[Floats], Floats]) -> View:
        """The same in other coordinates."""

        def moved(case: CaseFeatures) -> CaseFeatures:
            return replace(case, exemplars=real(case.exemplars), synth=synth(case.synth))

        return View(
            moved(self.learn),
            moved(self.stop),
            moved(self.test),
            real(self.others),
            None if self.extra is None else moved(self.extra),
        )


@dataclass(frozen=True, eq=False)
class Solution:
    """Features (images, f) from base features by backbone; similarity is their inner product."""

    real: Side
    synth: Side

    def ranks(self, views: dict[str, View], part: str) -> Ranks:
        """Of the exemplars of `part`, `stop` or `test`."""
        cases = {name: getattr(view, part) for name, view in views.items()}
        case = next(iter(cases.values()))
        mapped = replace(
            case,
            exemplars=self.real({name: one.exemplars for name, one in cases.items()}),
            synth=self.synth({name: one.synth for name, one in cases.items()}),
        )
        gallery = self.real({name: view.others for name, view in views.items()})
        return ranks(mapped, ArrayBlocks(gallery))


@dataclass(eq=False)
class Fold:
    """One fold, and what several recipes have in common in it.

    Attributes:
        views: by backbone; the first is the one that is tuned.
    """

    views: dict[str, View]
    _kept: dict[object, object] = field(default_factory=dict)

    @property
    def main(self) -> str:
        """The backbone that is tuned."""
        return next(iter(self.views))

    def once(self, key: object, make: Callable[[], object]) -> object:
        """What `make` gives, made once."""
        if key not in self._kept:
            self._kept[key] = make()
        return self._kept[key]
