"""Influence summed by a payload field, over every record of a support."""

from __future__ import annotations

from collections.abc import Mapping
from math import fsum

from search.answer import Group
from search.calibration import Normaliser
from search.chosen import matches
from search.index import Payload, Where
from search.rows import share_of
from search.support import Support

__all__ = ["groups_of"]


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
