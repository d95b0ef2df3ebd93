"""Whether a dataset is whole, and whether its customizations took.

A model whose images are no nearer to its exemplars than those that the generator itself makes of
the same words (the new one as it begins, a rare word) and the same noise was not customized: it
says nothing about influence. One whose images are the exemplar again says little about anything
else.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from evaluation.dataset.files import FOLDERS, MANIFEST, QUALITY, write_text
from evaluation.dataset.lock import taken
from ingest.decode import decode
from ingest.errors import DataFolderError, ImageError, ModelError, SourceError
from ingest.item import printable

if TYPE_CHECKING:
    from embed.embedder import Embedder
    from embed.model import AttributionModel

__all__ = ["Check", "ModelQuality", "check_dataset", "read_quality"]

COPY_SIMILARITY = 0.95
"""From which similarity on an image counts as a copy, unless the caller says otherwise."""

_RESAMPLES = 2000
_BATCH = 32


@dataclass(frozen=True)
class ModelQuality:
    """How near a model's images are to its exemplars.

    Attributes:
        id: of the model.
        name: class word, or creator.
        split: that it is in.
        images: that it made.
        similarity: mean over them of the cosine to the nearest exemplar.
        base: the same of the generator's own images of the same words.
        gain: mean difference of an image to the generator's own of the same prompt and noise, over
            the images that have one.
        gain_low, gain_high: 95 % bootstrap interval of `gain`, over those pairs.
        failed: `gain_low` is not above 0: the gain may be chance.
        copies: images at or above the similarity of a copy.
    """

    id: str
    name: str
    split: str
    images: int
    similarity: float
    base: float
    gain: float
    gain_low: float
    gain_high: float
    failed: bool
    copies: int


@dataclass(frozen=True)
class Check:
    """The outcome.

    Attributes:
        problems: what is missing or changed; the dataset is whole where there are none.
        models: quality of each model that is whole; empty where it was not looked at.
        judge: attribution model that similarities are of; '' likewise.
        copy_similarity: from which on an image counts as a copy of its exemplar.
    """

    problems: tuple[str, ...]
    models: tuple[ModelQuality, ...] = ()
    judge: str = ""
    copy_similarity: float = COPY_SIMILARITY

    @property
    def failed(self) -> tuple[ModelQuality, ...]:
        """Models that were not customized."""
        return tuple(model for model in self.models if model.failed)

    @property
    def copying(self) -> tuple[ModelQuality, ...]:
        """Models more than half of whose images are copies of an exemplar."""
        return tuple(model for model in self.models if 2 * model.copies > model.images)


def check_dataset(
    out: Path,
    judge: AttributionModel | None = None,
    embedder: Callable[[], Embedder] | None = None,
    *,
    copy_similarity: float = COPY_SIMILARITY,
    advance: Callable[[int], None] = lambda images: None,
) -> Check:
    """Compare every file with the manifest and, with a `judge`, look at what the models made.

    The outcome is also written to ``quality.json``, for the card.

    Args:
        out: a finished dataset.
        judge: attribution model whose features are compared; generated images go through its
            `synth` mapper and exemplars through `real`.
        embedder: gives the judge's backbone.
        copy_similarity: from which on an image counts as a copy.
        advance: told of the images that are looked at.

    Raises:
        SourceError: no dataset there, or one that is not finished.
        ModelError: the judge's weights are not those of its backbone.
        DataFolderBusyError: another process writes into the folder.
        DataFolderError: the outcome cannot be written.
    """
    manifest = _manifest(out)
    if judge is None or embedder is None:
        return Check(tuple(_problems(out, manifest["files"])))
    with taken(out):
        return _judged(out, judge, embedder, copy_similarity, advance)


def _judged(
    out: Path,
    judge: AttributionModel,
    embedder: Callable[[], Embedder],
    copy_similarity: float,
    advance: Callable[[int], None],
) -> Check:
    manifest = _manifest(out)
    problems = tuple(_problems(out, manifest["files"]))
    backbone = embedder()
    if backbone.weights_hash and judge.weights_hash not in ("", backbone.weights_hash):
        raise ModelError(f"the weights of {judge.backbone.name} are not those of {judge.name}")
    models = []
    for name in sorted(name for name in manifest["files"] if name.startswith("models/")):
        try:
            record = json.loads((out / name).read_text("utf-8"))
            models.append(_quality(out, record, judge, backbone, copy_similarity, advance))
        except (ImageError, OSError, ValueError, KeyError, TypeError):
            continue  # it stands among the problems
    check = Check(problems, tuple(models), judge.name, copy_similarity)
    try:
        write_text(out / QUALITY, json.dumps(asdict(check), indent=1, sort_keys=True) + "\n")
    except OSError as exc:
        raise DataFolderError(f"cannot write {out / QUALITY}: {exc.strerror or exc}") from exc
    return check


def read_quality(out: Path) -> Check | None:
    """The outcome of the last check with a judge; None where there was none.

    Raises:
        SourceError: damaged.
    """
    try:
        values = json.loads((out / QUALITY).read_text("utf-8"))
        models = tuple(ModelQuality(**model) for model in values.pop("models"))
        return Check(**{**values, "problems": tuple(values["problems"]), "models": models})
    except FileNotFoundError:
        return None
    except (OSError, ValueError, TypeError, KeyError) as exc:
        raise SourceError(f"{out / QUALITY} is damaged: {exc}") from exc


def _manifest(out: Path) -> dict[str, Any]:
    if not (out / MANIFEST).is_file():
        begun = (
            "; it is not finished: build goes on with it" if (out / "plan.json").exists() else ""
        )
        raise SourceError(f"{out} holds no dataset of `attrib dataset build`{begun}")
    try:
        manifest: dict[str, Any] = json.loads((out / MANIFEST).read_text("utf-8"))
        files = manifest["files"]
        if not all(isinstance(text, str) for pair in files.items() for text in pair):
            raise ValueError("its list of files is none")
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as exc:
        raise SourceError(f"{out / MANIFEST} is damaged: {exc}") from exc
    return manifest


def _problems(out: Path, files: dict[str, str]) -> Iterator[str]:
    for name, digest in files.items():
        try:
            data = (out / name).read_bytes()
        except (OSError, ValueError) as exc:
            why = (exc.strerror if isinstance(exc, OSError) else None) or str(exc)
            yield f"{printable(name)}: {why}"
            continue
        if hashlib.sha256(data).hexdigest() != digest:
            yield f"{printable(name)} is not the file that was written"
    for folder in FOLDERS:
        for path in sorted((out / folder).rglob("*")):
            name = path.relative_to(out).as_posix()
            if path.is_file() and name not in files:
                yield f"{printable(name)} does not belong to the dataset"


def _quality(
    out: Path,
    record: dict[str, Any],
    judge: AttributionModel,
    backbone: Embedder,
    copy_similarity: float,
    advance: Callable[[int], None],
) -> ModelQuality:
    made = sorted(name for name in record["images"] if name.startswith("synth/"))
    base = sorted(name for name in record["images"] if name.startswith("base/"))
    exemplars = judge.mappers.real(_features(out, record["exemplars"], judge, backbone))
    nearest = _nearest(out, made, exemplars, judge, backbone)
    own = _nearest(out, base, exemplars, judge, backbone)
    advance(len(made) + len(base))
    draws = np.random.default_rng(int(record["id"]))
    places = [made.index(record["base_of"][name]) for name in base]
    gains = nearest[places] - own
    low, high = np.percentile(_means(gains, draws), [2.5, 97.5])
    return ModelQuality(
        id=record["id"],
        name=record["name"],
        split=record["split"],
        images=len(made),
        similarity=float(nearest.mean()),
        base=float(own.mean()),
        gain=float(gains.mean()),
        gain_low=float(low),
        gain_high=float(high),
        failed=bool(low <= 0),
        copies=int(np.count_nonzero(nearest >= copy_similarity)),
    )


def _nearest(
    out: Path,
    names: Sequence[str],
    exemplars: NDArray[np.float32],
    judge: AttributionModel,
    backbone: Embedder,
) -> NDArray[np.float64]:
    """(names,) cosine of each image to the nearest exemplar."""
    features = judge.mappers.synth(_features(out, names, judge, backbone))
    similarities: NDArray[np.float64] = features.astype(np.float64) @ exemplars.T
    return np.asarray(similarities.max(axis=1))


def _features(
    out: Path, names: Sequence[str], judge: AttributionModel, backbone: Embedder
) -> NDArray[np.float32]:
    """(names, dim) base features."""
    parts = []
    for start in range(0, len(names), _BATCH):
        images = [decode((out / name).read_bytes()).image for name in names[start : start + _BATCH]]
        pixels = np.stack([judge.backbone.preprocessing.apply(image) for image in images])
        parts.append(backbone.embed(pixels))
    return np.concatenate(parts)


def _means(values: NDArray[np.float64], draws: np.random.Generator) -> NDArray[np.float64]:
    """(resamples,) means of bootstrap samples."""
    drawn = values[draws.integers(len(values), size=(_RESAMPLES, len(values)))]
    return np.asarray(drawn.mean(axis=1))
