"""Whether a dataset is whole, and whether its customizations took.

A model whose images are no nearer to its exemplars than those that the generator itself makes of
the same words (the new one as it begins, a rare word) and the same noise was not customized: it
says nothing about influence, because it was tuned too little, or so much that it fell apart. One
whose images are the exemplar again says little about anything else.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Container, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from evaluation.dataset.copies import COPY_SCORE, copy_scores
from evaluation.dataset.files import FOLDERS, MANIFEST, QUALITY, RECORD, inside, write_text
from evaluation.dataset.lock import taken
from ingest.decode import decode
from ingest.errors import DataFolderError, ImageError, ModelError, SourceError
from ingest.item import printable

if TYPE_CHECKING:
    from PIL import Image

    from embed.embedder import Embedder
    from embed.model import AttributionModel

__all__ = ["Check", "ModelQuality", "check_dataset", "read_quality"]

_RESAMPLES = 2000
_BATCH = 32
_SANE_LOSS = 3.0
"""More than a denoiser has that says nothing: about 1 of noise, 2 of a flow."""
_RISE = 1.5
_ENOUGH_STEPS = 20


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
        copies: images at or above the score of a copy.
        moved: how far the customization moved the weights (L2).
        loss_rose: the loss of its steps did not fall, but rose.
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
    moved: float
    loss_rose: bool

    @property
    def fell_apart(self) -> bool:
        """It failed because it was tuned too much, not too little."""
        return self.failed and (self.loss_rose or self.gain_high < 0)


@dataclass(frozen=True)
class Check:
    """The outcome.

    Attributes:
        problems: what is missing or changed; the dataset is whole where there are none.
        models: quality of each model that is whole; empty where it was not looked at.
        judge: attribution model that similarities are of; '' likewise.
        copy_score: from which on an image counts as a copy of an exemplar.
    """

    problems: tuple[str, ...]
    models: tuple[ModelQuality, ...] = ()
    judge: str = ""
    copy_score: float = COPY_SCORE

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
    copy_score: float = COPY_SCORE,
    advance: Callable[[int], None] = lambda images: None,
) -> Check:
    """Compare every file with the manifest and, with a `judge`, look at what the models made.

    The outcome is also written to ``quality.json``, for the card.

    Args:
        out: a finished dataset.
        judge: attribution model whose features are compared; generated images go through its
            `synth` mapper and exemplars through `real`.
        embedder: gives the judge's backbone.
        copy_score: from which on an image counts as a copy of an exemplar, see `copy_scores`.
        advance: told of the images that are looked at.

    Raises:
        SourceError: no dataset there, or one that is not finished.
        ModelError: the judge's weights are not those of its backbone.
        DataFolderBusyError: another process writes into the folder.
        DataFolderError: the outcome cannot be written.
    """
    manifest = _manifest(out)
    if judge is None or embedder is None:
        return Check(tuple(_problems(out, manifest["files"]).values()))
    with taken(out):
        return _judged(out, judge, embedder, copy_score, advance)


def _judged(
    out: Path,
    judge: AttributionModel,
    embedder: Callable[[], Embedder],
    copy_score: float,
    advance: Callable[[int], None],
) -> Check:
    manifest = _manifest(out)
    files = manifest["files"]
    problems = _problems(out, files)
    backbone = embedder()
    if backbone.weights_hash and judge.weights_hash not in ("", backbone.weights_hash):
        raise ModelError(f"the weights of {judge.backbone.name} are not those of {judge.name}")
    models = []
    for name in sorted(name for name in files if RECORD.fullmatch(name)):
        if name in problems:
            continue
        seen = _Seen(out, Path(name).stem, files)
        try:
            seen.record.update(json.loads(inside(out, name, files).read_text("utf-8")))
            models.append(_quality(seen, judge, backbone, copy_score, advance))
        except (ImageError, OSError, ValueError, LookupError, TypeError, AttributeError) as exc:
            if not problems.keys() & seen.asked:  # else it stands among the problems
                problems[name] = f"{name}: its images cannot be looked at: {printable(str(exc))}"
    check = Check(tuple(problems.values()), tuple(models), judge.name, copy_score)
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
        raise SourceError(
            f"{out / QUALITY} is damaged, or of another attrib; `attrib dataset check` writes it "
            "again"
        ) from exc


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


def _problems(out: Path, files: dict[str, str]) -> dict[str, str]:
    """What is wrong, by the names of files."""
    found = {}
    for name, digest in files.items():
        try:
            path = inside(out, name, files)
            if not path.is_file() and path.exists():
                raise ValueError("not a file")
            with path.open("rb") as file:
                changed = hashlib.file_digest(file, "sha256").hexdigest() != digest
        except (OSError, ValueError) as exc:
            why = (exc.strerror if isinstance(exc, OSError) else None) or str(exc)
            found[name] = f"{printable(name)}: {why}"
            continue
        if changed:
            found[name] = f"{printable(name)} is not the file that was written"
    for folder in FOLDERS:
        for path in sorted((out / folder).rglob("*")):
            name = path.relative_to(out).as_posix()
            if path.is_file() and name not in files:
                found[name] = f"{printable(name)} does not belong to the dataset"
    return found


@dataclass(frozen=True)
class _Seen:
    """A model's record, which may be anyone's, and its images.

    Attributes:
        asked: names of the images that were wanted.
    """

    out: Path
    id: str
    files: Container[str]
    record: dict[str, Any] = field(default_factory=dict)
    asked: set[str] = field(default_factory=set)

    def names(self, folder: str) -> list[str]:
        """Of its images in a folder of the dataset."""
        return sorted(name for name in self.record["images"] if name.startswith(f"{folder}/"))

    def images(self, names: Sequence[str]) -> list[Image.Image]:
        """Decoded."""
        self.asked.update(names)
        return [decode(inside(self.out, one, self.files).read_bytes()).image for one in names]


def _quality(
    seen: _Seen,
    judge: AttributionModel,
    backbone: Embedder,
    copy_score: float,
    advance: Callable[[int], None],
) -> ModelQuality:
    record = seen.record
    made, base = seen.names("synth"), seen.names("base")
    exemplars = seen.images(record["exemplars"])
    known = judge.mappers.real(_features(exemplars, judge, backbone))
    nearest: list[NDArray[np.float64]] = []
    scores: list[float] = []
    for start in range(0, len(made), _BATCH):
        images = seen.images(made[start : start + _BATCH])
        nearest.append(_nearest(images, known, judge, backbone))
        scores += copy_scores(images, exemplars)
    similarities = np.concatenate(nearest)
    own = _nearest(seen.images(base), known, judge, backbone)
    advance(len(made) + len(base))
    draws = np.random.default_rng(int(seen.id))
    places = [made.index(record["base_of"][name]) for name in base]
    gains = similarities[places] - own
    low, high = np.percentile(_means(gains, draws), [2.5, 97.5])
    return ModelQuality(
        id=seen.id,
        name=str(record["name"]),
        split=str(record["split"]),
        images=len(made),
        similarity=float(similarities.mean()),
        base=float(own.mean()),
        gain=float(gains.mean()),
        gain_low=float(low),
        gain_high=float(high),
        failed=bool(low <= 0),
        copies=sum(score >= copy_score for score in scores),
        moved=float(record["moved"]),
        loss_rose=_rose([float(loss) for loss in record["losses"]]),
    )


def _rose(losses: Sequence[float]) -> bool:
    """Whether steps made things worse: one of them beyond all measure, or the last quarter."""
    if max(losses, default=0.0) > _SANE_LOSS:
        return True
    part = len(losses) // 4
    is_long = len(losses) >= _ENOUGH_STEPS
    return is_long and sum(losses[-part:]) > _RISE * sum(losses[:part])


def _nearest(
    images: Sequence[Image.Image],
    exemplars: NDArray[np.float32],
    judge: AttributionModel,
    backbone: Embedder,
) -> NDArray[np.float64]:
    """(images,) cosine of each to the nearest exemplar."""
    features = judge.mappers.synth(_features(images, judge, backbone))
    similarities: NDArray[np.float64] = features.astype(np.float64) @ exemplars.T
    return np.asarray(similarities.max(axis=1))


def _features(
    images: Sequence[Image.Image], judge: AttributionModel, backbone: Embedder
) -> NDArray[np.float32]:
    """(images, dim) base features."""
    pixels = [judge.backbone.preprocessing.apply(image) for image in images]
    parts = [
        backbone.embed(np.stack(pixels[start : start + _BATCH]))
        for start in range(0, len(pixels), _BATCH)
    ]
    return np.concatenate(parts)


def _means(values: NDArray[np.float64], draws: np.random.Generator) -> NDArray[np.float64]:
    """(resamples,) means of bootstrap samples."""
    drawn = values[draws.integers(len(values), size=(_RESAMPLES, len(values)))]
    return np.asarray(drawn.mean(axis=1))
