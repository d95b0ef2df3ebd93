"""An evaluation from end to end: test cases, distractors and models in, results out.

Base features are extracted once a backbone, whatever number of models stand on it; a tuned model is
scored beside the untuned one, on the same generated images among the same distractors.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from embed.lazy_embedder import LazyEmbedder
from evaluation.bootstrap import Interval, paired_difference
from evaluation.calibration_scores import CalibrationScores, calibration_scores
from evaluation.case_set import CaseSet
from evaluation.cases import TestCase, exemplar_paths
from evaluation.extract import Progress, case_features
from evaluation.gallery import Gallery, distractors
from evaluation.lineup import by_backbone, is_tuned, seen_models
from evaluation.results import METRICS, SCHEMA, CaseResult, ModelResults, evaluate, gallery_hash
from ingest.errors import ModelError

if TYPE_CHECKING:
    from embed.model import AttributionModel
    from evaluation.features import CaseFeatures
    from evaluation.through_index import ThroughIndex
    from search.edge import EdgeIndex

__all__ = ["Difference", "Evaluation", "evaluate_models"]

Note = Callable[[str], None]
Watch = Callable[[str], AbstractContextManager[Progress]]
"""Shows long work while the context is open; called with what is done."""

_IN_MEMORY = 1 << 30  # bytes of features that are mapped once and kept
_SHOWN_FROM = 1_000_000_000  # similarities from which ranking takes seconds


@dataclass(frozen=True)
class Difference:
    """A tuned model minus the untuned one of its backbone, image by image.

    Attributes:
        case: the test case.
        tuned, untuned: names of the models.
        metrics: by name, see `results.METRICS`.
    """

    case: str
    tuned: str
    untuned: str
    metrics: Mapping[str, Interval]


@dataclass(frozen=True)
class Evaluation:
    """All models on all test cases.

    Attributes:
        results: one a model; the models of one backbone together, the untuned before the tuned.
        differences: one a tuned model and test case, where the untuned was scored too.
        calibration: by model and test case, of models whose calibrator was fitted.
        warnings: what a reader of the figures must know.
    """

    results: tuple[ModelResults, ...]
    differences: tuple[Difference, ...]
    calibration: Mapping[tuple[str, str], CalibrationScores]
    warnings: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """The content of a report's `results.json`."""
        return {"schema": SCHEMA, "results": [result.to_dict() for result in self.results]}


def evaluate_models(
    models: Sequence[AttributionModel],
    cases: CaseSet,
    spec: str | Path,
    *,
    watch: Watch,
    note: Note,
    exclude: Collection[Path] = (),
    untuned: bool = True,
    through: bool = False,
    allow_seen: bool = False,
    cache: Path | None = None,
) -> Evaluation:
    """Score models by the paper's protocol on the same test cases and distractors.

    Args:
        models: of different names.
        cases: see `read_cases`.
        spec: the distractors, see `evaluation.gallery.distractors`. The exemplars of all `cases`
            are taken out.
        watch: shows progress.
        note: takes lines for the user.
        exclude: files that are no distractors either, see `excluded_exemplars`.
        untuned: score the untuned model of a backbone that is named with tuned ones only.
        through: also through an approximate index of the distractors.
        allow_seen: warn where a model was tuned on models of the test cases, rather than refuse.
        cache: of base features; `evaluation.extract.default_cache` when None.

    Raises:
        UsageError: two models of one name, or on different weights of one backbone; a model that
            was tuned on these test cases (without `allow_seen`).
        ModelError, ModelMismatchError: features of another backbone.
        SourceError, WeightsError, DataFolderError: as `distractors` and `case_features`.
    """
    groups = by_backbone(models, untuned)
    _check_dims(models, cases.files)
    seen = seen_models(models, cases.images, allow_seen)
    for line in seen.values():
        note(line)
    gone = exemplar_paths(cases.images) | set(exclude)
    results: list[ModelResults] = []
    differences: list[Difference] = []
    calibration: dict[tuple[str, str], CalibrationScores] = {}
    for group in groups:
        base = _extracted(group[0], cases, spec, gone, cache, watch, note)
        plain: _Scored | None = None
        for model in group:
            scored = _score(model, base, through, watch)
            if not is_tuned(model):
                plain = plain or scored
            against = _against(plain, scored) if plain is not None and is_tuned(model) else []
            results.append(_result(scored, against, seen.get(model.name, "")))
            differences += against
            calibration |= {(model.name, case): one for case, one in scored.calibration.items()}
    return Evaluation(tuple(results), tuple(differences), calibration, tuple(seen.values()))


def _check_dims(models: Sequence[AttributionModel], files: Sequence[CaseFeatures]) -> None:
    for file in files:
        for model in models:
            if file.dim != model.backbone.dim:
                raise ModelError(
                    f"{file.name} has features of {file.dim} numbers, {model.name} takes "
                    f"{model.backbone.dim}; name a model on the backbone that they were made with"
                )


# -- base features ---------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Subject:
    """A test case in base features. `kinds`: one a model; `images`: one a query, None: numbered."""

    base: CaseFeatures
    kinds: tuple[str, ...]
    images: tuple[str, ...] | None


@dataclass(frozen=True)
class _Base:
    subjects: list[_Subject]
    gallery: Gallery
    gallery_id: str


def _extracted(
    model: AttributionModel,
    cases: CaseSet,
    spec: str | Path,
    gone: set[Path],
    cache: Path | None,
    watch: Watch,
    note: Note,
) -> _Base:
    backbone, weights = model.backbone, model.weights_hash
    embedder = LazyEmbedder(model)
    with watch("embedding distractors") as bar:
        gallery = distractors(
            spec,
            gone,
            embedder,
            backbone,
            cache,
            weights_hash=weights,
            skip_bad=True,
            note=note,
            progress=bar,
        )
    subjects = []
    for case in cases.images:
        with watch(f"embedding {case.name}") as bar:
            base = case_features(
                case, embedder, backbone, cache, weights_hash=weights, progress=bar
            )
        kinds = tuple(one.category for one in case.models)
        subjects.append(_Subject(base, kinds, _image_names(case)))
    subjects += [_Subject(base, ("",) * len(base.model_ids), None) for base in cases.files]
    return _Base(subjects, gallery, gallery_hash(gallery.keys))


def _image_names(case: TestCase) -> tuple[str, ...] | None:
    """(queries,) paths in the order of `case_features`; None where a model names one twice."""
    for model in case.models:
        paths = [path for made in model.synth.values() for path in made]
        if len(set(paths)) < len(paths):
            return None
    return tuple(path for model in case.models for made in model.synth.values() for path in made)


# -- scores ----------------------------------------------------------------------------------------


@dataclass
class _Scored:
    model: AttributionModel
    cases: list[CaseResult] = field(default_factory=list)
    calibration: dict[str, CalibrationScores] = field(default_factory=dict)
    through: dict[str, ThroughIndex] = field(default_factory=dict)


def _score(model: AttributionModel, base: _Base, through: bool, watch: Watch) -> _Scored:
    from evaluation.spectrum import case_spectrum
    from evaluation.through_index import through_index

    scored = _Scored(model)
    gallery = base.gallery.mapped(model.mappers)
    if len(gallery) * gallery.dim * 4 <= _IN_MEMORY:
        gallery = gallery.materialised()
    with _index_of(gallery, through) as index:
        for subject in base.subjects:
            case = subject.base.mapped(model.mappers)
            with _ranking(len(gallery) * len(case.synth), case.name, watch) as progress:
                result = evaluate(
                    case,
                    gallery,
                    kind=subject.kinds,
                    images=subject.images,
                    gallery_id=base.gallery_id,
                    progress=progress,
                )
            scored.cases.append(result)
            if model.calibrator.fitted:
                spectrum = case_spectrum(case, gallery)
                scored.calibration[case.name] = calibration_scores(spectrum, model.calibrator)
            if index is not None:
                scored.through[case.name] = through_index(case, index, result.ranks)
    return scored


@contextmanager
def _index_of(gallery: Gallery, wanted: bool) -> Iterator[EdgeIndex | None]:
    """An index of the distractors that is gone again afterwards."""
    if not wanted:
        yield None
        return
    from evaluation.through_index import build_index

    with tempfile.TemporaryDirectory(prefix="attrib-index-", ignore_cleanup_errors=True) as scratch:
        index = build_index(gallery, Path(scratch) / "index")
        try:
            yield index
        finally:
            index.close()


@contextmanager
def _ranking(
    similarities: int, name: str, watch: Watch
) -> Iterator[Callable[[int, int], None] | None]:
    """Progress of ranking where it takes long enough to be looked at."""
    if similarities < _SHOWN_FROM:
        yield None
        return
    done = 0
    with watch(f"ranking {name}") as bar:

        def told(so_far: int, of: int) -> None:
            nonlocal done
            if not done:
                bar.start(of)
            bar.advance(so_far - done)
            done = so_far

        yield told


def _against(plain: _Scored, tuned: _Scored) -> list[Difference]:
    found = []
    for one, other in zip(plain.cases, tuned.cases, strict=True):
        intervals = paired_difference(one.metrics, other.metrics, one.model)
        metrics = dict(zip(METRICS, intervals, strict=True))
        found.append(Difference(one.case, tuned.model.name, plain.model.name, metrics))
    return found


def _result(scored: _Scored, against: Sequence[Difference], warning: str) -> ModelResults:
    model = scored.model
    notes: dict[str, Any] = {
        "fingerprint": model.fingerprint if model.weights_hash else None,
        "tuned_on": model.tuned_on,
        "calibrator": asdict(model.calibrator),
        "calibration_scores": {case: one.to_dict() for case, one in scored.calibration.items()},
        "minus_untuned": {
            one.case: {
                "untuned": one.untuned,
                **{name: interval.to_dict() for name, interval in one.metrics.items()},
            }
            for one in against
        },
        "warnings": [warning] if warning else [],
    }
    return ModelResults(
        name=model.name,
        cases=tuple(scored.cases),
        base=model.backbone.name,
        tuned=is_tuned(model),
        calibration={case: one.reliability for case, one in scored.calibration.items()},
        through_index=scored.through,
        notes=notes,
    )
