"""Near-copies and duplicates of an audit's sample, looked for again in the pictures."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from math import fsum
from typing import TYPE_CHECKING, Any

from PIL import Image

from ingest.decode import Decoded
from ingest.thumbnail import make_thumbnail
from search.answer import Attribution, Owner, Row
from search.audit.duplicates import alike
from search.audit.near_copy import Found, NearCopy
from search.audit.settings import AuditSettings
from search.records import OWNER_FIELDS

if TYPE_CHECKING:
    from search.audit.verify_tables import Sampled

__all__ = ["COPY_TOLERANCE", "Copies", "looks_of", "other_copy", "wrong_duplicates"]

COPY_TOLERANCE = 0.02
"""By which a score may differ: thumbnails drawn by other versions of libraries differ a little."""

_BITS = 2  # of a fingerprint's hash, for the same reason


class Copies:
    """Looks for near-copies again, among the training images that the audit has.

    Args:
        settings: of the audit.
        thumbnails: image files of training images by their ids; None where there is none.

    Raises:
        AttribError: as `search.audit.near_copy.NearCopy`.
    """

    def __init__(
        self,
        settings: AuditSettings,
        thumbnails: Callable[[Sequence[str]], Sequence[bytes | None]],
    ) -> None:
        self._near_copy = NearCopy(settings, thumbnails)

    def of(
        self, pictures: Sequence[Image.Image], then: Sequence[Sampled], now: Sequence[Attribution]
    ) -> list[Found]:
        """What is found of images.

        Similarities are the audit's own: by them it chose what to look at, and on another device
        they differ a little.
        """
        answers = [
            replace(answer, rows=_rows(each)) for each, answer in zip(then, now, strict=True)
        ]
        return self._near_copy.check_many(pictures, answers)


def looks_of(decoded: Decoded, data: bytes) -> Image.Image:
    """The thumbnail by which an audit looks at an image."""
    thumbnail = make_thumbnail(decoded.image, data, decoded.format)
    return Image.open(io.BytesIO(thumbnail)).convert("RGB")


def other_copy(then: Sampled, now: Found, least: float | None) -> str:
    """How an image is another near-copy than the audit says; '' where it is not."""
    score, copied = then.image["copy_score"], then.image["copy_of"]
    if now.score is None:
        return ""  # the training images' pictures are not there any more
    told = "none" if score is None else f"{score:.4g}"
    if score is None or not abs(score - now.score) <= COPY_TOLERANCE:
        return f"its copy_score is {now.score:.4g}, and {told} in the audit"
    near = least is not None and abs(now.score - least) <= COPY_TOLERANCE
    if copied != now.training_id and not near:
        return f"it copies {now.training_id or 'none'}, and {copied or 'none'} in the audit"
    return ""


def wrong_duplicates(
    sample: Sequence[Sampled], looks: Mapping[str, bytes], distance: float
) -> dict[str, str]:
    """By image, why it is, or is not, a duplicate of another.

    Args:
        sample: in order of the gallery.
        looks: fingerprints by image; those that the sample is called duplicates of among them.
        distance: as `alike`.
    """
    wrong: dict[str, str] = {}
    firsts: list[str] = []
    for each in sample:
        name, first = each.image["image"], each.image["duplicate_of"]
        if name not in looks:
            continue
        if not first:
            near = distance - _BITS
            found = next((one for one in firsts if alike(looks[one], looks[name], near)), "")
            if found:
                wrong[name] = f"it looks like {found}, and is not called a duplicate"
            firsts.append(name)
        elif first in looks and not alike(looks[first], looks[name], distance + _BITS):
            wrong[name] = f"it does not look like {first}, which it is called a duplicate of"
    return wrong


def _rows(then: Sampled) -> tuple[Row, ...]:
    by_rank: dict[int, list[Mapping[str, Any]]] = {}
    for line in then.lines:
        by_rank.setdefault(line["rank"], []).append(line)
    return tuple(_row(rank, lines) for rank, lines in by_rank.items())


def _row(rank: int, lines: Sequence[Mapping[str, Any]]) -> Row:
    first = lines[0]

    def summed(column: str) -> float:
        return fsum(line[column] for line in lines)

    return Row(
        rank=rank,
        similarity=first["similarity"],
        influence=summed("influence"),
        interval=(summed("influence_low"), summed("influence_high")),
        owners=tuple(
            Owner(line["training_id"], line["training_key"], *(line[name] for name in OWNER_FIELDS))
            for line in lines
        ),
        sha256=first["sha256"],
    )
