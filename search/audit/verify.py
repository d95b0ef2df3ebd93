"""Whether an audit holds: its files, its signature, its numbers, and a sample of its attributions.

What can be checked without the index is checked to the last image. What needs the index, its model
and the generated images is checked on a random sample, where they are at hand and still the same.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from ingest.errors import RunError, UsageError
from search.audit.finished import read_summary
from search.audit.manifest import MANIFEST, Manifest, check_file, read_manifest
from search.audit.sign import SIGNATURE, check_signature
from search.audit.tables import ATTRIBUTIONS, CREATORS, IMAGES, SUMMARY
from search.audit.verify_sample import SAMPLE_TOLERANCE, Compared, compare, why_other
from search.audit.verify_tables import TOLERANCE, TableFaults, check_tables

if TYPE_CHECKING:
    from search.collection import Collection

__all__ = ["Check", "State", "Verification", "verify"]

State: TypeAlias = Literal["holds", "fails", "not checked"]

_NAMED = 3  # files or images that are named of many
_OWN = frozenset([MANIFEST, SIGNATURE, ".plan.json", ".work"])


@dataclass(frozen=True)
class Check:
    """One thing that was looked at.

    Attributes:
        name: files, signature, images, shares, summary, sample.
        state: `not checked` says nothing for or against the audit.
        words: what was checked or why not, and what was found, in a sentence.
    """

    name: str
    state: State
    words: str


@dataclass(frozen=True)
class Verification:
    """What came of it all.

    Attributes:
        checks: in order.
        sampled: images of the sample.
        compared: those that were attributed again.
        largest: influence that moved at most in one of them, 0..1.
    """

    checks: tuple[Check, ...]
    sampled: int = 0
    compared: int = 0
    largest: float = 0.0

    @property
    def holds(self) -> bool:
        """Nothing that was checked fails."""
        return all(check.state != "fails" for check in self.checks)

    def to_dict(self) -> dict[str, Any]:
        """As JSON values."""
        return {"holds": self.holds, **asdict(self), "checks": [asdict(c) for c in self.checks]}


def verify(
    out: Path,
    collection: Collection | None,
    *,
    sample: int = 32,
    seed: int = 0,
    gallery: Sequence[str] = (),
    public_key: Path | None = None,
) -> Verification:
    """Check an audit.

    Args:
        out: its folder.
        collection: the data folder's, open; None where there is none.
        sample: images that are attributed again; 0 for none.
        seed: of their choice.
        gallery: as the audit's own, see `ingest.source.open_sources`; () where it is not at hand.
        public_key: that the audit is to be signed with.

    Raises:
        UsageError: a sample below 0, or a key file that is none.
        RunError: no finished audit; the backbone or the index fails.
    """
    if sample < 0:
        raise UsageError(f"--sample must be at least 0, not {sample}")
    manifest = read_manifest(out)
    checks = [_files(out, manifest), _signature(out, public_key)]
    try:
        summary = read_summary(out)
        faults = check_tables(out, summary, _chosen(out, sample, seed))
    except RunError as exc:
        checks.append(Check("tables", "fails", str(exc)))
        return Verification(tuple(checks))
    checks += _tables(faults)
    checked, compared = _sample(faults, summary, collection, gallery)
    return Verification(
        checks=(*checks, checked),
        sampled=len(faults.sample),
        compared=compared.same + len(compared.moved),
        largest=compared.largest,
    )


def _chosen(out: Path, sample: int, seed: int) -> set[int]:
    import numpy as np

    from search.audit.finished import read_table

    images = read_table(out, IMAGES, ["image"]).num_rows
    drawn = np.random.default_rng(seed).choice(images, min(sample, images), replace=False)
    return set(drawn.tolist())


def _files(out: Path, manifest: Manifest) -> Check:
    wrong = [
        fault for name, entry in manifest.files.items() if (fault := check_file(out, name, entry))
    ]
    if wrong:
        return Check("files", "fails", _listed(wrong))
    words = f"all {len(manifest.files)} files are those of {MANIFEST}"
    tops = {name.partition("/")[0] for name in manifest.files}
    more = sorted(path.name for path in out.iterdir() if path.name not in tops | _OWN)
    if more:
        words += f"; not part of the audit: {_listed(more, ', ')}"
    return Check("files", "holds", words)


def _signature(out: Path, public_key: Path | None) -> Check:
    if public_key is not None:
        if wrong := check_signature(out, public_key):
            return Check("signature", "fails", wrong)
        return Check("signature", "holds", f"{MANIFEST} was signed with the key of {public_key}")
    if (out / SIGNATURE).is_file():
        return Check("signature", "not checked", "there is one, but no --public-key to check it by")
    return Check("signature", "not checked", "the audit is not signed")


def _tables(faults: TableFaults) -> list[Check]:
    images = f"{faults.images:,} images" if faults.images != 1 else "1 image"
    if faults.wrong_images:
        words = f"{faults.wrong_images:,} of {images} do not hold: {faults.image}"
    else:
        words = (
            f"{images}: influence and what remains sum to 1 within {TOLERANCE:g}, and {IMAGES} "
            f"follows from {ATTRIBUTIONS}"
        )
    return [
        Check("images", "fails" if faults.wrong_images else "holds", words),
        Check(
            "shares",
            "fails" if faults.shares else "holds",
            f"{CREATORS} does not follow from {ATTRIBUTIONS}: {faults.shares}"
            if faults.shares
            else f"{CREATORS} follows from {ATTRIBUTIONS}, intervals and all",
        ),
        Check(
            "summary",
            "fails" if faults.summary else "holds",
            f"{SUMMARY} does not follow from the tables: {faults.summary}"
            if faults.summary
            else f"the totals of {SUMMARY} follow from the tables",
        ),
    ]


def _sample(
    faults: TableFaults,
    summary: Mapping[str, Any],
    collection: Collection | None,
    gallery: Sequence[str],
) -> tuple[Check, Compared]:
    nothing = Compared(0, {}, 0.0, {})

    def unchecked(why: str) -> tuple[Check, Compared]:
        return Check("sample", "not checked", f"no image was attributed again: {why}"), nothing

    if not faults.sample:
        return unchecked("no sample was asked for" if faults.images else "there are none")
    if collection is None:
        return unchecked("no data folder was given; --data names it")
    try:
        why = why_other(summary, collection.facts())
    except (KeyError, TypeError, ValueError):
        why = f"{SUMMARY} does not tell of its model and collection"
    if why:
        return unchecked(why)
    if not gallery:
        return unchecked("no gallery was given; --gallery names it")
    compared = compare(faults.sample, summary, collection, gallery)
    done = compared.same + len(compared.moved)
    left = ""
    if compared.unread:
        reasons = [f"{name}: {reason}" for name, reason in compared.unread.items()]
        left = f"; {len(reasons)} could not be: {_listed(reasons)}"
    if not done:
        return Check("sample", "not checked", f"no image was attributed again{left}"), compared
    size = f"{done} of {faults.images:,} images" if done != 1 else f"1 of {faults.images:,} images"
    if compared.moved:
        worst = sorted(compared.moved, key=lambda name: (-compared.moved[name], name))
        named = _listed([f"{name} by {compared.moved[name]:.1%}" for name in worst], ", ")
        words = (
            f"of {size} attributed again, {len(compared.moved)} moved by more than "
            f"{SAMPLE_TOLERANCE:.0%} of influence: {named}; the audit was altered, or the "
            "collection was without its size changing"
        )
        return Check("sample", "fails", words + left), compared
    words = (
        f"{size}, drawn at random, were attributed again: none moved by more than "
        f"{compared.largest:.2g} of influence ({SAMPLE_TOLERANCE:g} would do)"
    )
    return Check("sample", "holds", words + left), compared


def _listed(names: Sequence[str], between: str = "; ") -> str:
    more = len(names) - _NAMED
    return between.join(names[:_NAMED]) + (f" and {more:,} more" if more > 0 else "")
