"""``attrib tune``: mappers for attribution, learned from AbC test cases."""

from __future__ import annotations

from collections import Counter
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from attrib.ending import ends_in_one_line, warn
from attrib.options import ExcludeOption, JsonOption, RootOption, SkipMissingOption

__all__ = ["tune"]


@ends_in_one_line
def tune(
    cases: Annotated[
        list[Path],
        typer.Argument(metavar="CASE.json...", help="AbC test cases to learn from, or folders."),
    ],
    name: Annotated[str, typer.Option(help="Name of the new model.")],
    distractors: Annotated[
        str,
        typer.Option(
            help="Training images that no model was customized on: a folder, tar, data folder or "
            "feature folder. Exemplars among them are left out."
        ),
    ],
    validation: Annotated[
        list[Path] | None,
        typer.Option(
            help="AbC test cases to stop by and to calibrate on. [default: a fifth of the models]",
            show_default=False,
        ),
    ] = None,
    exclude: ExcludeOption = None,
    model: Annotated[
        str, typer.Option(help="Backbone to tune on, see `attrib models list`.")
    ] = "efficientnet-lite0-stages",
    root: RootOption = None,
    kind: Annotated[
        Literal["linear", "channel", "mlp"], typer.Option(help="Form of the mappers.")
    ] = "linear",
    start: Annotated[
        Literal["aligned", "standardised", "identity"],
        typer.Option(
            help="Where linear mappers start: identity is the paper's; the others are closed forms "
            "that need few models. channel and mlp always start as the paper has them."
        ),
    ] = "aligned",
    shrinkage: Annotated[float, typer.Option(help="Of the aligned start.")] = 3.0,
    out_dim: Annotated[
        int, typer.Option(min=1, help="Length of the feature (aligned start, mlp).")
    ] = 512,
    temperature: Annotated[float, typer.Option(help="Of the contrastive loss.")] = 0.1,
    orthogonality: Annotated[
        float, typer.Option(help="Weight of the penalty that keeps the maps near orthogonal.")
    ] = 1.0,
    learning_rate: Annotated[float, typer.Option(help="Of Adam.")] = 1e-3,
    steps: Annotated[
        int, typer.Option(min=0, help="Steps at most; 0 keeps the closed form.")
    ] = 400,
    objective: Annotated[
        Literal["exact", "published"], typer.Option(help="Of the calibration; see calibrate.")
    ] = "exact",
    checkpoint: Annotated[
        Path | None,
        typer.Option(help="File to go on from after an interruption.", show_default=False),
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Of batches and of the split.")] = 0,
    skip_missing: SkipMissingOption = False,
    json: JsonOption = False,
) -> None:
    """Tune and calibrate an attribution model on images of customized generators.

    Learns from the models of CASE, stops by the validation models, calibrates on these, and keeps
    the result under its name. No customized model may stand in both.
    """
    from attrib.console import print_json
    from embed.registry import check_new_name, save_model
    from embed.tuning import TuningSettings

    check_new_name(name)
    settings = TuningSettings(
        kind=kind,
        start=start if kind == "linear" else "identity",
        shrinkage=shrinkage,
        out_dim=out_dim,
        temperature=temperature,
        orthogonality=orthogonality,
        learning_rate=learning_rate,
        steps=steps,
        seed=seed,
    )
    made = _run(
        cases,
        validation or [],
        exclude or [],
        name,
        model,
        distractors,
        root,
        settings,
        objective,
        checkpoint,
        skip_missing,
    )
    folder = save_model(made.model)
    if json:
        print_json({"model": name, "folder": str(folder), **made.model.card})
        return
    measured, tuned = made.validation, made.tuned
    typer.echo(
        f"{name}: {kind} mappers {made.model.backbone.dim} -> {made.model.dim} on "
        f"{made.model.backbone.name}, best after {tuned.step} steps from {settings.start}"
    )
    for label, key in (("mAP", "map"), ("Recall@5", "recall_5")):
        gain = measured[f"{key}_gain"]
        between = "one model gives no interval"
        if gain["low"] is not None:
            between = f"difference {gain['low']:+.3f} to {gain['high']:+.3f} (95 %)"
        typer.echo(
            f"  {label:9} {measured[key]['untuned']:.3f} untuned, {measured[key]['tuned']:.3f} "
            f"tuned; {between}"
        )
    typer.echo(
        f"  measured on {measured['models']} validation models, {measured['queries']:,} generated "
        f"images, {measured['distractors']:,} distractors"
    )
    if measured["map"]["tuned"] < measured["map"]["untuned"]:
        warn(
            f"{name} ranks the exemplars of the validation models worse than its backbone does; "
            "it needs more models, a larger --shrinkage or another --start"
        )
    calibrator = made.model.calibrator
    typer.echo(f"  calibrator: tau {calibrator.tau:.4g}, b {calibrator.b:.4g}")
    typer.echo(f"kept in {folder}; use it with --model {name}")


def _run(
    files: list[Path],
    held: list[Path],
    exclude: list[Path],
    name: str,
    base: str,
    spec: str,
    root: Path | None,
    settings: Any,  # noqa: ANN401 (TuningSettings: importing it here would load torch)
    objective: Literal["exact", "published"],
    checkpoint: Path | None,
    skip_missing: bool,
) -> Any:  # noqa: ANN401
    import numpy as np

    from attrib.console import Bar
    from embed.lazy_embedder import LazyEmbedder
    from embed.registry import find_model
    from evaluation.case_set import excluded_exemplars, read_cases
    from evaluation.cases import exemplar_paths
    from evaluation.extract import case_features
    from evaluation.gallery import distractors
    from evaluation.overlap import contents_of, facts_of, refuse_overlap
    from evaluation.tuning import join_cases, split_models, tune_model

    read = partial(read_cases, by_folder=True)
    train = list(read(files, root, skip_missing=skip_missing, note=warn).images)
    stop = list(read(held, root, skip_missing=skip_missing, note=warn).images)
    refuse_overlap(train, stop, "tuning and validation")
    chosen = find_model(base)
    embedder = LazyEmbedder(chosen)
    gone = exemplar_paths([*train, *stop]) | excluded_exemplars(exclude, root, note=warn)
    bar = Bar()
    try:
        features = []
        for case in (*train, *stop):
            features.append(
                case_features(
                    case, embedder, chosen.backbone, weights_hash=chosen.weights_hash, progress=bar
                )
            )
            bar.stop()
        gallery = distractors(
            spec,
            gone,
            embedder,
            chosen.backbone,
            weights_hash=chosen.weights_hash,
            note=warn,
            progress=bar,
        )
    finally:
        bar.stop()
    others = np.concatenate([np.asarray(block) for block in gallery.blocks(8192)])
    learn = join_cases(features[: len(train)], ", ".join(case.name for case in train))
    known = {f"{case.name}/{one.id}": (case, one) for case in train for one in case.models}
    if stop:
        check = join_cases(features[len(train) :], ", ".join(case.name for case in stop))
    else:
        learn, check = split_models(learn, 0.2, settings.seed)
    learnt = [known[one] for one in learn.model_ids]
    return tune_model(
        chosen if chosen.weights_hash else chosen.with_weights(embedder().weights_hash),
        name,
        learn,
        check,
        others,
        settings,
        calibrate_on=f"{check.name} ({len(check.model_ids)} models, {len(others):,} distractors)",
        objective=objective,
        facts={
            "cases": [case.name for case in train],
            "validation_cases": [case.name for case in stop],
            "kinds": dict(
                sorted(Counter(one.category for _, one in learnt if one.category).items())
            ),
            **facts_of([contents_of(one, case.root) for case, one in learnt]),
        },
        checkpoint=checkpoint,
        watch=_watch,
    )


def _watch(step: int, loss: float, score: float) -> None:
    warn(f"step {step}: " + (f"loss {loss:.4f}, " if step else "") + f"validation mAP {score:.4f}")
