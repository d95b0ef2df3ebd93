"""Whether an audit holds: its files, its signature, its numbers, and a sample of its attributions.

What can be checked without the index is checked to the last image. What needs the index, its model
and the generated images is checked on a random sample, where they are at hand and still the same.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ingest.download_settings import DownloadSettings
from ingest.errors import RunError, SourceError, UsageError
from search.audit.check import Check, State, counted_images, listed
from search.audit.finished import read_summary
from search.audit.manifest import MANIFEST, Manifest, check_file, read_manifest
from search.audit.payout_found import find_payouts, payout_file_names
from search.audit.sign import SIGNATURE, check_signature
from search.audit.tables import ATTRIBUTIONS, CREATORS, IMAGES, SUMMARY
from search.audit.verify_gallery import GalleryAgain, gallery_told
from search.audit.verify_inputs import check_inputs
from search.audit.verify_payouts import check_payouts
from search.audit.verify_sample import (
    SAMPLE_TOLERANCE,
    Asked,
    CollectionAsked,
    Compared,
    NotAllowedError,
    compare,
    settings_of,
    why_other,
)
from search.audit.verify_tables import TOLERANCE, TableFaults, check_tables

if TYPE_CHECKING:
    from search.collection import Collection
    from search.ingestion import Progress

__all__ = ["Check", "State", "Verification", "verify"]

_NO_GALLERY = "no gallery was given; --gallery names it"
_FACTS = ("feature_fingerprint", "fingerprint", "calibrator", "images", "model")
_OWN = frozenset([MANIFEST, SIGNATURE, ".plan.json", ".work"])


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
    service: Asked | None = None,
    sample: int = 32,
    seed: int = 0,
    gallery: Sequence[str] = (),
    inputs: bool = True,
    download: DownloadSettings | None = None,
    public_key: Path | None = None,
    progress: Progress | None = None,
) -> Verification:
    """Check an audit.

    Args:
        out: its folder.
        collection: the data folder's, open; None where there is none.
        service: asked in place of a collection.
        sample: images that are attributed again; 0 for none.
        seed: of their choice.
        gallery: as the audit's own, see `ingest.source.open_sources`; () for what the audit's paths
            name, where that lies in the working directory.
        inputs: read all of the gallery, to compare it with what was audited.
        download: how images of lists of URLs are fetched.
        public_key: that the audit is to be signed with.
        progress: shown while the gallery is read.

    Raises:
        UsageError: a sample below 0, or a key file that is none.
        RunError: no finished audit; the gallery cannot be read; the backbone, the index or the
            service fails.
    """
    if sample < 0:
        raise UsageError(f"--sample must be at least 0, not {sample}")
    manifest = read_manifest(out)
    payouts = find_payouts(out)
    checks = [_files(out, manifest), _signature(out, public_key)]
    last = [check_payouts(out, manifest, payouts)] if payouts else []
    try:
        summary = read_summary(out)
        faults = check_tables(out, summary, _chosen(out, sample, seed))
        told = () if gallery else gallery_told(out)
    except RunError as exc:
        return Verification((*checks, Check("tables", "fails", str(exc)), *last))
    checks += _tables(faults)
    again = None
    if names := gallery or told:
        again = GalleryAgain(names, settings_of(summary).limits, download, told_by=not gallery)
    read = again if inputs else None
    checks.append(_inputs(out, summary, faults, read, progress, asked_for=inputs))
    asked = service or (None if collection is None else CollectionAsked(collection))
    who = "the data folder" if service is None else "the service"
    checked, compared = _sample(faults, summary, asked, who, again)
    return Verification(
        checks=(*checks, checked, *last),
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
        return Check("files", "fails", listed(wrong))
    words = f"all {len(manifest.files)} files are those of {MANIFEST}"
    tops = {name.partition("/")[0] for name in manifest.files}
    known = tops | _OWN | payout_file_names(out)
    more = sorted(path.name for path in out.iterdir() if path.name not in known)
    if more:
        words += f"; not part of the audit: {listed(more, ', ')}"
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
    images = counted_images(faults.images)
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


def _inputs(
    out: Path,
    summary: Mapping[str, Any],
    faults: TableFaults,
    gallery: GalleryAgain | None,
    progress: Progress | None,
    *,
    asked_for: bool,
) -> Check:
    why_not = _NO_GALLERY if asked_for else "that was not asked for"
    try:
        checked = check_inputs(out, summary, faults.inputs_sha256, gallery, why_not, progress)
    except SourceError as exc:
        if gallery is None or not gallery.told_by:
            raise
        return Check("inputs", "not checked", f"{exc}; --gallery names another gallery")
    return replace(checked, words=checked.words + _taken_from(gallery))


def _sample(
    faults: TableFaults,
    summary: Mapping[str, Any],
    asked: Asked | None,
    who: str,
    gallery: GalleryAgain | None,
) -> tuple[Check, Compared]:
    nothing = Compared(0, {}, 0.0, {})

    def unchecked(why: str) -> tuple[Check, Compared]:
        return Check("sample", "not checked", f"no image was attributed again: {why}"), nothing

    if not faults.sample:
        return unchecked("no sample was asked for" if faults.images else "there are none")
    if asked is None:
        return unchecked("no data folder was given; --data names it, or --server a service")
    facts = asked.facts()
    if missing := [name for name in _FACTS if name not in facts]:
        raise RunError(f"{who} does not tell its {', '.join(missing)}: it is an older attrib")
    try:
        why = why_other(summary, facts, who)
    except (KeyError, TypeError, ValueError):
        why = f"{SUMMARY} does not tell of its model and collection"
    if why:
        return unchecked(why)
    if gallery is None:
        return unchecked(_NO_GALLERY)
    try:
        compared = compare(faults.sample, summary, asked, gallery)
    except SourceError as exc:
        if not gallery.told_by:
            raise
        return unchecked(f"{exc}; --gallery names another gallery")
    except NotAllowedError as exc:
        return unchecked(f"{who} does not allow what the audit asked: {exc}")
    checked = _compared(faults, compared)
    return replace(checked, words=checked.words + _taken_from(gallery)), compared


def _taken_from(gallery: GalleryAgain | None) -> str:
    if gallery is None or not gallery.told_by:
        return ""
    return f" (--gallery was not given: {listed(gallery.names, ', ')} here, as the audit calls it)"


def _compared(faults: TableFaults, compared: Compared) -> Check:
    done = compared.same + len(compared.moved)
    left = ""
    if compared.unread:
        reasons = [f"{name}: {reason}" for name, reason in compared.unread.items()]
        left = f"; {len(reasons)} could not be: {listed(reasons)}"
    if not done:
        return Check("sample", "not checked", f"no image was attributed again{left}")
    size = f"{done:,} of {counted_images(faults.images)}"
    if compared.moved:
        worst = sorted(compared.moved, key=lambda name: (-compared.moved[name], name))
        named = listed([f"{name} by {compared.moved[name]:.1%}" for name in worst], ", ")
        words = (
            f"of {size} attributed again, {len(compared.moved)} moved by more than "
            f"{SAMPLE_TOLERANCE:.0%} of influence: {named}; the audit was altered, or the "
            "collection was without its size changing"
        )
        return Check("sample", "fails", words + left)
    words = (
        f"{size}, drawn at random, were attributed again: none moved by more than "
        f"{compared.largest:.2g} of influence ({SAMPLE_TOLERANCE:g} would do)"
    )
    return Check("sample", "holds", words + left)
