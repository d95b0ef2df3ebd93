"""``attrib evaluate``: how good an attribution model is, by the paper's protocol."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from attrib.ending import ends_in_one_line, warn
from attrib.options import (
    DataOption,
    DistractorsOption,
    ExcludeOption,
    JsonOption,
    RootOption,
    SkipMissingOption,
)

if TYPE_CHECKING:
    from attrib.console import Bar
    from embed.model import AttributionModel
    from evaluation.bootstrap import Interval
    from evaluation.compare import Comparison
    from evaluation.run import Difference, Evaluation

__all__ = ["evaluate"]

_GROUPS = {
    "type": ("by_prompt_type", "prompt type"),
    "kind": ("by_kind", "kind of model"),
    "exemplars": ("by_exemplars", "exemplars a model"),
}


@ends_in_one_line
def evaluate(
    cases: Annotated[
        list[Path] | None,
        typer.Argument(
            metavar="[CASE]...",
            help="AbC test cases: JSON files, folders of them, or official feature files (.pth), "
            "which need a model on the same backbone.",
            show_default=False,
        ),
    ] = None,
    models: Annotated[
        list[str] | None,
        typer.Option(
            "--model",
            help="A model to score; may be repeated. [default: the data folder's, or else "
            "efficientnet-lite0]",
            show_default=False,
        ),
    ] = None,
    distractors: DistractorsOption = None,
    exclude: ExcludeOption = None,
    root: RootOption = None,
    skip_missing: SkipMissingOption = False,
    untuned: Annotated[
        bool,
        typer.Option(help="Score the untuned backbone beside a tuned model."),
    ] = True,
    through_index: Annotated[
        bool,
        typer.Option(
            "--through-index",
            help="Score through an approximate index too, so that its error is seen apart.",
        ),
    ] = False,
    allow_seen: Annotated[
        bool,
        typer.Option(
            "--allow-seen", help="Evaluate a model on what it was tuned on; the report says so."
        ),
    ] = False,
    by: Annotated[
        Literal["type", "kind", "exemplars"] | None,
        typer.Option(
            help="A second table: by prompt type, kind of model, or number of exemplars.",
            show_default=False,
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            help="Write a report into this folder: rows, JSON, Markdown and pictures.",
            show_default=False,
        ),
    ] = None,
    write_card: Annotated[
        bool,
        typer.Option(
            "--write-card",
            help="Keep these figures in the card of each --model (see `attrib models card`), which "
            "is a model of yours or a model folder.",
        ),
    ] = False,
    compare: Annotated[
        tuple[Path, Path] | None,
        typer.Option(
            metavar="A B",
            help="Instead: test the difference of two reports, B - A, in pairs. --model says which "
            "model of both, or of A and of B; by default the only tuned one.",
            show_default=False,
        ),
    ] = None,
    data: DataOption = Path("attrib-data"),
    cache: Annotated[
        Path | None,
        typer.Option(
            help="Where base features are kept. [default: the user's cache folder]",
            show_default=False,
        ),
    ] = None,
    json: JsonOption = False,
) -> None:
    """Score attribution models on AbC test cases.

    For each generated image the exemplars of its model are looked for among all distractors. A
    tuned model is scored beside its untuned backbone. Intervals are 95 %, over models.
    """
    from ingest.errors import UsageError

    if compare is not None:
        if cases:
            raise UsageError("--compare takes the folders of two reports, and no test case")
        if write_card:
            raise UsageError("--write-card keeps the figures of test cases, not of --compare")
        _show_comparison(_compared(*compare, models or []), json)
        return
    if not cases:
        raise UsageError("give AbC test cases, or --compare with the folders of two reports")
    has_data = (data / "attrib.json").is_file()
    if distractors is None and not has_data:
        raise UsageError(
            f"name the distractors with --distractors, or a data folder with --data; {data} is none"
        )
    folders = _card_folders(models or []) if write_card else []
    from evaluation.case_set import excluded_exemplars, read_cases
    from evaluation.run import evaluate_models

    evaluation = evaluate_models(
        _models(models or [], data if has_data else None),
        read_cases(cases, root, skip_missing=skip_missing, note=warn),
        distractors if distractors is not None else data,
        watch=_watch,
        note=warn,
        exclude=excluded_exemplars(exclude or [], root, note=warn),
        untuned=untuned,
        through=through_index,
        allow_seen=allow_seen,
        cache=cache,
    )
    if out is not None:
        from evaluation.run_report import write_run

        write_run(out, evaluation)
    for folder in folders:
        _write_card(folder, evaluation)
    if json:
        from attrib.console import print_json

        print_json(evaluation.to_dict())
        return
    _show(evaluation, by)
    if out is not None:
        typer.echo(f"report: {out}")
    for folder in folders:
        typer.echo(f"card: {folder}")


def _card_folders(names: list[str]) -> list[Path]:
    """Asked for before the work rather than after it."""
    from embed.registry import own_folder
    from ingest.errors import UsageError

    if not names:
        raise UsageError("--write-card needs --model with a model of yours or a model folder")
    try:
        return [own_folder(name) for name in names]
    except UsageError as exc:
        raise UsageError(f"--write-card: {exc}") from exc


def _write_card(folder: Path, evaluation: Evaluation) -> None:
    from embed.model import load, save_card
    from evaluation.card import with_figures

    save_card(folder, with_figures(load(folder), evaluation))


def _models(names: list[str], data: Path | None) -> list[AttributionModel]:
    from embed.backbones import DEFAULT_BACKBONE
    from embed.registry import find_model

    if names or data is None:
        return [find_model(name) for name in names or [DEFAULT_BACKBONE]]
    from search.collection import Collection

    with Collection.open(data) as collection:
        return [collection.model]


@contextmanager
def _watch(doing: str) -> Iterator[Bar]:
    from attrib.console import Bar

    bar = Bar(doing)
    try:
        yield bar
    finally:
        bar.stop()


# -- what is shown ---------------------------------------------------------------------------------


def _show(evaluation: Evaluation, by: str | None) -> None:
    from attrib.console import counted, table
    from evaluation.report import TITLES

    columns = [("model", "cut"), *((title, "right") for title in TITLES.values())]
    for first in evaluation.results[0].cases:
        name = first.case
        rows = []
        parts = []
        for result in evaluation.results:
            case = result.of(name)
            if case is None:
                continue
            rows.append(
                [result.name, *(_figure(case.overall.metrics[metric]) for metric in TITLES)]
            )
            for group in getattr(case, _GROUPS[by][0]) if by is not None else []:
                parts.append(
                    [
                        group.label,
                        result.name,
                        f"{group.queries:,}",
                        *(_figure(group.metrics[m]) for m in ("recall_at_10", "average_precision")),
                    ]
                )
        title = (
            f"{name}: {counted(len(first.ranks), 'generated image')} of "
            f"{counted(len(first.model_ids), 'model')} among "
            f"{counted(first.ranks.distractors, 'distractor')}"
        )
        table(columns, rows, title=title)
        if by is not None:
            heads = [(_GROUPS[by][1], "left"), ("model", "cut"), ("images", "right")]
            table([*heads, ("Recall@10", "right"), ("mAP", "right")], parts)
    _show_calibration(evaluation)
    _show_index(evaluation)
    for difference in evaluation.differences:
        typer.echo(_in_words(difference))


def _show_calibration(evaluation: Evaluation) -> None:
    from attrib.console import table

    rows = [
        [
            case,
            model,
            f"{one.kl.mean:.3f}",
            f"{one.kl_smoothed.mean:.3f}",
            f"{one.softmax.kl_smoothed:.3f}",
            f"{one.reliability.error:.3f}",
            f"{one.mass.mean:.1%}",
            f"{one.scores.support_median:,.0f}",
        ]
        for (model, case), one in evaluation.calibration.items()
    ]
    if rows:
        heads = ("KL", "answered", "softmax", "ECE", "on exemplars", "support")
        columns = [("test case", "cut"), ("model", "cut"), *((head, "right") for head in heads)]
        table(columns, rows, title="Calibrated influence")


def _show_index(evaluation: Evaluation) -> None:
    from attrib.console import table
    from evaluation.report import TITLES

    rows = []
    for result in evaluation.results:
        for case, through in result.through_index.items():
            content = through.to_dict()
            errors = [f"{content['index_error'][m]['mean']:+.4f}" for m in TITLES]
            rows.append([case, result.name, f"{content['index_recall']['mean']:.4f}", *errors])
    if rows:
        columns = [("test case", "left"), ("model", "cut"), ("index recall", "right")]
        columns += [(title, "right") for title in TITLES.values()]
        table(columns, rows, title="Through an index: what it adds to or takes from the figures")


def _in_words(difference: Difference) -> str:
    from evaluation.report import TITLES

    said = ", ".join(
        f"{TITLES[metric]} {_difference(difference.metrics[metric])}"
        for metric in ("recall_at_5", "average_precision")
    )
    return f"{difference.case}: {difference.tuned} minus {difference.untuned}: {said}"


def _difference(interval: Interval) -> str:
    from evaluation.bootstrap import ENOUGH

    if interval.low is None or interval.high is None:
        return f"{interval.mean:+.3f} (one model says nothing of chance)"
    ends = f"{interval.mean:+.3f} [{interval.low:+.3f}, {interval.high:+.3f}]"
    if interval.models < ENOUGH:
        return f"{ends} (fewer than {ENOUGH} models: may be chance)"
    return f"{ends} ({'excludes' if interval.excludes_zero else 'does not exclude'} zero)"


def _figure(interval: Interval) -> str:
    """``0.210 .15-.28``: what leaves room for names in 100 columns."""
    if not interval.queries:
        return ""
    if interval.low is None or interval.high is None:
        return f"{interval.mean:.3f}"
    low, high = (f"{max(end, 0):.2f}".removeprefix("0") for end in (interval.low, interval.high))
    return f"{interval.mean:.3f} {low}-{high}"


# -- two reports -----------------------------------------------------------------------------------


def _compared(a: Path, b: Path, names: list[str]) -> Comparison:
    from evaluation.compare import compare
    from evaluation.run_report import reported_model
    from ingest.errors import UsageError

    if len(names) > 2:
        raise UsageError("--compare takes one --model for both reports, or one for each")
    one, other = names[0] if names else None, names[-1] if names else None
    return compare(
        a,
        b,
        model_a=one if one is not None else reported_model(a),
        model_b=other if other is not None else reported_model(b),
    )


def _show_comparison(comparison: Comparison, json: bool) -> None:
    from attrib.console import print_json, table
    from evaluation.report import TITLES

    if json:
        print_json(comparison.to_dict())
        return
    rows = [
        [one.case, TITLES[metric], f"{a:.3f}", f"{b:.3f}", _difference(difference)]
        for one in comparison.cases
        for metric, (a, b, difference) in one.metrics.items()
    ]
    columns = [("test case", "cut"), ("metric", "left"), ("A", "right"), ("B", "right")]
    table(
        [*columns, ("B - A", "cut")],
        rows,
        title=f"A = {comparison.a}, B = {comparison.b}; 95 % intervals over models, in pairs",
    )
