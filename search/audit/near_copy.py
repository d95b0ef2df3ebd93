"""Near-copies: generated images that repeat a training image (memorization)."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from search.answer import Attribution, Row
from search.audit.copy_score import Edges, copy_score
from search.audit.flags import Thresholds

if TYPE_CHECKING:
    from PIL import Image

__all__ = ["Found", "NearCopy", "NearCopySettings"]

_ROWS = 3  # most similar training images that are looked at
_KEPT = 1024  # training images whose edges (or features) are kept


class NearCopySettings(Protocol):
    """What `NearCopy` needs of the settings of an audit."""

    @property
    def copy_model(self) -> str:
        """Backbone to compare pictures with; '' for their edges."""
        ...

    @property
    def thresholds(self) -> Thresholds:
        """With `near_copy`."""
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
    """

    def __init__(
        self, settings: NearCopySettings, image_of: Callable[[Row], Image.Image | None]
    ) -> None:
        self._thresholds = settings.thresholds
        self._image_of = image_of
        self._seen: OrderedDict[str, Edges | None] = OrderedDict()

    def check(self, image: Image.Image, answer: Attribution) -> Found:
        """Compare the picture (mode RGB) with the most similar rows of its answer."""
        found = Found()
        generated = Edges.of(image)
        for row in sorted(answer.rows, key=lambda row: -row.similarity)[:_ROWS]:
            training = self._training(row)
            if training is None:
                continue
            score = copy_score(generated, training)
            if found.score is None or score > found.score:
                named = row.owners[0].id if score >= self._thresholds.near_copy else ""
                found = Found(named, score)
        return found

    def _training(self, row: Row) -> Edges | None:
        key = row.owners[0].id
        if key not in self._seen:
            picture = self._image_of(row)
            self._seen[key] = None if picture is None else Edges.of(picture)
            if len(self._seen) > _KEPT:
                self._seen.popitem(last=False)
        self._seen.move_to_end(key)
        return self._seen[key]
