"""The pictures of "More ground truth", from the tables of that section.

    python -m benchmarks.dataset_figures            # draws docs/dataset-curve.png and -strength.png

Figures are read from the Markdown, so that a picture cannot say what its table does not; each PNG
holds what it was drawn from, by which a test finds one that was not drawn again.
"""

from __future__ import annotations

import argparse
import json
import re
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path
from typing import TYPE_CHECKING

from evaluation.plots import style

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["Point", "Series", "curve_series", "drawn_from", "figures", "strength_series"]

PAGE = Path(__file__).parents[1] / "docs" / "attribution-quality.md"
_SECTION = "## More ground truth"
_COLOURS = ("#0072B2", "#D55E00", "#009E73")
_MARKERS = "osD"
_GREY = "#666666"
_KEY = "attrib"


@dataclass(frozen=True)
class Point:
    """A figure with its interval; `at` is where it stands from left to right."""

    at: float
    mean: float
    low: float
    high: float
    name: str = ""


Series = dict[str, list[Point]]
"""Points by the name of their line."""


def main() -> None:
    """Draw both."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--page", type=Path, default=PAGE, help="with the tables")
    parser.add_argument("--out", type=Path, help="folder for the pictures [default: the page's]")
    arguments = parser.parse_args()
    out = arguments.out or arguments.page.parent
    with style():
        for name, (figure, drawn) in figures(arguments.page.read_text("utf-8")).items():
            told = {"Software": None, _KEY: drawn}
            figure.savefig(out / f"{name}.png", dpi=110, metadata=told)
            print(out / f"{name}.png")


def figures(page: str) -> dict[str, tuple[Figure, str]]:
    """Each picture by name, and as JSON what it is drawn from."""
    curves = {metric: curve_series(page, metric) for metric in ("mAP", "Recall@5")}
    strength = strength_series(page)
    return {
        "dataset-curve": (_curve(curves), drawn_from(curves)),
        "dataset-strength": (_strength(strength), drawn_from({"mAP": strength})),
    }


def drawn_from(series: dict[str, Series]) -> str:
    """As the PNG holds it."""
    plain = {
        metric: {
            name: [[p.at, p.mean, p.low, p.high, p.name] for p in line]
            for name, line in lines.items()
        }
        for metric, lines in series.items()
    }
    return json.dumps(plain, sort_keys=True)


# -- the tables ------------------------------------------------------------------------------------


def curve_series(page: str, metric: str) -> Series:
    """``mAP`` or ``Recall@5`` against the number of models, by source; untuned at 0."""
    lines: Series = {}
    for row in _table(page, "learned from", "models"):
        point = _point(float(row["models"] or 0), row[metric])
        lines.setdefault(row["learned from"], []).append(point)
    return lines


def strength_series(page: str) -> Series:
    """mAP against how far the weights moved, by the model that looks for the exemplars."""
    moved = {row["set"]: row["weights moved (L2)"] for row in _table(page, "set", "method")}
    lines: Series = {}
    for row in _table(page, "mAP of the exemplars"):
        name = row.pop("mAP of the exemplars").strip("`")
        if all(row.values()):  # the last row is of differences
            lines[name] = [_point(float(moved[one]), cell, one) for one, cell in row.items()]
    return lines


def _table(page: str, *first: str) -> list[dict[str, str]]:
    """Rows by column of the section's table whose header begins so."""
    section = page[page.index(_SECTION) :]
    section = section[: section.find("\n## ", 1)]
    lines = [
        [cell.strip() for cell in line.strip("|").split("|")] if line.startswith("|") else []
        for line in section.splitlines()
    ]
    start = next(place for place, cells in enumerate(lines) if cells[: len(first)] == list(first))
    rows = takewhile(bool, lines[start + 2 :])  # what is no line of a table is empty
    return [dict(zip(lines[start], cells, strict=True)) for cells in rows]


def _point(at: float, cell: str, name: str = "") -> Point:
    """``0.591 (0.41-0.77)``."""
    number = r"(\d?\.\d+)"
    found = re.fullmatch(rf"{number} \({number}-{number}\)", cell)
    if found is None:
        raise SystemExit(f"no figure with an interval: {cell!r}")
    mean, low, high = map(float, found.groups())
    return Point(at, mean, low, high, name)


# -- the pictures ----------------------------------------------------------------------------------


def _curve(curves: dict[str, Series]) -> Figure:
    figure, panels = _panels(len(curves), 4.3)
    for axes, (metric, lines) in zip(panels, curves.items(), strict=True):
        learned = {name: line for name, line in lines.items() if name != "untuned"}
        ((untuned,),) = (line for name, line in lines.items() if name == "untuned")
        axes.axhspan(untuned.low, untuned.high, color=_GREY, alpha=0.1, linewidth=0)
        axes.axhline(untuned.mean, color=_GREY, linestyle=(0, (5, 2)), label="untuned")
        for place, (name, line) in enumerate(learned.items()):
            _line(axes, line, place, name, aside=0.075 * (place - 1))
        axes.set_xscale("log", base=2)
        ticks = [2, 4, 8, 16, 32, 64]
        axes.set_xticks(ticks, [str(tick) for tick in ticks])
        axes.minorticks_off()
        axes.set_ylim(0.25, 0.85)
        axes.set_xlabel("customized models learned from (log scale)")
        axes.set_title(metric)
    _legend(figure, panels[0], "bars and band: 95 % intervals over the 14 test models")
    return figure


def _strength(lines: Series) -> Figure:
    figure, (axes,) = _panels(1, 4.3)
    for place, (name, line) in enumerate(lines.items()):
        _line(axes, line, place, name, aside=0.012 * (2 * place - 1))
    sets = next(iter(lines.values()))
    axes.set_xscale("log", base=2)
    axes.set_xticks(
        [point.at for point in sets],
        [f"{point.at:g}\n" + point.name.replace(", ", ",\n") for point in sets],
    )
    axes.minorticks_off()
    axes.set_xlim(4.5, 29)
    axes.set_ylim(0, 0.32)
    axes.set_xlabel("how far the weights moved (L2, log scale), and the set")
    axes.set_ylabel("mAP of the exemplars")
    axes.set_title("12 exemplars, customized more and more strongly")
    _legend(figure, axes, "bars: 95 % intervals over the 12 models")
    return figure


def _line(axes: Axes, line: list[Point], place: int, name: str, *, aside: float) -> None:
    """A line with whiskers; beside the others' by so many factors of e."""
    at = [point.at * 2.718281828**aside for point in line]
    means = [point.mean for point in line]
    below = [point.mean - point.low for point in line]
    above = [point.high - point.mean for point in line]
    axes.errorbar(
        at,
        means,
        yerr=[below, above],
        color=_COLOURS[place],
        marker=_MARKERS[place],
        markersize=5,
        linewidth=1.6,
        elinewidth=0.9,
        capsize=2.5,
        label=name,
    )


def _panels(count: int, height: float) -> tuple[Figure, list[Axes]]:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8.2 if count > 1 else 6.2, height), layout="constrained")
    FigureCanvasAgg(figure)
    panels = list(figure.subplots(1, count, squeeze=False)[0])
    for axes in panels:
        axes.grid(True, axis="y")
    return figure, panels


def _legend(figure: Figure, axes: Axes, note: str) -> None:
    handles, names = axes.get_legend_handles_labels()
    figure.legend(
        handles, names, loc="outside lower center", ncols=4, title=note, title_fontsize=8.5
    )


if __name__ == "__main__":
    main()
