"""How the outcome of a dataset's check is shown."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from attrib.console import table
from attrib.ending import warn
from ingest.errors import RunError

if TYPE_CHECKING:
    from evaluation.dataset.check import Check

__all__ = ["end_in_problems", "show_check"]


def end_in_problems(folder: Path, check: Check) -> None:
    """Fail where the dataset is not whole.

    Raises:
        RunError: it is not.
    """
    if check.problems:
        count = len(check.problems)
        raise RunError(
            f"{folder} is not whole: {count} of its files {'is' if count == 1 else 'are'} "
            "missing, changed or unknown"
        )


def show_check(check: Check) -> None:
    """A table of the models, problems before it and what is to be done about them after it."""
    for problem in check.problems:
        warn(problem)
    table(
        [
            ("model", "left"),
            ("name", "cut"),
            ("split", "left"),
            ("similarity", "right"),
            ("generator itself", "right"),
            ("gain (95 %)", "right"),
            ("copies", "right"),
        ],
        [
            [
                m.id,
                m.name,
                m.split,
                f"{m.similarity:.3f}",
                f"{m.base:.3f}",
                f"{m.gain:+.3f} ({m.gain_low:+.3f}, {m.gain_high:+.3f})",
                f"{m.copies} of {m.images}",
            ]
            for m in check.models
        ],
        title=f"Similarity of images to their exemplars, by {check.judge}",
    )
    all_of_them = len(check.models)
    apart = sum(model.fell_apart for model in check.failed)
    if weak := len(check.failed) - apart:
        warn(
            f"{weak} of {all_of_them} models are not surely customized: the interval of their gain "
            "over the generator itself is not above 0; raise --steps or --learning-rate"
        )
    if apart:
        warn(
            f"{apart} of {all_of_them} models fell apart: their loss rose, or their images are "
            "farther from the exemplars than the generator's own; lower --learning-rate"
        )
    if check.copying:
        warn(
            f"{len(check.copying)} of {len(check.models)} models mostly copy their exemplar; lower "
            "--steps or --learning-rate"
        )
