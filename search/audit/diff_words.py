"""What two audits are of, and how that differs, in words."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

__all__ = ["differences"]

_NO_MATTER = frozenset(["part_size", "batch_size", "without", "where"])


def differences(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[str]:
    """A sentence for each thing that differs between two summaries; one if nothing does.

    Gallery and model first, then the collection, the settings and the versions.
    """
    found = [
        *_gallery(_part(before, "gallery"), _part(after, "gallery")),
        *_model(before, after),
        *_collection(_part(before, "collection"), _part(after, "collection")),
        *_settings(_part(before, "settings"), _part(after, "settings")),
        *_versions(_part(before, "versions"), _part(after, "versions")),
    ]
    return found or ["gallery, model, collection, settings and versions are the same"]


def _gallery(before: Mapping[str, Any], after: Mapping[str, Any]) -> Iterator[str]:
    if before.get("inputs_sha256") == after.get("inputs_sha256"):
        return
    told = [f"{one.get('name')} with {_count(one.get('images'))} images" for one in (before, after)]
    yield f"gallery: {told[0]} before, {told[1]} after, not the same files, prompts or metadata"


def _model(before: Mapping[str, Any], after: Mapping[str, Any]) -> Iterator[str]:
    then, now = _part(before, "model"), _part(after, "model")
    if then.get("feature_fingerprint") != now.get("feature_fingerprint"):
        told = [f"{one.get('name')} ({one.get('feature_fingerprint')})" for one in (then, now)]
        yield f"model: {told[0]} before, {told[1]} after; similarities are not of one kind"
    then, now = _part(before, "calibrator"), _part(after, "calibrator")
    if then != now:
        told = [
            f"tau {one.get('tau')}, b {one.get('b')}, fitted on {one.get('fitted_on') or 'nothing'}"
            for one in (then, now)
        ]
        yield f"calibration: {told[0]} before; {told[1]} after"


def _collection(before: Mapping[str, Any], after: Mapping[str, Any]) -> Iterator[str]:
    if before.get("name") != after.get("name"):
        yield f"collection: {before.get('name')} before, {after.get('name')} after"
    if before.get("images") != after.get("images"):
        told = [_count(one.get("images")) for one in (before, after)]
        yield f"collection: {told[0]} training images before, {told[1]} after"
    then, now = _part(before, "index"), _part(after, "index")
    for name in sorted({*then, *now} - {"points", "indexed"}):
        if then.get(name) != now.get(name):
            yield f"index: {name} {_value(then.get(name))} before, {_value(now.get(name))} after"


def _settings(before: Mapping[str, Any], after: Mapping[str, Any]) -> Iterator[str]:
    for when, one, other in (("before", before, after), ("after", after, before)):
        left_out = _part(one, "without")
        if left_out and left_out != _part(other, "without"):
            who = ", ".join(f"{name}={value}" for name in left_out for value in left_out[name])
            yield f"{when}: as if the training images of {who} were not there"
    for name in sorted({*before, *after} - _NO_MATTER):
        if before.get(name) != after.get(name):
            told = [_value(one.get(name)) for one in (before, after)]
            yield f"settings: {name} {told[0]} before, {told[1]} after"


def _versions(before: Mapping[str, Any], after: Mapping[str, Any]) -> Iterator[str]:
    for name in sorted({*before, *after}):
        if before.get(name) != after.get(name):
            yield f"versions: {name} {before.get(name)} before, {after.get(name)} after"


def _part(summary: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    found = summary.get(name)
    return found if isinstance(found, Mapping) else {}


def _count(number: object) -> str:
    return f"{number:,}" if isinstance(number, int) else str(number)


def _value(value: object) -> str:
    if value is None:
        return "none"
    return value if isinstance(value, str) and value else json.dumps(value, ensure_ascii=False)
