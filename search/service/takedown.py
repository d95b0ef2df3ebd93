"""What ``DELETE /v1/images`` asks for."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from search.index import INDEXED_FIELDS
from search.service.problems import Problem
from search.service.request_bodies import MAX_VALUES

__all__ = ["Takedown", "read_takedown"]


@dataclass(frozen=True)
class Takedown:
    """Training images of one of the keys, or that fit the filter."""

    keys: list[str]
    where: dict[str, list[str]]
    dry_run: bool


def read_takedown(body: dict[str, Any]) -> Takedown:
    """The request's JSON object, checked.

    Raises:
        Problem: it names nothing, or in another form.
    """
    unknown = sorted(body.keys() - {"keys", "where", "dry_run"})
    if unknown:  # a misspelt filter must not take down more than was meant
        raise _wrong(f"{', '.join(unknown)[:200]}: only keys, where and dry_run are known")
    keys = _texts(body.get("keys", []), "keys")
    given = body.get("where", {})
    if not isinstance(given, dict):
        raise _wrong("where must be an object of fields and lists of values")
    where = {field: _texts(values, f"where.{field}"[:100]) for field, values in given.items()}
    for field, values in where.items():
        if field not in INDEXED_FIELDS or not values:
            known = ", ".join(INDEXED_FIELDS)
            raise _wrong(f"where takes these fields, with at least one value: {known}")
    dry_run = body.get("dry_run", False)
    if not isinstance(dry_run, bool):
        raise _wrong("dry_run must be true or false")
    if not keys and not where:
        raise _wrong("say what to delete: keys or where")
    return Takedown(keys, where, dry_run)


def _texts(values: object, name: str) -> list[str]:
    if not isinstance(values, list) or len(values) > MAX_VALUES:
        raise _wrong(f"{name} must be a list of up to {MAX_VALUES:,} texts")
    texts = []
    for value in values:
        try:
            texts.append(str(value.encode(), "utf-8"))
        except (AttributeError, UnicodeEncodeError) as exc:
            raise _wrong(f"{name} must be a list of texts") from exc
    return texts


def _wrong(detail: str) -> Problem:
    return Problem(422, "wrong-call", detail)
