"""Which images of a shard may stand: no key twice in a dataset, nothing that was taken down.

The ledger decides, and so shards have to be admitted one after another, in order of their numbers,
wherever they were embedded.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

from ingest.ledger import Entry, Ledger
from ingest.record import Reject
from search.plan import clash, is_another

__all__ = ["Admission", "Counts", "Identified", "Origin"]


@dataclass(frozen=True, slots=True)
class Origin:
    """Where an image came from and how it looked there, for the ledger."""

    path: str
    signature: str


class Identified(Protocol):
    """What admission has to know of an image; `embed.shards.ImageRow` is one."""

    @property
    def key(self) -> str:
        """Its name in the dataset."""
        ...

    @property
    def path(self) -> str:
        """Where it came from, for people."""
        ...

    @property
    def sha256(self) -> str:
        """Of its file."""
        ...


@dataclass
class Counts:
    """What was written so far; read by the main thread to show progress."""

    images: int = 0
    rejected: int = 0
    buried: int = 0
    shards: int = 0
    reasons: dict[str, int] = field(default_factory=dict)


class Admission:
    """Of one shard. Hand over its images and rejects in the order in which they came.

    Attributes:
        entries: for the ledger, so far.
        rejects: so far.
    """

    def __init__(
        self, ledger: Ledger, dataset: str, source: str, counts: Counts, buried: frozenset[str]
    ) -> None:
        """`buried`: of `Ledger.buried_bytes`."""
        self.entries: list[Entry] = []
        self.rejects: list[Reject] = []
        self._ledger = ledger
        self._dataset = dataset
        self._source = source
        self._counts = counts
        self._buried = buried
        self._keys: set[str] = set()

    def admit(self, images: Sequence[Identified], origins: Sequence[Origin]) -> list[int]:
        """Positions of the images that may stand; the others are counted as what they are."""
        keys = [image.key for image in images]
        known = self._ledger.known(self._dataset, keys)
        buried = self._ledger.buried(self._dataset, keys)
        kept = []
        for i, (image, origin) in enumerate(zip(images, origins, strict=True)):
            entry = known.get(image.key)
            if image.key in buried or (entry is None and image.sha256 in self._buried):
                self._counts.buried += 1
            elif image.key in self._keys:
                self.reject(clash(image.key, image.path, self._source), claimed_by=None)
            elif entry is not None and is_another(entry, origin.path):
                self.reject(clash(image.key, image.path, entry.origin), claimed_by=None)
            else:
                self._keys.add(image.key)
                self.entries.append(Entry(image.key, origin.path, origin.signature, True))
                kept.append(i)
        self._counts.images += len(kept)
        return kept

    def fail(self, reject: Reject, origin: Origin) -> None:
        """Take note of an image that cannot be used."""
        known = self._ledger.known(self._dataset, [reject.key]).get(reject.key)
        taken = reject.key in self._keys or is_another(known, origin.path)
        self.reject(reject, claimed_by=None if taken else origin)

    def reject(self, reject: Reject, *, claimed_by: Origin | None) -> None:
        """Keep a reject; with `claimed_by`, as what the ledger knows of its key from now on."""
        self.rejects.append(reject)
        if claimed_by is not None:
            self._keys.add(reject.key)
            self.entries.append(Entry(reject.key, claimed_by.path, claimed_by.signature, False))
        self._counts.rejected += 1
        reasons = self._counts.reasons
        reasons[reject.reason.value] = reasons.get(reject.reason.value, 0) + 1
