"""Comparing values of an audit with what they should be: where they differ first."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import isclose

__all__ = ["ANY_COUNT", "ROUNDING", "Difference", "first_difference", "same_value", "short"]

ROUNDING = 1e-9
"""How far sums may be from what they should be."""

ANY_COUNT = (1 << 52) + 1
"""Stands, among values that should be, for a count or a number of a picture: -1 or more."""

_MOST = 60  # characters of a value that is told


@dataclass(frozen=True)
class Difference:
    """A value that is not what it should be.

    Attributes:
        path: where, as in ``totals.flags.near-copy``.
        told, due: the value as it stands there, and as it should be, for people.
        lacks, extra: there is no such value; there should be none.
    """

    path: str
    told: str
    due: str
    lacks: bool = False
    extra: bool = False

    def words(self, due: str = "the tables give") -> str:
        """A clause, as in ``its totals.images is 41, and the tables give 40``."""
        if self.lacks:
            return f"it has no {self.path}"
        if self.extra:
            return f"it has {self.path}, which is not to be there"
        return f"its {self.path} is {self.told}, and {due} {self.due}"


def first_difference(
    told: object, due: object, path: str = "", rounding: float = ROUNDING
) -> Difference | None:
    """Where JSON values differ first, in order of those that should be.

    Args:
        told: as they stand in the audit.
        due: as they should be; lists may be tuples.
        path: of the values.
        rounding: by which numbers may differ.
    """
    if told == due:
        return None  # most are, and this is quick
    if isinstance(due, Mapping):
        if not isinstance(told, Mapping):
            return Difference(path, short(told), short(due))
        for name, value in due.items():
            inside = f"{path}.{name}" if path else str(name)
            if name not in told:
                return Difference(inside, "", short(value), lacks=True)
            if found := first_difference(told[name], value, inside, rounding):
                return found
        for name in told:
            if name not in due:
                inside = f"{path}.{name}" if path else str(name)
                return Difference(inside, short(told[name]), "", extra=True)
        return None
    if isinstance(due, Sequence) and not isinstance(due, str):
        if not isinstance(told, Sequence) or isinstance(told, str) or len(told) != len(due):
            return Difference(path, short(told), short(due))
        for place, (one, other) in enumerate(zip(told, due, strict=True)):
            if found := first_difference(one, other, f"{path}[{place}]", rounding):
                return found
        return None
    return None if same_value(told, due, rounding) else Difference(path, short(told), short(due))


def same_value(one: object, other: object, rounding: float = ROUNDING) -> bool:
    """Equal, numbers but for rounding; `other` may be `ANY_COUNT`."""
    if isinstance(other, int) and other == ANY_COUNT:
        return isinstance(one, int) and one >= -1
    if isinstance(one, int | float) and isinstance(other, int | float):
        if isinstance(one, float) or isinstance(other, float):
            return isclose(one, other, rel_tol=rounding, abs_tol=rounding)
        return one == other
    return one == other


def short(value: object) -> str:
    """A value for people, its beginning where it is long."""
    if isinstance(value, str):
        return repr(value if len(value) <= _MOST else value[: _MOST - 1] + "…")
    if isinstance(value, float | int) or value is None:
        text = str(value)
    else:
        text = json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= _MOST else text[: _MOST - 1] + "…"
