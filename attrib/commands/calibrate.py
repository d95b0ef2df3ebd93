"""``attrib calibrate``: what a similarity is worth, fitted."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from attrib.ending import ends_in_one_line, warn
from attrib.options import DataOption, DistractorsOption, JsonOption, RootOption, SkipMissingOption

if TYPE_CHECKING:
    from embed.calibrator import Calibrator
    from embed.model import AttributionModel
    from evaluation.fit import CalibratorFit, Objective
    from evaluation.reliability import Reliability
    from evaluation.spectrum import Spectrum

__all__ = ["calibrate"]


@ends_in_one_line
def calibrate(
    cases: Annotated[
        list[Path] | None,
        typer.Argument(
            metavar="[CASE.json]...",
            help="AbC test cases: validation models, which the mapper was not tuned on.",
            show_default=False,
        ),
    ] = None,
    self_: Annotated[
        bool,
        typer.Option("--self", help="Without test cases: on augmented images of the collection."),
    ] = False,
    data: DataOption = Path("attrib-data"),
    model: Annotated[
        str | None,
        typer.Option(
            help="Calibrate this imported or tuned model instead of the data folder's collection.",
            show_default=False,
        ),
    ] = None,
    distractors: DistractorsOption = None,
    root: RootOption = None,
    objective: Annotated[
        Literal["published", "exact"] | None,
        typer.Option(
            help="published: the paper's loss, which usually gives influence a cut-off. exact: the "
            "divergence of the influence that answers give, never worse than the best softmax; "
            "all images have influence then. [default: published; with --self exact]",
            show_default=False,
        ),
    ] = None,
    finite: Annotated[
        bool,
        typer.Option(
            "--finite",
            help="Keep a cut-off, so that answers need not be estimated: published, also with "
            "--self.",
        ),
    ] = False,
    samples: Annotated[int, typer.Option(min=2, help="Images drawn for --self.")] = 256,
    seed: Annotated[int, typer.Option(min=0, help="Of the draw for --self.")] = 0,
    skip_missing: SkipMissingOption = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Fit and show, store nothing.")
    ] = False,
    json: JsonOption = False,
) -> None:
    """Fit the calibrator, which turns similarities into influence.

    On AbC test cases, or with --self on the collection's own images. The result is stored in the
    data folder's collection, or in the model that --model names. Features and index stay as they
    are.
    """
    from evaluation.reliability import reliability
    from ingest.errors import UsageError

    if bool(cases) == self_:
        raise UsageError("give AbC test cases, or --self to calibrate without any; one of the two")
    if self_ and (model is not None or distractors is not None or root is not None):
        raise UsageError("--self takes its model and images from --data alone")
    if finite and objective == "exact":  # now, and not after the images were embedded
        raise UsageError("the exact objective has no cut-off; leave one of the two out")
    if objective is None:
        objective = "exact" if self_ and not finite else "published"
    if self_:
        spectrum, fit, where = _by_itself(data, samples, seed, objective, finite, dry_run)
    else:
        spectrum, fit, where = _by_cases(
            cases or [], data, model, distractors, root, objective, finite, skip_missing, dry_run
        )
    curve = reliability(spectrum, fit.calibrator)
    if json:
        from attrib.console import print_json

        print_json({**fit.to_dict(), "reliability": curve.to_dict(), "stored_in": where})
        return
    for line in _lines(fit, curve):
        typer.echo(line)
    typer.echo(f"stored in {where}" if where else "nothing stored (--dry-run)")


def _by_itself(
    data: Path, samples: int, seed: int, objective: Objective, finite: bool, dry_run: bool
) -> tuple[Spectrum, CalibratorFit, str]:
    from attrib.console import Bar, counted
    from evaluation.fit import fit_calibrator
    from evaluation.self_calibration import self_spectrum
    from search.collection import Collection

    with Collection.open(data) as collection:
        bar = Bar()
        try:
            pairs = self_spectrum(collection, samples=samples, seed=seed, progress=bar)
        finally:
            bar.stop()
        if pairs.unusable:
            warn(
                f"{counted(pairs.unusable, 'drawn image')} left out: neither file nor thumbnail is "
                "there"
            )
        fit = fit_calibrator(
            pairs.spectrum,
            pairs.fitted_on,
            before=collection.model.calibrator,
            objective=objective,
            finite_support=finite,
        )
        if not dry_run:
            collection.recalibrate(fit.calibrator)
    return pairs.spectrum, fit, "" if dry_run else str(data)


def _by_cases(
    files: list[Path],
    data: Path,
    name: str | None,
    spec: str | None,
    root: Path | None,
    objective: Objective,
    finite: bool,
    skip_missing: bool,
    dry_run: bool,
) -> tuple[Spectrum, CalibratorFit, str]:
    from attrib.console import Bar
    from embed.lazy_embedder import LazyEmbedder
    from embed.registry import find_model
    from evaluation.cases import cases_in, exemplar_paths
    from evaluation.extract import case_features
    from evaluation.fit import fit_calibrator
    from evaluation.gallery import distractors
    from evaluation.spectrum import case_spectrum, joined

    cases = [case for file in files for case in cases_in(file, root)]
    for place, case in enumerate(cases):
        cases[place], told = case.checked(skip_missing)
        for line in told:
            warn(line)
    chosen = find_model(name) if name is not None else _model_of(data)
    folder = _folder_of(name) if name is not None and not dry_run else None
    embedder = LazyEmbedder(chosen)
    bar = Bar()
    try:
        gallery = distractors(
            spec or str(data),
            exemplar_paths(cases),
            embedder,
            chosen.backbone,
            weights_hash=chosen.weights_hash,
            note=warn,
            progress=bar,
        ).mapped(chosen.mappers)
        bar.stop()
        features = [
            case_features(
                case, embedder, chosen.backbone, weights_hash=chosen.weights_hash, progress=bar
            ).mapped(chosen.mappers)
            for case in cases
        ]
    finally:
        bar.stop()
    spectrum = joined([case_spectrum(case, gallery) for case in features])
    models = sum(len(case.models) for case in cases)
    fit = fit_calibrator(
        spectrum,
        f"{', '.join(case.name for case in cases)} ({models} models, {len(gallery):,} distractors)",
        before=chosen.calibrator,
        objective=objective,
        finite_support=finite,
    )
    if dry_run:
        return spectrum, fit, ""
    return spectrum, fit, _store(chosen, fit.calibrator, folder, data)


def _model_of(data: Path) -> AttributionModel:
    from search.collection import Collection

    with Collection.open(data) as collection:
        return collection.model


def _folder_of(name: str) -> Path:
    """The folder of the model that was named: asked for before the work rather than after it.

    Raises:
        UsageError: it is a backbone, which has none.
    """
    from embed.registry import models_folder
    from ingest.errors import UsageError

    for folder in (models_folder() / name, Path(name)):
        if (folder / "model.json").is_file():
            return folder
    raise UsageError(
        f"'{name}' is a backbone, whose calibrator cannot be stored; leave --model out to "
        "calibrate the data folder's collection, or add --dry-run"
    )


def _store(model: AttributionModel, calibrator: Calibrator, folder: Path | None, data: Path) -> str:
    """Into a model's folder, or else into the collection; returns where that is."""
    from embed.model import save_calibrator
    from search.collection import Collection

    if folder is not None:
        save_calibrator(folder, calibrator)
        return str(folder)
    with Collection.open(data, model=model) as collection:
        collection.recalibrate(calibrator)
    return str(data)


def _lines(fit: CalibratorFit, curve: Reliability) -> list[str]:
    from math import isfinite

    from attrib.console import counted

    calibrator, after = fit.calibrator, fit.after
    before = f"{fit.kl_before:.3f}" if isfinite(fit.kl_before) else "infinite"
    verdict = "below" if fit.beats_softmax else "not below"
    support = "the whole collection"
    if calibrator.b < 0:
        support = f"{after.support_median:,.0f} images (9 of 10 up to {after.support_p90:,.0f})"
    lines = {
        "fitted on": calibrator.fitted_on,
        "calibrator": f"tau {calibrator.tau:.5g}, b {calibrator.b:.5g}"
        + ("; at the edge of what is looked at: these images do not fix it" * fit.at_bound),
        "divergence": f"{before} before, {fit.kl_after:.3f} after; {verdict} the best softmax's "
        f"{fit.kl_softmax:.3f} (tau {fit.softmax_tau:.4g}); "
        f"{counted(fit.queries, 'image')}, {fit.gallery:,} in the gallery",
        "as answered": f"{fit.before.kl_smoothed:.3f} before, {after.kl_smoothed:.3f} after, "
        f"softmax {fit.softmax.kl_smoothed:.3f} (relu, smoothed)",
        "on exemplars": f"{after.mass:.1%} of the influence ({fit.before.mass:.1%} before); "
        f"{after.exemplars_without:.1%} of the exemplars have none",
        "support": support,
        "error": f"{curve.error:.3f} expected calibration error",
    }
    if fit.finite is not None and fit.finite_scores is not None:
        lines["with a cut-off"] = (
            f"tau {fit.finite.tau:.5g}, b {fit.finite.b:.5g}: divergence "
            f"{fit.finite_scores.kl:.3f}, support {fit.finite_scores.support_median:,.0f}; "
            "answers are never estimated then: --finite"
        )
    return [f"{name:16} {text}" for name, text in lines.items()]
