"""The rows of the ledger, as they go in and come out."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Entry", "Known", "PartRow", "Removal", "ShardRow", "TarRow"]


@dataclass(frozen=True, slots=True)
class Known:
    """What the ledger knows of a key."""

    origin: str
    signature: str
    shard: int
    usable: bool


@dataclass(frozen=True, slots=True)
class Entry:
    """One image of a finished shard; `usable` is False for one that was rejected."""

    key: str
    origin: str
    signature: str
    usable: bool


@dataclass(frozen=True, slots=True)
class TarRow:
    """A tar that a shard was made of; keys of its images begin with its stem."""

    path: str
    signature: str
    stem: str


@dataclass(frozen=True, slots=True)
class Removal:
    """A row that must leave a feature shard, and (where `from_index`) a point the index."""

    dataset: str
    key: str
    shard: int
    from_index: bool


@dataclass(frozen=True, slots=True)
class ShardRow:
    """A finished shard: counts of images, as ingested."""

    number: int
    dataset: str
    source: str
    images: int
    rejected: int


@dataclass(frozen=True, slots=True)
class PartRow:
    """Rows ``start`` to ``stop`` (exclusive) of a feature file, which a shard was made of.

    The signature of the entry of row i is ``f"{signature}#{i}"``, that of a reject's path
    ``f"{path}#{i}"``: a row is told from others of the same key by its place.
    """

    path: str
    signature: str
    start: int
    stop: int

    @property
    def name(self) -> str:
        """Under which the ledger keeps it."""
        return f"{self.path}#{self.start}"

    @property
    def version(self) -> str:
        """What the ledger compares to know whether these rows are in already."""
        return f"{self.signature} {self.start}-{self.stop}"
