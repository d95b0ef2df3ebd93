"""Near-copies: generated images that repeat a training image (memorization).

Candidates are the most similar training images of an answer; then the pictures themselves are
compared: by their edges (`search.audit.copy_score`), or by a backbone made for it.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from PIL import Image

from ingest.errors import UsageError
from ingest.thumbnail import open_thumbnail
from search.answer import Attribution, Row
from search.audit.copy_score import Edges, copy_scores
from search.audit.flags import Thresholds
from search.index import Features
from search.rows import RecordRows

__all__ = [
    "BY_EDGES",
    "COPY_MODELS",
    "LOOKED_AT",
    "Found",
    "NearCopy",
    "NearCopySettings",
    "copy_threshold",
]

LOOKED_AT = 10
"""Most similar training images whose pictures are looked at by their edges."""

BY_EDGES = 0.73
"""Least score of a copy, by edges: docs/audit-flags.md."""

COPY_MODELS = {"sscd-disc-mixup": 0.75}
"""Least cosine of a copy, by backbone. SSCD: 90 % precision on DISC2021 by its authors (Pizzi et
al., CVPR 2022, and the README of its repository)."""

_LOOKED_AT_BY_BACKBONE = 3  # each takes as long as embedding the generated image

_KEPT = 1024  # training images, 100 to 200 kB each, whose pictures are kept ready


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
        thumbnails: image files of training images by their ids; None where there is none.

    Raises:
        UsageError: a `copy_model` whose threshold is not known, and none is given.
        UnknownModelError: there is no such model.
        WeightsError: its weights are missing.
    """

    def __init__(
        self,
        settings: NearCopySettings,
        thumbnails: Callable[[Sequence[str]], Sequence[bytes | None]],
    ) -> None:
        self._thumbnails = thumbnails
        self._from = settings.thresholds.look_from
        self._pictures: _Pictures = (
            _ByBackbone(settings.copy_model) if settings.copy_model else _ByEdges()
        )
        given = settings.thresholds.near_copy
        self._least = copy_threshold(settings.copy_model) if given is None else given
        self._ready: OrderedDict[str, Any] = OrderedDict()

    def check_many(
        self, images: Sequence[Image.Image], answers: Sequence[Attribution]
    ) -> list[Found]:
        """Compare pictures (mode RGB) with the most similar rows of their answers.

        Rows less similar than `Thresholds.look_from` are not looked at. The thumbnails of all
        answers are asked for at once: many lie in the same files, or behind one connection.
        """
        most = self._pictures.most
        looked_at = [_most_similar(answer.rows, most, self._from) for answer in answers]
        files = self._files_of(looked_at)
        return [
            self._check(image, rows, files) for image, rows in zip(images, looked_at, strict=True)
        ]

    def _check(
        self, image: Image.Image, rows: Sequence[Row], files: Mapping[str, bytes | None]
    ) -> Found:
        ids = [row.owners[0].id for row in rows]
        training = {id: self._training(id, files) for id in ids}
        there = {id: picture for id, picture in training.items() if picture is not None}
        if not there:
            return Found()
        generated = self._pictures.ready(image)
        scores = self._pictures.scores(generated, list(there.values()))
        # The first, and so the most similar, among equals.
        id, score = max(zip(there, scores, strict=True), key=lambda found: found[1])
        return Found(id if score >= self._least else "", score)

    def _files_of(self, looked_at: Iterable[Sequence[Row]]) -> dict[str, bytes | None]:
        """Thumbnails of the rows that are not ready, by the ids of their first records."""
        new = {
            row.owners[0].id: row.owners
            for rows in looked_at
            for row in rows
            if row.owners[0].id not in self._ready
        }
        files = dict(zip(new, self._thumbnails(list(new)), strict=True)) if new else {}
        # Equal files have equal thumbnails, but not every record of them need have one.
        others = [
            (first, owner.id)
            for first, data in files.items()
            if data is None
            for owner in new[first][1:]
        ]
        if others:
            for (first, _), data in zip(
                others, self._thumbnails([id for _, id in others]), strict=True
            ):
                files[first] = files[first] or data
        return files

    def _training(self, id: str, files: Mapping[str, bytes | None]) -> Any:  # noqa: ANN401
        if id not in self._ready:
            data = files.get(id)
            picture = None if data is None else open_thumbnail(data)
            self._ready[id] = None if picture is None else self._pictures.ready(picture)
            if len(self._ready) > _KEPT:
                self._ready.popitem(last=False)
        self._ready.move_to_end(id)
        return self._ready[id]


def _most_similar(rows: Sequence[Row], most: int, least: float | None) -> list[Row]:
    similar = (
        rows.similarities
        if isinstance(rows, RecordRows)
        else np.array([row.similarity for row in rows], np.float64)
    )
    near = np.argsort(-similar, kind="stable")[:most].tolist()
    return [rows[place] for place in near if least is None or similar[place] >= least]


class _Pictures(Protocol):
    """Pictures made ready to be compared, and how much two of them are alike.

    Attributes:
        most: rows of an answer that are looked at.
    """

    most: int

    def ready(self, image: Image.Image) -> Any: ...  # noqa: ANN401

    def scores(self, generated: Any, training: Sequence[Any]) -> list[float]: ...  # noqa: ANN401


class _ByEdges:
    most = LOOKED_AT

    def ready(self, image: Image.Image) -> Edges:
        return Edges.of(image)

    def scores(self, generated: Edges, training: Sequence[Edges]) -> list[float]:
        return copy_scores(generated, training)


class _ByBackbone:
    """Cosines of the features of a backbone, through the `real` mapper of a tuned model."""

    most = _LOOKED_AT_BY_BACKBONE

    def __init__(self, name: str) -> None:
        from embed.embedder import Embedder
        from embed.registry import find_model

        self._model = find_model(name)
        self._embedder = Embedder(self._model.backbone)

    def ready(self, image: Image.Image) -> Features:
        pixels = self._model.backbone.preprocessing.apply(image)
        features: Features = self._model.mappers.real(self._embedder.embed(pixels[None]))[0]
        return features

    def scores(self, generated: Features, training: Sequence[Features]) -> list[float]:
        return [float(np.dot(generated, features)) for features in training]
