"""What an interrupted build left: whether it is of the same plan, and which models are finished."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from evaluation.dataset.files import MANIFEST, base_paths, record_path, synth_paths
from evaluation.dataset.plan import ModelPlan

__all__ = ["captions_of", "difference", "is_whole", "listed_files", "read_record"]

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


def is_whole(out: Path, model: ModelPlan, kind: str, listed: Mapping[str, str]) -> bool:
    """Whether a model is made as it is planned, and nothing of it has changed since.

    Args:
        out: the dataset's folder.
        model: of its plan.
        kind: of the dataset.
        listed: the files of its manifest with their hashes, where it was finished once.
    """
    record = read_record(out, model)
    if record is None:
        return False
    planned = {**json.loads(json.dumps(asdict(model))), "prompts": _prompts(model, kind)}
    path = record_path(out, model.id)
    name = path.relative_to(out).as_posix()
    made = planned["prompts"].keys()
    try:
        return (
            listed.get(name) in (None, _sha256(path))
            and all(record[key] == value for key, value in planned.items())
            and record["images"].keys() >= made | set(base_paths(model, kind))
            and all(_sha256(out / image) == digest for image, digest in record["images"].items())
        )
    except (OSError, KeyError, TypeError, AttributeError):
        return False


def listed_files(out: Path) -> dict[str, str]:
    """The files of a manifest with their hashes; none where it is not there, or damaged."""
    try:
        files = json.loads((out / MANIFEST).read_text("utf-8"))["files"]
        return {str(name): str(digest) for name, digest in files.items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return {}


def _prompts(model: ModelPlan, kind: str) -> dict[str, str]:
    """As a record has them: the text of each image."""
    return {
        path: prompt.text
        for name, paths in synth_paths(model, kind).items()
        for path, prompt in zip(paths, (p for p in model.prompts if p.kind == name), strict=True)
    }


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _flat(values: object, above: str = "") -> dict[str, object]:
    """Nested settings by dotted name."""
    if not isinstance(values, dict):
        return {above: values}
    return {
        name: value
        for key, part in values.items()
        for name, value in _flat(part, f"{above}.{key}" if above else str(key)).items()
    }
