"""summary.json: what was audited and with what, and what it came to, for programs."""

from __future__ import annotations

import hashlib
import json
import platform
from array import array
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ingest.errors import RejectReason
from search.audit.flags import FLAGS, flags_in_words
from search.audit.settings import AuditSettings
from search.audit.tables import SCHEMA, SUMMARY

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["Totals", "limits_in_words", "package_versions", "summary_record", "write_summary"]

_INDEX = ("backend", "dim", "quantization", "ef", "m", "ef_construct", "oversampling", "datatype")
_PACKAGES = ("attrib", "numpy", "pillow", "pyarrow", "qdrant-client", "qdrant-edge-py", "torch")


class Totals:
    """Sums over a gallery, fed a batch at a time in its order. Memory: 24 bytes an image.

    Attributes:
        images: usable ones.
        rejected: images that could not be used, by reason.
    """

    def __init__(self) -> None:
        self.images = 0
        self.rejected: Counter[str] = Counter()
        self._rows = 0
        self._methods: Counter[str] = Counter()
        self._flags: Counter[str] = Counter()
        self._numbers = {
            name: array("d") for name in ("remaining", "effective_sources", "top_influence")
        }
        self._inputs = hashlib.sha256()
        self._repeated = hashlib.sha256()

    def add(self, attributions: pa.Table, images: pa.Table) -> None:
        """The next images, and their lines."""
        self.images += images.num_rows
        self._rows += attributions.num_rows
        self._methods.update(images.column("method").to_pylist())
        self._flags.update(name for names in images.column("flags").to_pylist() for name in names)
        for name, kept in self._numbers.items():
            kept.extend(images.column(name).to_pylist())
        for values in _rows(images, ("image", "sha256", "prompt", "metadata")):
            self._inputs.update(values)

    def reject(self, rejects: pa.Table) -> None:
        """Some rejects. All but those of keys that came twice must come before the images."""
        reasons = rejects.column("reason").to_pylist()
        self.rejected.update(reasons)
        for reason, values in zip(reasons, _rows(rejects, ("image", "reason")), strict=True):
            # That a key comes twice is found out among the images; where depends on the batches.
            is_repeated = reason == RejectReason.DUPLICATE_KEY
            (self._repeated if is_repeated else self._inputs).update(values)

    def record(self) -> dict[str, Any]:
        """As in the summary, but for what the shares tell."""
        numbers = {name: np.frombuffer(kept) for name, kept in self._numbers.items()}
        return {
            "images": self.images,
            "rows": self._rows,
            "remaining_mean": float(numbers["remaining"].mean()),
            "effective_sources_median": float(np.median(numbers["effective_sources"])),
            "top_influence_median": float(np.median(numbers["top_influence"])),
            "methods": dict(self._methods),
            "flags": {name: self._flags[name] for name in FLAGS},
        }

    @property
    def inputs(self) -> str:
        """sha256 over the images, their prompts and metadata, and the rejects."""
        digest = self._inputs.copy()
        if self.rejected[RejectReason.DUPLICATE_KEY]:
            digest.update(self._repeated.digest())
        return digest.hexdigest()


def _rows(table: pa.Table, columns: Iterable[str]) -> Iterator[bytes]:
    for values in zip(*(table.column(name).to_pylist() for name in columns), strict=True):
        yield (json.dumps(values, ensure_ascii=True) + "\n").encode()


def write_summary(
    whole: Path,
    gallery: str,
    facts: Mapping[str, Any],
    settings: AuditSettings,
    totals: Totals,
    creators: pa.Table,
) -> None:
    """Write summary.json; `creators`: the whole table of shares.

    Raises:
        OSError: the disk refuses.
    """
    summary = summary_record(gallery, facts, settings, totals, creators)
    text = json.dumps(summary, indent=2, sort_keys=True, ensure_ascii=False) + "\n"
    (whole / SUMMARY).write_text(text, encoding="utf-8")


def summary_record(
    gallery: str,
    facts: Mapping[str, Any],
    settings: AuditSettings,
    totals: Totals,
    creators: pa.Table,
) -> dict[str, Any]:
    """What summary.json says, as JSON values; `creators`: the whole table of shares."""
    fields, kinds = (creators.column(name).to_pylist() for name in ("field", "kind"))
    known = Counter(field for field, kind in zip(fields, kinds, strict=True) if kind == "known")
    records: Counter[str] = Counter()
    for field, count in zip(fields, creators.column("training_images").to_pylist(), strict=True):
        records[field] += count
    return {
        "schema": SCHEMA,
        "gallery": {
            "name": gallery,
            "images": totals.images,
            "rejected": sum(totals.rejected.values()),
            "rejected_by_reason": dict(totals.rejected),
            "inputs_sha256": totals.inputs,
        },
        "totals": {**totals.record(), "training_images": records[settings.by[0]]},
        "settings": settings.record(),
        # A service of before it told of this leaves open whether its model was tuned.
        "model": {name: facts[key] for name, key in _MODEL} | {"tuned_on": facts.get("tuned_on")},
        "calibrator": dict(facts["calibrator"]),
        "collection": {
            "name": facts["collection"],
            "images": facts["images"],
            "index": {name: facts["index"][name] for name in _INDEX if name in facts["index"]},
        },
        "flags": {
            name: {
                "title": flag.title,
                "definition": flag.definition,
                "threshold": flag.threshold,
                "error": flag.error,
                "measured_by": flag.measured_by,
            }
            for name, flag in flags_in_words(
                settings.thresholds, facts["model"], settings.copy_model
            ).items()
        },
        "creators": [{"field": field, "values": known[field]} for field in settings.by],
        "versions": package_versions(),
        "limits": limits_in_words(facts),
        **({"left_out": facts["left_out"]} if facts.get("left_out") else {}),
    }


_MODEL = (
    ("name", "model"),
    ("backbone", "backbone"),
    ("fingerprint", "fingerprint"),
    ("feature_fingerprint", "feature_fingerprint"),
)


def limits_in_words(facts: Mapping[str, Any]) -> str:
    """What influence by this model and this calibrator is, and is not."""
    fitted = bool(facts["calibrator"]["fitted_on"])
    untuned = facts.get("tuned_on") == ""
    return " ".join(
        (
            "Influence is a similarity-based estimate, calibrated on examples; it is not a causal "
            "proof."
            if fitted
            else "Influence is a similarity-based estimate; it is not a causal proof. How a "
            "similarity becomes a share rests on default settings that were not fitted on "
            "examples: the order of the training images holds, the size of their shares does not.",
            "It says how much each training image of this collection resembles the generated image "
            "in the features of this model, as a share of the whole training set.",
            *(["This model was not tuned for attribution."] if untuned else []),
            "What is not in the collection cannot be found.",
        )
    )


def package_versions() -> dict[str, str]:
    """Of Python, attrib and what it rests on, as far as they are installed."""
    found = {"python": platform.python_version()}
    for package in _PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found
