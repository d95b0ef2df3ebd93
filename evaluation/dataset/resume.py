"""What an interrupted build left: whether it is of the same plan, and which models are finished."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from evaluation.dataset.files import record_path
from evaluation.dataset.plan import ModelPlan

__all__ = ["captions_of", "difference", "read_record"]

_PARTS = {
    "generator": "generator",
    "settings": "settings",
    "versions": "versions of libraries",
    "captions": "prompts",
    "models": "exemplars, prior images or prompts",
}


def difference(before: str, now: str) -> str | None:
    """The first thing in which two texts of plans differ, in words; None where in nothing."""
    new = json.loads(now)
    try:
        old = json.loads(before)
        old = {**old}
    except (ValueError, TypeError):
        return "contents (its plan.json is damaged)"
    for name, words in _PARTS.items():
        if old.get(name) == new.get(name):
            continue
        if name == "models":
            return words
        was, is_now = _flat(old.get(name) or {}), _flat(new.get(name) or {})
        first = next(key for key in {**is_now, **was} if was.get(key) != is_now.get(key))
        return f"{words} ({first}: {was.get(first)}, now {is_now.get(first)})"
    return None


def captions_of(plan: str | None) -> dict[str, Any] | None:
    """What an endpoint wrote for the plan; None where there is no plan yet, and all is to be asked.

    {} for a plan that knows of none: nothing is asked for it any more.
    """
    if plan is None:
        return None
    try:
        found = json.loads(plan)["captions"]
    except (ValueError, TypeError, KeyError):
        return {}
    return found if isinstance(found, dict) else {}


def read_record(out: Path, model: ModelPlan) -> dict[str, Any] | None:
    """The record of a model that is finished and whose images are all there; else None."""
    try:
        record: dict[str, Any] = json.loads(record_path(out, model.id).read_text("utf-8"))
        whole = record["prompts"] and all((out / path).is_file() for path in record["images"])
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return record if whole else None


def _flat(values: object, above: str = "") -> dict[str, object]:
    """Nested settings by dotted name."""
    if not isinstance(values, dict):
        return {above: values}
    return {
        name: value
        for key, part in values.items()
        for name, value in _flat(part, f"{above}.{key}" if above else str(key)).items()
    }
