"""Influence summed by a payload field, over every record of a support."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from math import fsum

from ingest.errors import UsageError
from search.answer import Group
from search.calibration import Normaliser
from search.chosen import matches
from search.index import Index, Payload, Where
from search.rows import share_of
from search.support import Support

__all__ = ["check_field", "groups_of"]


_OF_ALL = frozenset(
    ("key", "dataset", "path", "url", "caption", "creator", "licence", "width", "height", "sha256")
)
_LOOKED_AT = 1000


def check_field(index: Index, payloads: Collection[Payload], group_by: str) -> None:
    """That a field to group by is not a misspelt one.

    Training images may have any fields. It is refused where none that has influence has it, and
    none of a thousand others.

    Args:
        index: the others.
        payloads: of the images that have influence.
        group_by: the field.

    Raises:
        UsageError: nobody has it.
        IndexFailedError: the engine failed.
    """
    if group_by in _OF_ALL or any(payload.get(group_by) is not None for payload in payloads):
        return
    ids = next(index.scroll(batch=_LOOKED_AT), [])
    others = [payload for payload in index.fetch(ids) if payload is not None]
    if any(group_by in payload for payload in others):
        return
    known = sorted({field for payload in others for field in payload} | _OF_ALL)
    raise UsageError(
        f"cannot group by {group_by!r}: no training image has it; they have {', '.join(known)}"
    )


def groups_of(
    source: Support,
    payloads: Mapping[int, Payload],
    group_by: str,
    where: Where,
    total: Normaliser,
) -> tuple[Group, ...]:
    """One group a value, the most influential first; records that do not match do not count.

    Args:
        source: the support.
        payloads: of every hit, by position.
        group_by: the field.
        where: which records count.
        total: Z.
    """
    members: dict[str, list[float]] = {}
    for place, weight in enumerate(source.weights.tolist()):
        payload = payloads[place]
        if where and not matches(payload, where):
            continue
        value = payload.get(group_by)
        members.setdefault("" if value is None else str(value), []).append(weight)
    groups = []
    for value, group_weights in members.items():
        weight = fsum(group_weights)
        groups.append(
            Group(value, weight / total.value, share_of(weight, total), len(group_weights))
        )
    return tuple(sorted(groups, key=lambda group: (-group.influence, group.value)))
