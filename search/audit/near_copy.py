"""Near-copies: generated images that repeat a training image (memorization).

Candidates are the most similar training images of an answer; then the pictures themselves are
compared: by their edges (`search.audit.copy_score`), or by a backbone made for it.
"""

from __future__ import annotations

import heapq
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from ingest.errors import UsageError
from search.answer import Attribution, Row
from search.audit.copy_score import Edges, compare, score_of
from search.audit.flags import Thresholds
from search.index import Features

if TYPE_CHECKING:
    from PIL import Image

__all__ = [
    "BY_EDGES",
    "COPY_MODELS",
    "ROWS",
    "Found",
    "NearCopy",
    "NearCopySettings",
    "copy_threshold",
]

ROWS = 3
"""Most similar training images whose pictures are looked at."""

BY_EDGES = 0.73
"""Least score of a copy, by edges: docs/audit-flags.md."""

COPY_MODELS = {"sscd-disc-mixup": 0.75}
"""Least cosine of a copy, by backbone. SSCD: 90 % precision on DISC2021 by its authors (Pizzi et
al., CVPR 2022, and the README of its repository)."""

_KEPT = 512  # training images, some 150 kB each, whose pictures are kept ready


def copy_threshold(copy_model: str) -> float:
    """From which score on pictures are copies, by that backbone; '' for their edges.

    Raises:
        UsageError: it is not known for this backbone.
    """
    if not copy_model:
        return BY_EDGES
    if copy_model not in COPY_MODELS:
        raise UsageError(
            f"it is not known from which cosine of {copy_model} on two pictures are copies: "
            "measure it (docs/audit-flags.md) and give it, as in --threshold near-copy=0.9"
        )
    return COPY_MODELS[copy_model]


class NearCopySettings(Protocol):
    """What `NearCopy` needs of the settings of an audit."""

    @property
    def copy_model(self) -> str:
        """Attribution model or backbone to compare pictures with; '' for their edges."""
        ...

    @property
    def thresholds(self) -> Thresholds:
        """With `near_copy` and `look_from`."""
        ...


@dataclass(frozen=True)
class Found:
    """What was found of one generated image.

    Attributes:
        training_id: of the training image that it repeats; '' for none.
        score: of the likest training image that was looked at; None where none was.
    """

    training_id: str = ""
    score: float | None = None


class NearCopy:
    """Looks whether generated images repeat one of the training images of their answers.

    Args:
        settings: of the audit.
        image_of: the training image's thumbnail, None where there is none.

    Raises:
        UsageError: a `copy_model` whose threshold is not known, and none is given.
        UnknownModelError: there is no such model.
        WeightsError: its weights are missing.
    """

    def __init__(
        self, settings: NearCopySettings, image_of: Callable[[Row], Image.Image | None]
    ) -> None:
        self._image_of = image_of
        self._from = settings.thresholds.look_from
        self._pictures: _Pictures = (
            _ByBackbone(settings.copy_model) if settings.copy_model else _ByEdges()
        )
        given = settings.thresholds.near_copy
        self._least = copy_threshold(settings.copy_model) if given is None else given
        self._ready: OrderedDict[str, Any] = OrderedDict()

    def check(self, image: Image.Image, answer: Attribution) -> Found:
        """Compare the picture (mode RGB) with the most similar rows of its answer.

        Rows less similar than `Thresholds.look_from` are not looked at: it would take longer than
        all the rest of an audit.
        """
        rows = [row for row in answer.rows if self._from is None or row.similarity >= self._from]
        found = Found()
        generated: Any = None
        for row in heapq.nlargest(ROWS, rows, key=lambda row: row.similarity):
            training = self._training(row)
            if training is None:
                continue
            if generated is None:
                generated = self._pictures.ready(image)
            score = self._pictures.score(generated, training)
            if found.score is None or score > found.score:
                found = Found(row.owners[0].id if score >= self._least else "", score)
        return found

    def _training(self, row: Row) -> Any:  # noqa: ANN401
        key = row.owners[0].id
        if key not in self._ready:
            picture = self._image_of(row)
            self._ready[key] = None if picture is None else self._pictures.ready(picture)
            if len(self._ready) > _KEPT:
                self._ready.popitem(last=False)
        self._ready.move_to_end(key)
        return self._ready[key]


class _Pictures(Protocol):
    """Pictures made ready to be compared, and how much two of them are alike."""

    def ready(self, image: Image.Image) -> Any: ...  # noqa: ANN401

    def score(self, generated: Any, training: Any) -> float: ...  # noqa: ANN401


class _ByEdges:
    def ready(self, image: Image.Image) -> Edges:
        return Edges.of(image)

    def score(self, generated: Edges, training: Edges) -> float:
        return score_of(compare(generated, training))


class _ByBackbone:
    """Cosines of the features of a backbone, through the `real` mapper of a tuned model."""

    def __init__(self, name: str) -> None:
        from embed.embedder import Embedder
        from embed.registry import find_model

        self._model = find_model(name)
        self._embedder = Embedder(self._model.backbone)

    def ready(self, image: Image.Image) -> Features:
        pixels = self._model.backbone.preprocessing.apply(image)
        features: Features = self._model.mappers.real(self._embedder.embed(pixels[None]))[0]
        return features

    def score(self, generated: Features, training: Features) -> float:
        return float(np.dot(generated, training))
