"""Attributing some images of an audit again, to see whether the index still says the same."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from math import fsum
from typing import TYPE_CHECKING, Any

from PIL import Image

from ingest.decode import DecodeLimits, decode
from ingest.errors import ImageError, RunError
from ingest.record import ImageRecord, Reject
from ingest.source import TarSource, UrlListSource, open_sources
from search.answer import Attribution
from search.audit.gallery import Gallery, Named
from search.audit.shares import lines_of
from search.audit.tables import SUMMARY
from search.audit.verify_tables import Sampled

if TYPE_CHECKING:
    from search.collection import Collection

__all__ = ["SAMPLE_TOLERANCE", "Compared", "compare", "distance", "why_other"]

SAMPLE_TOLERANCE = 0.01
"""Influence that may have moved, of 1. The same image at another place of a batch, or on another
machine, has features that differ by their rounding (half precision); see docs/audit-proof.md."""

_BATCH = 32


@dataclass(frozen=True)
class Compared:
    """What came of attributing a sample again.

    Attributes:
        same: images whose influence moved by no more than `SAMPLE_TOLERANCE`.
        moved: the other ones, with how much did.
        largest: most that moved of any image.
        unread: images that could not be read or are others now, with why.
    """

    same: int
    moved: Mapping[str, float]
    largest: float
    unread: Mapping[str, str]


def why_other(summary: Mapping[str, Any], facts: Mapping[str, Any]) -> str:
    """Why a collection cannot give the answers of an audit; '' where it should.

    Args:
        summary: of the audit.
        facts: `Collection.facts`.
    """
    model, collection = summary["model"], summary["collection"]
    if model["feature_fingerprint"] != facts["feature_fingerprint"]:
        return (
            f"the audit was made with model {model['name']} ({model['feature_fingerprint']}), and "
            f"the data folder has {facts['model']} ({facts['feature_fingerprint']})"
        )
    if model["fingerprint"] != facts["fingerprint"]:
        told, now = summary["calibrator"], facts["calibrator"]
        return (
            f"the data folder was calibrated anew since: tau {told['tau']:g}, b {told['b']:g} "
            f"then, tau {now['tau']:g}, b {now['b']:g} now"
        )
    if collection["images"] != facts["images"]:
        return (
            f"the collection changed since: {collection['images']:,} training images then, "
            f"{facts['images']:,} now"
        )
    return ""


def compare(
    sample: Sequence[Sampled],
    summary: Mapping[str, Any],
    collection: Collection,
    gallery: Sequence[str],
) -> Compared:
    """Read the images of a sample again, attribute them with the audit's settings, and compare.

    Raises:
        RunError: the gallery cannot be read, or the backbone or the index fails.
    """
    asked, limits = _settings(summary)
    wanted = {each.image["image"]: each for each in sample}
    unread = dict.fromkeys(wanted, "it is not in the gallery")
    found: dict[str, float] = {}
    waiting: dict[str, Image.Image] = {}

    def attribute() -> None:
        names = list(waiting)
        answers = collection.attribute(
            collection.features(list(waiting.values())),
            names,
            **asked,
        )
        for name, answer in zip(names, answers, strict=True):
            found[name] = distance(wanted[name], answer)
        waiting.clear()

    for key, record in _records(gallery, wanted, limits.max_bytes):
        if key not in unread:
            continue
        read = _image(record, str(wanted[key].image["sha256"]), limits)
        if isinstance(read, str):
            unread[key] = read
            continue
        del unread[key]
        waiting[key] = read
        if len(waiting) == _BATCH:
            attribute()
    if waiting:
        attribute()
    moved = {name: far for name, far in found.items() if far > SAMPLE_TOLERANCE}
    return Compared(
        same=len(found) - len(moved),
        moved=moved,
        largest=max(found.values(), default=0.0),
        unread=unread,
    )


def distance(then: Sampled, now: Attribution) -> float:
    """Total variation distance of two attributions of an image: the influence that moved, 0..1."""
    influence: dict[str, float] = {"": then.image["remaining"] - now.remaining}
    for line in then.lines:
        influence[line["training_id"]] = line["influence"]
    for line in lines_of("", now):
        name = line["training_id"]
        influence[name] = influence.get(name, 0.0) - line["influence"]
    return fsum(abs(change) for change in influence.values()) / 2


def _settings(summary: Mapping[str, Any]) -> tuple[dict[str, Any], DecodeLimits]:
    """What the audit asked of each image, and what an image could be."""
    try:
        settings = summary["settings"]
        asked = {
            "k": int(settings["k"]),
            "mass": float(settings["mass"]),
            "without": {name: list(values) for name, values in settings["without"].items()} or None,
            "exact": bool(settings["exact"]),
        }
        limits = {name: int(settings[name]) for name in ("max_bytes", "max_pixels")}
    except (KeyError, TypeError, ValueError, AttributeError) as exc:
        raise RunError(f"{SUMMARY} does not tell the settings of the audit") from exc
    return asked, DecodeLimits(**limits)


def _records(
    gallery: Sequence[str], wanted: Mapping[str, Sampled], max_bytes: int
) -> Iterator[tuple[str, ImageRecord | Reject]]:
    """The wanted images of a gallery, by the gallery's keys; the others are not read."""
    with ExitStack() as stack:
        opened = open_sources(list(gallery), max_bytes)
        for source in opened:
            if isinstance(source, UrlListSource):
                stack.callback(source.close)
        for part in Gallery(opened).parts():
            yield from _records_of(part.source, part.work.items, wanted)


def _records_of(
    named: Named, items: Sequence[Any] | None, wanted: Mapping[str, Sampled]
) -> Iterator[tuple[str, ImageRecord | Reject]]:
    source = named.source
    if isinstance(source, TarSource):
        for record in source.records():
            if (key := named.key(record.key)) in wanted:
                yield key, record
        return
    chosen = [item for item in items or () if named.key(item.key) in wanted]
    if isinstance(source, UrlListSource):
        for item, record in zip(chosen, source.records(tuple(chosen)), strict=True):
            yield named.key(item.key), record
        return
    for item in chosen:
        yield named.key(item.key), source.read(item)


def _image(record: ImageRecord | Reject, sha256: str, limits: DecodeLimits) -> Image.Image | str:
    """The decoded image, or why it is not the one that was audited."""
    if isinstance(record, Reject):
        return f"it cannot be read: {record.reason.value}"
    if hashlib.sha256(record.data).hexdigest() != sha256:
        return "its file changed since"
    try:
        return decode(record.data, limits).image
    except ImageError as exc:
        return f"it cannot be decoded: {exc}"
