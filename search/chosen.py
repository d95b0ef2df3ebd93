"""Which points a call is about: those that match one filter and do not match another."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from ingest.errors import UsageError
from search.checks import check_fields
from search.index import Payload, Where

__all__ = ["EVERYTHING", "Chosen", "check_chosen", "filter_in_words", "matches"]


@dataclass(frozen=True)
class Chosen:
    """A pair of checked filters, as plain values.

    Attributes:
        where: every point must match it; empty: no restriction.
        without: no point may match it; empty: nothing is left out.
    """

    where: dict[str, list[str]] = field(default_factory=dict)
    without: dict[str, list[str]] = field(default_factory=dict)

    def __bool__(self) -> bool:
        """Whether it restricts anything."""
        return bool(self.where or self.without)

    @property
    def is_nothing(self) -> bool:
        """Whether a field may have no value at all: then no point can match."""
        return not all(self.where.values())


EVERYTHING = Chosen()


def check_chosen(where: Where | None, without: Where | None = None) -> Chosen:
    """The two filters as plain values.

    Raises:
        UsageError: a field that has no index, or values that are no list of texts.
    """
    left_out = _checked(without)
    # A field that may have no value matches no point: nothing is left out then.
    return Chosen(_checked(where), left_out if all(left_out.values()) else {})


def matches(payload: Payload, where: Where) -> bool:
    """Whether every field of `where` has one of its values, as an index decides it."""
    return all(_has(payload.get(name), values) for name, values in where.items())


def filter_in_words(where: Where) -> str:
    """``creator=Ann or creator=Bob, and licence=cc0``."""
    return ", and ".join(
        " or ".join(f"{name}={value}" for value in values) for name, values in where.items()
    )


def _has(value: object, values: Sequence[str]) -> bool:
    if isinstance(value, list):
        return any(one in values for one in value)
    return value in values


def _checked(where: Where | None) -> dict[str, list[str]]:
    if not where:
        return {}
    check_fields(list(where))
    condition = {}
    for name, values in where.items():
        if isinstance(values, str) or not all(isinstance(value, str) for value in values):
            raise UsageError(f"the filter on {name} must be a list of texts")
        condition[name] = list(values)
    return condition
