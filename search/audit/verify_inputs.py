"""Whether the gallery of an audit is still the one that was audited, to the last image."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ingest.decode import DecodeLimits, decode
from ingest.errors import ImageError, RejectReason, SourceError
from ingest.record import ImageRecord, Reject
from ingest.source import UrlListSource
from search.audit.check import Check, counted_images
from search.audit.finished import image_batches, read_table
from search.audit.gallery import Part
from search.audit.inputs import metadata_text
from search.audit.tables import IMAGES, REJECTS, SUMMARY
from search.audit.verify_gallery import GalleryAgain, records_of

if TYPE_CHECKING:
    from search.ingestion import Progress

__all__ = ["Inputs", "check_inputs", "compare_inputs"]

_NAMED = 20  # images that are named of those that are not what they were
_KINDS = ("changed", "gone", "new")


@dataclass(frozen=True, slots=True)
class _Then:
    """An image as it was audited: where in the order, and what was read, as hashes."""

    place: int
    sha256: str
    told: bytes


@dataclass
class Inputs:
    """How a gallery differs from the one that was audited.

    Attributes:
        lines: what there is to say of the first that do, as in ``gone: a.png``.
        counts: of images that are changed, gone or new.
        not_read: images of lists of URLs, of which the list alone was looked at.
        moved: the images are in another order.
        images, rejected: of the audit.
    """

    images: int
    rejected: int
    lines: list[str] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)
    not_read: int = 0
    moved: bool = False

    def add(self, kind: str, what: str) -> None:
        """Note an image."""
        self.counts[kind] += 1
        if len(self.lines) < _NAMED:
            self.lines.append(f"{kind}: {what}")

    @property
    def differs(self) -> bool:
        """Whether anything does."""
        return self.moved or bool(self.counts)


def check_inputs(
    out: Path,
    summary: Mapping[str, Any],
    inputs_sha256: str,
    gallery: GalleryAgain | None,
    why_not: str,
    progress: Progress | None = None,
) -> Check:
    """The check of what an audit says of its inputs.

    Args:
        out: the audit's folder.
        summary: of the audit.
        inputs_sha256: as its tables give it.
        gallery: to be read from its first to its last image; None where it is not.
        why_not: it is not, for people.
        progress: shown while it is read.

    Raises:
        RunError: the gallery cannot be read.
    """
    told = summary.get("gallery")
    if not isinstance(told, Mapping) or told.get("inputs_sha256") != inputs_sha256:
        words = f"inputs_sha256 of {SUMMARY} does not follow from {IMAGES} and {REJECTS}"
        return Check("inputs", "fails", words)
    if gallery is None:
        words = f"inputs_sha256 follows from the tables, but the gallery was not read: {why_not}"
        return Check("inputs", "not checked", words)
    found = compare_inputs(out, gallery, progress)
    if not found.differs and not found.not_read:
        words = (
            f"the gallery's {counted_images(found.images)}, and {found.rejected:,} rejected, are "
            "as they were: files, prompts, metadata and order give inputs_sha256"
        )
        return Check("inputs", "holds", words)
    said = [f"{found.counts[kind]:,} {kind}" for kind in _KINDS if found.counts[kind]]
    if found.moved:
        said.append("in another order" if not said else "others in another order")
    words = f"the gallery is not what it was: {', '.join(said)}" if said else ""
    if found.not_read:
        not_read = f"{counted_images(found.not_read)} of lists of URLs not downloaded again"
        words += f"; {not_read}" if words else not_read
    more = sum(found.counts.values()) - len(found.lines)
    lines = [*found.lines, *([f"and {more:,} more"] if more else [])]
    return Check("inputs", "not checked", words, tuple(lines))


def compare_inputs(out: Path, gallery: GalleryAgain, progress: Progress | None = None) -> Inputs:
    """Read a gallery and compare it with an audit's tables. Memory: some 750 bytes an image.

    Raises:
        RunError: the gallery or a table cannot be read.
    """
    then: dict[str, _Then] = {}
    for batch in image_batches(out, images=["sha256", "prompt", "metadata"], lines=[]):
        for line in batch.images.to_pylist():
            then[line["image"]] = _Then(
                len(then), line["sha256"], _told(line["prompt"], line["metadata"])
            )
    rejects: dict[str, list[str]] = {}
    for line in read_table(out, REJECTS, ["image", "reason"]).to_pylist():
        rejects.setdefault(line["image"], []).append(line["reason"])
    comparison = _Comparison(then, rejects, gallery)
    if progress is not None:
        progress.start(comparison.expected)
    for seen in comparison.parts():
        if progress is not None:
            progress.advance(seen)
    return comparison.finish()


class _Comparison:
    def __init__(
        self, then: dict[str, _Then], rejects: dict[str, list[str]], gallery: GalleryAgain
    ) -> None:
        self._then = then
        self._rejects = rejects
        self._gallery = gallery
        self._seen: set[str] = set()
        self._last = -1
        self._found = Inputs(len(then), sum(map(len, rejects.values())))

    @property
    def expected(self) -> int:
        """Images there were, rejected ones among them."""
        return self._found.images + self._found.rejected

    def parts(self) -> Iterator[int]:
        """Look at the gallery; how many images more were, every now and then."""
        for part in self._gallery.parts():
            if isinstance(part.work.source, UrlListSource):
                yield self._list(part)
                continue
            try:
                for key, record in records_of(part, part.work.items or ()):
                    self._record(key, record)
                    yield 1
            except SourceError as exc:
                self._cut_off(part, str(exc))

    def finish(self) -> Inputs:
        """What came of it, with what was not there."""
        for key in self._then:
            if key not in self._seen:
                self._found.add("gone", key)
        for key, reasons in self._rejects.items():
            for reason in reasons:
                self._found.add("gone", f"{key} (rejected then: {reason})")
        return self._found

    def _record(self, key: str, record: ImageRecord | Reject) -> None:
        then = self._then.get(key)
        if then is None:
            self._rejected(key, record)
        elif key in self._seen:
            if not self._take(key, RejectReason.DUPLICATE_KEY):
                self._found.add("new", f"{key} (once more)")
        elif isinstance(record, Reject):
            self._seen.add(key)
            self._found.add("gone", f"{key} ({record.reason.value})")
        else:
            self._seen.add(key)
            self._in_order(then)
            if hashlib.sha256(record.data).hexdigest() != then.sha256:
                self._found.add("changed", f"{key} (another file)")
            elif _told(record.caption, metadata_text(record)) != then.told:
                self._found.add("changed", f"{key} (another prompt or other metadata)")

    def _rejected(self, key: str, record: ImageRecord | Reject) -> None:
        """An image that was rejected, or was not there."""
        if key not in self._rejects:
            self._found.add("new", key)
            return
        if isinstance(record, Reject):
            reason: RejectReason | None = record.reason
        else:
            reason = _why_not(record.data, self._gallery.limits)
        if reason is not None and self._take(key, reason):
            return
        then = self._rejects[key].pop(0)
        if not self._rejects[key]:
            del self._rejects[key]
        now = reason.value if reason is not None else "usable now"
        self._found.add("changed", f"{key} (rejected then: {then}; {now})")

    def _take(self, key: str, reason: RejectReason) -> bool:
        """Whether such a reject is still to come; it is not any more after this."""
        left = self._rejects.get(key, [])
        if reason.value not in left:
            return False
        left.remove(reason.value)
        if not left:
            del self._rejects[key]
        return True

    def _list(self, part: Part) -> int:
        items = part.work.items or ()
        for item in items:
            key = part.source.key(item.key)
            then = self._then.get(key)
            if then is None and key not in self._rejects and key not in self._seen:
                self._found.add("new", key)
                continue
            if then is not None and key not in self._seen:
                self._in_order(then)
                self._found.not_read += 1
            self._seen.add(key)
            self._rejects.pop(key, None)
        return len(items)

    def _cut_off(self, part: Part, why: str) -> None:
        if not self._take(part.source.label, RejectReason.SOURCE_CUT_OFF):
            self._found.add("changed", why)

    def _in_order(self, then: _Then) -> None:
        self._found.moved |= then.place < self._last
        self._last = then.place


def _told(prompt: str, metadata: str) -> bytes:
    return hashlib.sha256(f"{prompt}\0{metadata}".encode()).digest()


def _why_not(data: bytes, limits: DecodeLimits) -> RejectReason | None:
    try:
        decode(data, limits)
    except ImageError as exc:
        return exc.reason
    return None
