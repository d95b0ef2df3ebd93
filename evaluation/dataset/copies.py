"""Which images of a model are its exemplar again.

Features of an attribution model do not tell: what is drawn again at the size of a generator, and
through its autoencoder, is no more like its exemplar to them than many another image is. Edges do.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from PIL import ImageOps
from PIL.Image import Resampling

from search.audit.copy_score import Edges, compare, score_of

if TYPE_CHECKING:
    from PIL import Image

__all__ = ["COPY_SCORE", "copy_score", "copy_scores"]

COPY_SCORE = 0.3
"""From which score on an image counts as a copy, unless the caller says otherwise.

Lower than that of an audit, whose images are compared with millions: here it is one with few.
"""


def copy_scores(
    images: Sequence[Image.Image], exemplars: Sequence[Image.Image]
) -> tuple[float, ...]:
    """(images,) how much each looks like a copy of one of the exemplars, 0..1.

    Images are of one size. Exemplars are brought to it as they are for training: what a generator
    cannot draw, a finer line for one, does not speak against a copy.
    """
    if not images:
        return ()
    size = images[0].size
    known = [Edges.of(ImageOps.fit(one, size, Resampling.LANCZOS)) for one in exemplars]
    return tuple(max(copy_score(Edges.of(image), one) for one in known) for image in images)


def copy_score(one: Edges, other: Edges) -> float:
    """Either may show a part of the other: an exemplar drawn smaller is a copy, too."""
    found = [*compare(one, [other]), *compare(other, [one])]
    return max(score_of(agreement) for agreement in found)
