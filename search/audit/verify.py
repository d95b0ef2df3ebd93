"""Whether an audit holds: its files, its signature, its numbers, and a sample of its attributions.

What can be checked without the index is checked to the last image. What needs the index, its model
and the generated images is checked on a random sample, where they are at hand and still the same.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ingest.download_settings import DownloadSettings
from ingest.errors import RunError, SourceError, UsageError
from search.audit.check import Check, State, counted_images, listed
from search.audit.derived import thresholds_for
from search.audit.finished import read_summary
from search.audit.manifest import MANIFEST, Manifest, check_file, read_manifest
from search.audit.payout_found import find_payouts, payout_file_names
from search.audit.sign import SIGNATURE, check_signature
from search.audit.tables import ATTRIBUTIONS, CREATORS, IMAGES, SUMMARY
from search.audit.verify_answer import SAMPLE_TOLERANCE
from search.audit.verify_gallery import GalleryAgain, gallery_told
from search.audit.verify_inputs import check_inputs
from search.audit.verify_payouts import check_payouts
from search.audit.verify_records import check_records
from search.audit.verify_report import check_report
from search.audit.verify_sample import (
    Asked,
    CollectionAsked,
    Compared,
    NotAllowedError,
    compare,
    why_other,
)
from search.audit.verify_summary import (
    given_thresholds,
    made_by_another,
    settings_of,
    told_otherwise,
)
from search.audit.verify_tables import TableFaults, check_tables
from search.audit.verify_values import ROUNDING

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
    asked = service or (None if collection is None else CollectionAsked(collection))
    who = _Who(asked, "the data folder" if service is None else "the service", summary)
    checks += [
        *_tables(faults),
        _summary(faults, summary, who, collection),
        check_report(out, summary),
    ]
    again, no_gallery = None, _NO_GALLERY
    try:
        limits = settings_of(summary).limits
        if names := gallery or told:
            again = GalleryAgain(names, limits, download, told_by=not gallery)
    except RunError as exc:
        no_gallery = str(exc)
    read = again if inputs else None
    why_not = no_gallery if inputs else "that was not asked for"
    checks.append(_inputs(out, summary, faults, read, why_not, progress))
    checks.append(_records(out, collection, who))
    checked, compared = _sample(faults, summary, who, again or no_gallery)
    return Verification(
        checks=(*checks, checked, *last),
        sampled=len(faults.sample),
        compared=compared.done,
        largest=compared.largest,
    )


class _Who:
    """Who is asked, and whether that is what the audit was made with.

    Attributes:
        asked: None where there is none.
        name: for people.
        facts: as `Collection.facts`.
        why_other: why answers of today prove nothing; '' where they do.

    Raises:
        RunError: a service that is an older attrib.
    """

    def __init__(self, asked: Asked | None, name: str, summary: Mapping[str, Any]) -> None:
        self.asked = asked
        self.name = name
        self.facts: Mapping[str, Any] = {}
        if asked is None:
            self.why_other = "no data folder was given; --data names it, or --server a service"
            return
        self.facts = asked.facts()
        if missing := [fact for fact in _FACTS if fact not in self.facts]:
            raise RunError(f"{name} does not tell its {', '.join(missing)}: it is an older attrib")
        try:
            self.why_other = why_other(summary, self.facts, name)
        except (KeyError, TypeError, ValueError):
            self.why_other = f"{SUMMARY} does not tell of its model and collection"


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
    of_images = Check(
        "images",
        "holds",
        f"{images}: influence and what remains sum to 1 within {ROUNDING:g}, and {IMAGES} follows "
        f"from {ATTRIBUTIONS}",
    )
    if faults.wrong_images:
        words = f"{faults.wrong_images:,} of {images} do not hold: {faults.image}"
        of_images = replace(of_images, state="fails", words=words)
    elif not faults.flags_known:
        words = f"{of_images.words}, but for its flags: their thresholds are not known here"
        of_images = replace(of_images, state="not checked", words=words)
    return [
        of_images,
        Check(
            "shares",
            "fails" if faults.shares else "holds",
            f"{CREATORS} does not follow from {ATTRIBUTIONS}: {faults.shares}"
            if faults.shares
            else f"{CREATORS} follows from {ATTRIBUTIONS}, intervals and all",
        ),
    ]


def _summary(
    faults: TableFaults, summary: Mapping[str, Any], who: _Who, collection: Collection | None
) -> Check:
    if faults.summary:
        words = f"{SUMMARY} is not what attrib writes of these tables: {faults.summary}"
        return Check("summary", "fails", words)
    if not who.why_other and (fault := told_otherwise(summary, who.facts, who.name)):
        return Check("summary", "fails", f"{SUMMARY} is not of this collection: {fault}")
    if why := made_by_another(summary):
        words = f"{SUMMARY} follows from the tables; what it says of limits and flags was not "
        return Check("summary", "not checked", f"{words}compared: {why}")
    words = f"{SUMMARY} follows from the tables; limits and flags are told as this attrib does"
    if collection is not None and not who.why_other:
        # Of a backbone that was not measured a threshold must be given: none is usual.
        with suppress(UsageError):
            copy_model = settings_of(summary).copy_model
            usual = thresholds_for(collection.index, collection.model.name, None, copy_model)
            if given := given_thresholds(summary, usual):
                words += f"; thresholds are not the usual ones: {given}"
    return Check("summary", "holds", words)


def _records(out: Path, collection: Collection | None, who: _Who) -> Check:
    if collection is not None:
        return check_records(out, collection.index, who.why_other)
    if who.asked is None:
        return Check("records", "not checked", "no data folder was given; --data names it")
    words = (
        "a service tells no training records by themselves: those of the sample are compared with "
        "its answers, the others were not"
    )
    return Check("records", "not checked", words)


def _inputs(
    out: Path,
    summary: Mapping[str, Any],
    faults: TableFaults,
    gallery: GalleryAgain | None,
    why_not: str,
    progress: Progress | None,
) -> Check:
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
    who: _Who,
    gallery: GalleryAgain | str,
) -> tuple[Check, Compared]:
    """`gallery`: or why there is none."""

    def unchecked(why: str) -> tuple[Check, Compared]:
        return Check("sample", "not checked", f"no image was attributed again: {why}"), Compared()

    if not faults.sample:
        return unchecked("no sample was asked for" if faults.images else "there are none")
    if who.asked is None or who.why_other:
        return unchecked(who.why_other)
    if isinstance(gallery, str):
        return unchecked(gallery)
    try:
        compared = compare(faults.sample, summary, who.asked, gallery)
    except SourceError as exc:
        if not gallery.told_by:
            raise
        return unchecked(f"{exc}; --gallery names another gallery")
    except NotAllowedError as exc:
        return unchecked(f"{who.name} does not allow what the audit asked: {exc}")
    checked = _compared(faults, compared)
    return replace(checked, words=checked.words + _taken_from(gallery)), compared


def _taken_from(gallery: GalleryAgain | None) -> str:
    if gallery is None or not gallery.told_by:
        return ""
    return f" (--gallery was not given: {listed(gallery.names, ', ')} here, as the audit calls it)"


def _compared(faults: TableFaults, compared: Compared) -> Check:
    left = ""
    if compared.unread:
        reasons = [f"{name}: {reason}" for name, reason in compared.unread.items()]
        left = f"; {len(reasons)} could not be: {listed(reasons)}"
    for what, why in (
        ("near-copies", compared.no_copies),
        ("duplicates", compared.no_duplicates),
    ):
        if why:
            left += f"; {what} were not looked for again: {why}"
    size = f"{compared.done:,} of {counted_images(faults.images)}"
    said = []
    if compared.moved:
        worst = sorted(compared.moved, key=lambda name: (-compared.moved[name], name))
        named = listed([f"{name} by {compared.moved[name]:.1%}" for name in worst], ", ")
        said.append(
            f"{len(compared.moved)} moved by more than {SAMPLE_TOLERANCE:.0%} of influence: "
            f"{named}; the audit was altered, or the collection was without its size changing"
        )
    if compared.other:
        name, fault = next(iter(compared.other.items()))
        differ = "differs" if len(compared.other) == 1 else "differ"
        said.append(f"{len(compared.other)} {differ}: {name}: {fault}")
    if said:
        return Check("sample", "fails", f"of {size} attributed again, {', and '.join(said)}{left}")
    if not compared.done:
        return Check("sample", "not checked", f"no image was attributed again{left}")
    same = ["training records", "similarities", "intervals"]
    same += [] if compared.no_copies else ["near-copies"]
    same += [] if compared.no_duplicates else ["duplicates among them"]
    words = (
        f"{size}, drawn at random, were attributed again: none moved by more than "
        f"{compared.largest:.2g} of influence ({SAMPLE_TOLERANCE:g} would do), and their "
        f"{', '.join(same[:-1])} and {same[-1]} are as told"
    )
    return Check("sample", "holds", words + left)
