"""Calibration of a collection by itself, where nobody knows what its generated images owe to whom.

Training images of the collection, drawn evenly, are varied (`evaluation.augment`) and asked about
as if they were generated: each one's exemplar is the image that it was made from, and every equal
image (same bytes). The gallery is the whole collection, as queries find it in the index.

That fits how similar a variation is to its original in this collection, beside how similar other
images are. It is not what a generator does: the answer's record says so ("self-calibration").

It is fitted with the `exact` objective (`evaluation.fit`): on variations that took no part, the
answers of the published one are farther from the truth than those of the best softmax, and may be
farther than those of the default settings (docs/attribution-quality.md has the figures).

A collection whose model brings no fitted calibrator is calibrated so at the end of an ingest, and
again once it has twice the images. The calibrator's own label says of how many images it was
fitted; what was calibrated by hand carries another label, and is left alone.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from uuid import UUID

import numpy as np

from embed.shards import read_thumbnails
from evaluation.augment import GENERATED, Variation, augmented
from evaluation.fit import fit_calibrator
from evaluation.spectrum import Spectrum, SpectrumBuilder
from ingest.decode import DecodeLimits, decode
from ingest.errors import ImageError, RunError, UsageError

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from PIL import Image

    from embed.calibrator import Calibrator
    from evaluation.extract_run import Progress
    from evaluation.fit import CalibratorFit
    from search.collection import Collection
    from search.index import Index, Payload

__all__ = ["FEWEST", "SelfPairs", "calibrate_itself", "is_due", "self_spectrum"]

SAMPLES = 256

SAMPLES_AT_INGEST = 128
"""Twice as many gained nothing on variations that took no part."""

FEWEST = 64
"""Images that an ingest calibrates on at least: with 32 and 16 answers to others were worse."""

GROWTH = 2
"""Times the images of the last fit: the more others there are, the more influence they get."""

_BLOCK = 4096
_BATCH = 32
_FIELDS = ("dataset", "key", "sha256", "shard")
_BY_HAND, _AT_INGEST = "self-calibration", "self-calibration at ingest"
_LABEL = re.compile(rf"itself: .* augmented images of ([\d,]+) in .* \({_AT_INGEST}\)")


@dataclass(frozen=True, eq=False)
class SelfPairs:
    """A collection's spectrum of variations of its own images.

    Attributes:
        spectrum: one query a drawn image.
        originals: how many were varied from their original files; the others from thumbnails.
        unusable: drawn images of which neither is left.
        fitted_on: for the calibrator, what this is.
    """

    spectrum: Spectrum
    originals: int
    unusable: int
    fitted_on: str


def is_due(calibrator: Calibrator, images: int) -> bool:
    """Whether an ingest that leaves so many images behind should calibrate the collection.

    Not where the calibrator comes with the model or was fitted by hand, nor with too few images.
    """
    if images < FEWEST:
        return False
    if not calibrator.fitted:
        return True
    own = _LABEL.fullmatch(calibrator.fitted_on)
    return own is not None and images >= GROWTH * int(own[1].replace(",", ""))


def calibrate_itself(
    collection: Collection, *, seed: int = 0, progress: Progress | None = None
) -> CalibratorFit:
    """Fit the calibrator to a collection at the end of an ingest, and store it in one rename.

    Raises:
        RunError: pixels of fewer than `FEWEST` drawn images are left; the errors of
            `self_spectrum`. The old calibrator stays then.
    """
    pairs = self_spectrum(
        collection, samples=SAMPLES_AT_INGEST, seed=seed, progress=progress, how=_AT_INGEST
    )
    if len(pairs.spectrum) < FEWEST:
        raise RunError(
            f"files or thumbnails are left of {len(pairs.spectrum)} drawn images, {FEWEST} are "
            "needed"
        )
    fit = fit_calibrator(
        pairs.spectrum, pairs.fitted_on, before=collection.model.calibrator, objective="exact"
    )
    collection.recalibrate(fit.calibrator)
    return fit


def self_spectrum(
    collection: Collection,
    *,
    samples: int = SAMPLES,
    seed: int = 0,
    progress: Progress | None = None,
    how: str = _BY_HAND,
    variation: Variation = GENERATED,
) -> SelfPairs:
    """Vary images of a collection, embed them, compare them with all of it.

    Args:
        collection: open.
        samples: images to draw; all, where there are fewer.
        seed: of the draw and the variations.
        progress: told of the images.
        how: for the label, what kind of calibration this is.
        variation: how far from the images the varied ones are.

    Raises:
        UsageError: fewer than 2 samples.
        RunError: fewer than 2 images, or no image of which pixels are left.
        WeightsError, ModelMismatchError: the backbone cannot be loaded, or is another one.
        IndexFailedError: the index failed.
    """
    if samples < 2:
        raise UsageError(f"a self-calibration needs at least 2 samples, not {samples}")
    index = collection.index
    count = index.count()
    if count < 2:
        raise RunError(
            f"{collection.folder.root} holds {count} training images; a self-calibration "
            "needs at least 2, ingest more"
        )
    ids = _drawn(index, samples, seed)
    payloads = index.fetch(ids, fields=_FIELDS)
    if progress is not None:
        progress.start(len(ids))
    kept: list[int] = []
    parts = []
    originals = 0
    for start in range(0, len(ids), _BATCH):
        images = []
        for place in range(start, min(start + _BATCH, len(ids))):
            image, is_original = _pixels(collection, payloads[place])
            if image is not None:
                kept.append(place)
                originals += is_original
                images.append(augmented(image, _seed_of(ids[place], seed), variation))
        if images:
            parts.append(collection.features(images))
        if progress is not None:
            progress.advance(min(_BATCH, len(ids) - start))
    if not kept:
        raise RunError(
            f"neither the original files nor the thumbnails of {collection.folder.root} are there; "
            "bring the files back to where they were ingested from"
        )
    equal = _equal_images(index, [payloads[i] for i in kept], [ids[i] for i in kept])
    spectrum = _compare(index, np.concatenate(parts), equal)
    datasets = sorted({str((payloads[i] or {}).get("dataset", "")) for i in kept})
    shown = ", ".join(datasets[:3]) + (f" and {len(datasets) - 3} more" if datasets[3:] else "")
    return SelfPairs(
        spectrum=spectrum,
        originals=originals,
        unusable=len(ids) - len(kept),
        fitted_on=f"itself: {len(kept)} augmented images of {count:,} in {shown} ({how})",
    )


def _drawn(index: Index, samples: int, seed: int) -> list[UUID]:
    """Evenly from the index's own even sample, in which every image is as likely as any other."""
    ids = sorted(index.sample().ids)
    chosen = np.random.default_rng(seed).permutation(len(ids))[:samples]
    return [ids[i] for i in sorted(chosen)]


def _seed_of(point: UUID, seed: int) -> int:
    """An image's own, so that its variation does not depend on which others were drawn."""
    return int.from_bytes(hashlib.sha256(f"{seed} {point}".encode()).digest()[:8], "big") >> 1


def _pixels(collection: Collection, payload: Payload | None) -> tuple[Image.Image | None, bool]:
    """The image and whether it is the original rather than its thumbnail; None: neither is left."""
    if payload is None:
        return None, False
    for read, is_original in ((_original, True), (_thumbnail, False)):
        with suppress(OSError, ValueError, ImageError):
            data = read(collection, payload)
            if data is not None:
                return decode(data).image, is_original
    return None, False


def _original(collection: Collection, payload: Payload) -> bytes | None:
    """The bytes of the file that was ingested, where they still are the same.

    An image in a tar has no file of its own.
    """
    key = str(payload["key"])
    known = collection.ledger.known(str(payload["dataset"]), [key]).get(key)
    path = Path(known.origin) if known is not None else None
    if path is None or not path.is_file() or path.stat().st_size > DecodeLimits().max_bytes:
        return None
    data = path.read_bytes()
    return data if hashlib.sha256(data).hexdigest() == payload.get("sha256") else None


def _thumbnail(collection: Collection, payload: Payload) -> bytes | None:
    if "shard" not in payload:
        return None
    key = str(payload["key"])
    folder = collection.folder.features(str(payload["dataset"]))
    return read_thumbnails(folder, int(payload["shard"]), [key]).get(key)


def _equal_images(
    index: Index, payloads: Sequence[Payload | None], ids: Sequence[UUID]
) -> list[list[UUID]]:
    """Of each image the points with the same bytes, itself among them."""
    hashes = [str((payload or {}).get("sha256", "")) for payload in payloads]
    of_hash: dict[str, list[UUID]] = {}
    wanted = sorted({known for known in hashes if known})
    if wanted:
        for batch in index.scroll({"sha256": wanted}):
            found = index.fetch(batch, fields=["sha256"])
            for point, payload in zip(batch, found, strict=True):
                if payload is not None:
                    of_hash.setdefault(str(payload["sha256"]), []).append(point)
    return [of_hash.get(known) or [point] for known, point in zip(hashes, ids, strict=True)]


def _compare(
    index: Index, features: NDArray[np.float32], equal: Sequence[Sequence[UUID]]
) -> Spectrum:
    """Every query with every image of the index; `equal`: the exemplars of each query."""
    queries_of: dict[UUID, list[int]] = {}
    for query, points in enumerate(equal):
        for point in points:
            queries_of.setdefault(point, []).append(query)
    exemplars = [index.vectors(points) @ features[q] for q, points in enumerate(equal)]
    builder = SpectrumBuilder(features, exemplars)
    for ids in index.scroll(batch=_BLOCK):
        own = [(q, row) for row, point in enumerate(ids) for q in queries_of.get(point, ())]
        pairs = np.array(own, np.int64).reshape(-1, 2)
        builder.add(index.vectors(ids), (pairs[:, 0], pairs[:, 1]))
    return builder.build()
