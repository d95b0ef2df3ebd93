"""What an audit is asked to do."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from ingest.decode import DecodeLimits
from ingest.errors import EmptyQueryError, UsageError
from search.audit.flags import Thresholds
from search.audit.payload_fields import name_in_tables

__all__ = ["DEFAULT_BY", "AuditSettings"]

DEFAULT_BY = ("creator", "licence", "dataset")

_IN_INDEX = {"training_key": "key"}


@dataclass(frozen=True)
class AuditSettings:
    """Settings of an audit; all but the number of threads decide what comes out.

    Attributes:
        k: training images of a generated image at most.
        mass: the lines of a generated image end once they carry this share of the influence.
        by: fields that influence is summed by: any that the training images' payloads have.
        without: training images that are left out, as if they were not in the collection.
        exact: compare with every training image.
        copy_model: backbone that near-copies are looked for with; '' for the score of edges.
        precision: that the backbone is asked to work at, see `embed.embedder.Embedder`.
        thresholds: of the flags.
        part_size: images of a part; what is lost at most when the process is killed.
        batch_size: images embedded, attributed and written at once.
        decode_threads: readers and decoders; as many as there are cores, unless given.
        limits: what an image may be.
    """

    k: int = 1000
    mass: float = 0.99
    by: tuple[str, ...] = DEFAULT_BY
    without: Mapping[str, Sequence[str]] = field(default_factory=dict)
    exact: bool = False
    copy_model: str = ""
    precision: str = "auto"
    thresholds: Thresholds = field(default_factory=Thresholds)
    part_size: int = 256
    batch_size: int = 32
    decode_threads: int = field(default_factory=lambda: os.cpu_count() or 1)
    limits: DecodeLimits = field(default_factory=DecodeLimits)

    def check(self) -> None:
        """Refuse what cannot be meant, before anything is read.

        Raises:
            EmptyQueryError: `k` below 1.
            UsageError: a `mass` outside 0..1, or a field without a name.
        """
        if self.k < 1:
            raise EmptyQueryError(f"k must be at least 1, not {self.k}")
        if not 0 < self.mass <= 1:
            raise UsageError(f"mass must be above 0 and at most 1, not {self.mass:g}")
        if not all(name.strip() for name in (*self.by, *self.without)):
            raise UsageError("a field without a name: there is nothing to sum or leave out by")

    def with_names_of_tables(self) -> AuditSettings:
        """The same with each field under one name: `by` as the table of attributions has it,
        `without` as the index has it. Either name will do in both."""
        without: dict[str, list[str]] = {}
        for name, values in self.without.items():
            without.setdefault(_IN_INDEX.get(name, name), []).extend(values)
        by = dict.fromkeys(name_in_tables(name) for name in self.by)
        return replace(self, by=tuple(by), without=without)

    def record(self) -> dict[str, Any]:
        """What decides the outcome, as JSON values, for the summary."""
        return {
            "k": self.k,
            "mass": self.mass,
            "by": list(self.by),
            "without": {name: sorted(values) for name, values in sorted(self.without.items())},
            "exact": self.exact,
            "copy_model": self.copy_model,
            "precision": self.precision,
            "thresholds": asdict(self.thresholds),
            "part_size": self.part_size,
            "batch_size": self.batch_size,
            "max_pixels": self.limits.max_pixels,
            "max_bytes": self.limits.max_bytes,
        }
