"""The report of an evaluation, as a folder: rows, summaries, tables to read and pictures.

`results.parquet` has a row a generated image and attribution model, `results.json` the summaries
with their intervals, `results.md` the tables, and beside them lie the pictures as PNG and SVG. The
same results give the same bytes.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path

from evaluation.bootstrap import RESAMPLES, Interval
from evaluation.results import METRICS, SCHEMA, CaseResult, ModelResults, Summary
from ingest.errors import RunError, UsageError

__all__ = ["JSON_FILE", "MARKDOWN_FILE", "ROWS_FILE", "TITLES", "markdown", "write_report"]

ROWS_FILE = "results.parquet"
JSON_FILE = "results.json"
MARKDOWN_FILE = "results.md"

TITLES = {
    "recall_at_5": "Recall@5",
    "recall_at_10": "Recall@10",
    "recall_at_100": "Recall@100",
    "average_precision": "mAP",
}
"""Of the metrics, for people."""

_GROUPS = (
    ("by_prompt_type", "prompt type"),
    ("by_kind", "kind of model"),
    ("by_exemplars", "exemplars a model"),
)


def write_report(out: Path, results: Sequence[ModelResults]) -> list[Path]:
    """Write results, tables and pictures into `out`, which is made where it is not there.

    Args:
        out: a folder; files of an earlier report with the same names are replaced.
        results: one an attribution model.

    Returns:
        The files written.

    Raises:
        UsageError: no result, two of one name, or a test case that was scored on other distractors
            or queries with one model than with another: these do not belong in one table.
        RunError: a file cannot be written.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    ordered = _ordered(results)
    files = [out / ROWS_FILE, out / JSON_FILE, out / MARKDOWN_FILE]
    tables = []
    for model in ordered:
        for case in model.cases:
            table = case.table()
            name = pa.array([model.name] * len(table), pa.string())
            tables.append(table.add_column(0, "attribution_model", name))
    content = {"schema": SCHEMA, "results": [model.to_dict() for model in ordered]}
    try:
        out.mkdir(parents=True, exist_ok=True)
        pq.write_table(pa.concat_tables(tables), files[0])
        files[1].write_text(json.dumps(content, indent=2, allow_nan=False) + "\n", "utf-8")
        files[2].write_text(markdown(ordered), "utf-8")
        return files + _draw(out, ordered)
    except OSError as exc:
        raise RunError(f"cannot write the report in {out}: {exc.strerror or exc}") from exc


def markdown(results: Sequence[ModelResults]) -> str:
    """The tables: test cases by attribution models for each metric, then each case's groups."""
    ordered = _ordered(results)
    cases = _cases(ordered)
    lines = [
        "# Attribution quality",
        "",
        "Each number is a mean over generated images, in brackets its 95 % interval: a bootstrap "
        f"over models ({RESAMPLES:,} resamples), since the images of one model are not "
        "independent. Ties count against the model. The best of a row is bold; that it is best "
        "does not say that the difference is more than chance: compare the two in pairs.",
        "",
    ]
    if any(summary.models < 2 for model in ordered for summary in _all(model)):
        lines += ["Where there are fewer than two models, there is no interval: n/a.", ""]
    lines += ["| test case | generated images | models | distractors |", "|---|--:|--:|--:|"]
    for case in cases:
        first = next(result for model in ordered if (result := model.of(case)) is not None)
        lines.append(
            f"| {_cell(case)} | {len(first.ranks):,} | {first.overall.models:,} "
            f"| {first.ranks.distractors:,} |"
        )
    for metric in METRICS:
        lines += ["", f"## {TITLES[metric]}", "", *_header("test case", ordered)]
        for case in cases:
            found = [model.of(case) for model in ordered]
            row = [None if result is None else result.overall.metrics[metric] for result in found]
            lines.append(_row(case, row))
    for case in cases:
        lines += ["", f"## {_cell(case)} in parts"]
        for attribute, title in _GROUPS:
            lines += _part(ordered, case, attribute, title)
    lines += _through(ordered)
    return "\n".join(lines) + "\n"


def _part(ordered: list[ModelResults], case: str, attribute: str, title: str) -> list[str]:
    """Recall@10 and mAP of each group; nothing where one group is all there is."""
    groups: list[dict[str, Summary]] = []
    for model in ordered:
        result = model.of(case)
        found: list[Summary] = [] if result is None else getattr(result, attribute)
        groups.append({summary.label: summary for summary in found})
    labels = list(dict.fromkeys(label for group in groups for label in group))
    lines = []
    if len(labels) > 1:
        for metric in ("recall_at_10", "average_precision"):
            lines += ["", *_header(f"{TITLES[metric]} by {title}", ordered)]
            for label in labels:
                row = [group[label].metrics[metric] if label in group else None for group in groups]
                lines.append(_row(label, row))
    return lines


def _through(ordered: list[ModelResults]) -> list[str]:
    """What an index made of it, where one was asked for."""
    lines = []
    for model in ordered:
        for case, result in model.through_index.items():
            content = result.to_dict()
            for metric, error in content["index_error"].items():
                within = f"{metric}_within" if metric == "average_precision" else metric
                lines.append(
                    f"| {_cell(case)} | {_cell(model.name)} | {result.limit:,} "
                    f"| {_number(content['index_recall'])} | {TITLES[metric]} "
                    f"| {_number(content['exact'][within])} "
                    f"| {_number(content['through_index'][metric])} "
                    f"| {_number(error, signed=True)} |"
                )
    if not lines:
        return []
    return [
        "",
        "## Through an index",
        "",
        "The same queries through an approximate index of the distractors. An exemplar behind all "
        "hits counts as nothing in both mAPs.",
        "",
        "| test case | attribution model | hits | index recall | metric | exact | through index "
        "| index error |",
        "|---|---|--:|--:|---|--:|--:|--:|",
        *lines,
    ]


def _draw(out: Path, ordered: list[ModelResults]) -> list[Path]:
    from evaluation import plots

    files: list[Path] = []
    with plots.style():
        cases = [case for case in _cases(ordered) if _scored(ordered, case)]
        for case in cases:
            figure = plots.recall_curves(case, _scored(ordered, case))
            files += plots.save(figure, out / f"recall-{_file(case)}")
        if cases:
            files += plots.save(plots.precision_bars(ordered, cases), out / "map")
        for model in ordered:
            for label, curve in model.calibration.items():
                title = f"{model.name}, {label}" if label else model.name
                figure = plots.calibration_curve(title, curve)
                files += plots.save(figure, out / f"calibration-{_file(title)}")
    return files


def _scored(ordered: list[ModelResults], case: str) -> list[tuple[ModelResults, CaseResult]]:
    """The models that were scored on a test case, if it has a query at all."""
    found = [(model, model.of(case)) for model in ordered]
    return [(model, result) for model, result in found if result is not None and len(result.ranks)]


def _ordered(results: Sequence[ModelResults]) -> list[ModelResults]:
    """By base in order of appearance, the untuned before the tuned; checked to belong together."""
    if not results:
        raise UsageError("there is nothing to report: no attribution model was scored")
    names = [model.name for model in results]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise UsageError(f"two results of attribution model {twice}; a report has one of each")
    first: dict[str, tuple[str, CaseResult]] = {}
    for model in results:
        for case in model.cases:
            name, other = first.setdefault(case.case, (model.name, case))
            why = _apart(other, case)
            if why:
                raise UsageError(
                    f"{case.case}: {model.name} and {name} were scored on {why}; "
                    "they do not belong in one table"
                )
    bases = list(dict.fromkeys(model.base for model in results))
    return sorted(results, key=lambda model: (bases.index(model.base), model.tuned))


def _apart(one: CaseResult, other: CaseResult) -> str:
    if one.ranks.distractors != other.ranks.distractors or one.gallery != other.gallery:
        return "different distractors"
    if one.queries != other.queries:
        return "different generated images"
    return ""


def _cases(ordered: Sequence[ModelResults]) -> list[str]:
    return list(dict.fromkeys(case.case for model in ordered for case in model.cases))


def _header(first: str, ordered: Sequence[ModelResults]) -> list[str]:
    names = [f"{_cell(model.name)} ({'tuned' if model.tuned else 'untuned'})" for model in ordered]
    return [f"| {first} | {' | '.join(names)} |", f"|---|{'--:|' * len(names)}"]


def _row(label: str, intervals: Sequence[Interval | None]) -> str:
    means = [one.mean for one in intervals if one is not None and one.queries]
    best = max(means) if len(means) > 1 else None
    cells = []
    for one in intervals:
        if one is None or not one.queries:
            cells.append("")
            continue
        mean = f"**{one.mean:.3f}**" if one.mean == best else f"{one.mean:.3f}"
        cells.append(f"{mean} {_ends(one.low, one.high)}")
    return f"| {_cell(label)} | {' | '.join(cells)} |"


def _number(content: dict[str, float | None], *, signed: bool = False) -> str:
    mean = content["mean"]
    if mean is None:
        return ""
    sign = "+" if signed else ""
    return f"{mean:{sign}.3f} {_ends(content['low'], content['high'])}"


def _ends(low: float | None, high: float | None) -> str:
    return "[n/a]" if low is None or high is None else f"[{low:.3f}, {high:.3f}]"


def _all(model: ModelResults) -> list[Summary]:
    return [
        summary
        for case in model.cases
        for summary in (case.overall, *case.by_prompt_type, *case.by_kind, *case.by_exemplars)
    ]


def _cell(text: str) -> str:
    """As text in a cell of a Markdown table."""
    return re.sub(r"([\\|*`<\[])", r"\\\1", " ".join(text.split()))


def _file(name: str) -> str:
    """As part of a file's name."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", name).strip("-.") or "unnamed"
