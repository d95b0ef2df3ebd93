"""The report of a run: that of its results, and what it knows beyond them."""

from __future__ import annotations

import json
from pathlib import Path

from evaluation.bootstrap import ENOUGH, Interval
from evaluation.report import JSON_FILE, MARKDOWN_FILE, TITLES, markdown, write_report
from evaluation.results import METRICS
from evaluation.run import Evaluation
from ingest.errors import RunError, UsageError

__all__ = ["reported_model", "run_markdown", "write_run"]


def write_run(out: Path, evaluation: Evaluation) -> list[Path]:
    """Write `report.write_report`'s files, with `run_markdown` as the page.

    Raises:
        RunError: a file cannot be written.
    """
    files = write_report(out, evaluation.results)
    try:
        (out / MARKDOWN_FILE).write_text(run_markdown(evaluation), "utf-8")
    except OSError as exc:
        raise RunError(f"cannot write the report in {out}: {exc.strerror or exc}") from exc
    return files


def run_markdown(evaluation: Evaluation) -> str:
    """The page of the report, with warnings, differences from the untuned and calibration."""
    lines = [f"**Warning:** {line}." for line in evaluation.warnings]
    if evaluation.differences:
        lines += [
            "## Tuned minus untuned",
            "",
            "In pairs, on the same generated images. Bold: the interval excludes 0, and there are "
            f"at least {ENOUGH} models.",
            "",
            f"| test case | tuned | untuned | {' | '.join(TITLES.values())} |",
            f"|---|---|---|{'--:|' * len(METRICS)}",
        ]
        for one in evaluation.differences:
            cells = [_signed(one.metrics[metric]) for metric in METRICS]
            names = " | ".join(map(_cell, (one.case, one.tuned, one.untuned)))
            lines.append(f"| {names} | {' | '.join(cells)} |")
        lines.append("")
    if evaluation.calibration:
        lines += [
            "## Calibrated influence",
            "",
            "KL: the paper's loss, in nats. As answered: of the influence that answers give, a "
            "thousandth spread evenly; the best softmax, which was fitted on these very images, in "
            "the same measure. ECE: expected calibration error. Support: median number of training "
            "images with influence.",
            "",
            "| test case | attribution model | KL | as answered | best softmax | ECE "
            "| on exemplars | support |",
            "|---|---|--:|--:|--:|--:|--:|--:|",
        ]
        for (model, case), scores in evaluation.calibration.items():
            lines.append(
                f"| {_cell(case)} | {_cell(model)} | {_plain(scores.kl)} "
                f"| {_plain(scores.kl_smoothed)} | {scores.softmax.kl_smoothed:.3f} "
                f"| {scores.reliability.error:.3f} | {_plain(scores.mass)} "
                f"| {scores.scores.support_median:,.0f} |"
            )
    extra = "\n".join(lines).strip("\n")
    page = markdown(evaluation.results)
    return f"{page}\n{extra}\n" if extra else page


def reported_model(folder: Path) -> str | None:
    """The model to compare of a report with several: the only tuned one.

    None where there is one model, or no report that can be read, which `compare` then says.

    Raises:
        UsageError: several models, none or several of them tuned.
    """
    try:
        results = json.loads((folder / JSON_FILE).read_text("utf-8"))["results"]
        names = [str(one["attribution_model"]) for one in results]
        tuned = [str(one["attribution_model"]) for one in results if one["tuned"]]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    if len(names) < 2:
        return None
    if len(tuned) == 1:
        return tuned[0]
    raise UsageError(
        f"{folder} has several attribution models ({', '.join(names)}); choose with --model, once "
        "for both reports or once for each"
    )


def _signed(interval: Interval) -> str:
    mark = "**" if interval.excludes_zero else ""
    ends = "[n/a]"
    if interval.low is not None and interval.high is not None:
        ends = f"[{interval.low:+.3f}, {interval.high:+.3f}]"
    return f"{mark}{interval.mean:+.3f}{mark} {ends}"


def _plain(interval: Interval) -> str:
    ends = "[n/a]"
    if interval.low is not None and interval.high is not None:
        ends = f"[{interval.low:.3f}, {interval.high:.3f}]"
    return f"{interval.mean:.3f} {ends}"


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")
