"""The pictures of a report: recall@k curves, mAP bars, calibration curves; PNG and SVG.

Colours are those of Okabe and Ito, which people with any colour vision tell apart; models that are
not tuned are dashed or hatched besides. Figures are made without pyplot, whose state is global, and
the same input gives the same bytes.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from evaluation.bootstrap import Interval
from evaluation.results import CaseResult, ModelResults

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from evaluation.reliability import Reliability, ReliabilityBin

__all__ = ["calibration_curve", "precision_bars", "recall_curves", "save", "style"]

_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#999999")
_MARKERS = "osD^vP*X"
_GREY = "#666666"
_DPI = 160


@contextmanager
def style() -> Iterator[None]:
    """Fonts, lines and reproducible ids for the figures made and saved within."""
    import matplotlib as mpl

    with mpl.rc_context(
        {
            "font.family": "DejaVu Sans",  # comes with matplotlib: the same on every machine
            "font.size": 9.5,
            "axes.titlesize": 11,
            "axes.titlelocation": "left",
            "axes.titlepad": 10,
            "axes.spines.top": False,
            "axes.spines.right": False,
            "axes.edgecolor": _GREY,
            "axes.axisbelow": True,
            "grid.color": "#dddddd",
            "grid.linewidth": 0.7,
            "xtick.color": _GREY,
            "ytick.color": _GREY,
            "xtick.labelcolor": "black",
            "ytick.labelcolor": "black",
            "legend.frameon": False,
            "svg.hashsalt": "attrib",
        }
    ):
        yield


def recall_curves(case: str, models: Sequence[tuple[ModelResults, CaseResult]]) -> Figure:
    """Recall@k over k of one test case, a line and a band a model."""
    figure, axes = _figure(7.2, 4.4 + 0.22 * len(models))
    reach = 0.0
    for place, (model, result) in enumerate(models):
        at, curve = np.array(result.curve.at), result.curve.recall
        colour = _COLOURS[place % len(_COLOURS)]
        axes.plot(
            at,
            [point.mean for point in curve],
            color=colour,
            linestyle="-" if model.tuned else (0, (5, 2)),
            linewidth=1.9,
            marker=_MARKERS[place % len(_MARKERS)],
            markevery=(2 * place % 9, 9),  # staggered, so that lines of one course stay visible
            markersize=4.5,
            label=f"{model.name} ({_tuned(model)})",
        )
        reach = max(reach, *(point.mean for point in curve))
        if curve[0].low is not None:
            low = np.array([point.low for point in curve], dtype=float)
            high = np.array([point.high for point in curve], dtype=float)
            axes.fill_between(at, low, high, color=colour, alpha=0.08, linewidth=0)
            for end in (low, high):  # where bands overlap, their edges tell them apart
                axes.plot(at, end, color=colour, alpha=0.55, linewidth=0.8)
            reach = max(reach, float(high.max()))
    _, result = models[0]
    # What even random order would reach: the expected share of exemplars among the first k.
    exemplars = result.ranks.positives
    chance = [
        float(np.minimum(1.0, k / (result.ranks.distractors + exemplars)).mean())
        for k in result.curve.at
    ]
    axes.plot(result.curve.at, chance, color=_GREY, linewidth=1, linestyle=":", label="chance")
    axes.set_xscale("log")
    axes.set_xticks([1, 10, 100, 1000], ["1", "10", "100", "1,000"])
    axes.set_xlim(1, 1000)
    axes.set_ylim(0, min(1.02, 1.1 * reach + 0.005))
    axes.set_xlabel("k: training images looked at (log scale)")
    axes.set_ylabel("Recall@k: share of exemplars found")
    axes.set_title(
        f"{case}: {len(result.ranks):,} generated images of {result.overall.models} models, "
        f"{result.ranks.distractors:,} distractors"
    )
    axes.grid(True)
    _legend(figure, axes, "bands: 95 % intervals over models")
    return figure


def precision_bars(models: Sequence[ModelResults], cases: Sequence[str]) -> Figure:
    """Mean average precision with intervals: a group of bars a test case, a bar a model."""
    lines = sum(1 for case in cases for model in models if model.of(case) is not None)
    figure, axes = _figure(7.2, 1.5 + 0.3 * lines + 0.25 * len(cases) + 0.22 * len(models))
    top, ticks, reach = 0.0, [], 0.0
    for case in cases:
        shown = [(i, model, model.of(case)) for i, model in enumerate(models)]
        rows = [(i, model, result) for i, model, result in shown if result is not None]
        for step, (i, model, result) in enumerate(rows):
            interval = result.overall.metrics["average_precision"]
            reach = max(reach, _bar(axes, top + step, interval, i, model))
        ticks.append(top + (len(rows) - 1) / 2)
        top += len(rows) + 0.8
    for place, model in enumerate(models):
        axes.barh(0, 0, label=f"{model.name} ({_tuned(model)})", **_face(place, model))
    axes.set_yticks(ticks, list(cases))
    axes.tick_params(axis="y", length=0)
    axes.set_ylim(top - 1.2, -0.7)  # first case on top
    axes.set_xlim(0, min(1.15, max(reach * 1.16, 0.01)))
    axes.set_xlabel("mean average precision, 0 to 1")
    axes.set_title("How early the exemplars come")
    axes.grid(True, axis="x")
    _legend(figure, axes, "whiskers: 95 % intervals over models")
    return figure


def calibration_curve(title: str, curve: Reliability) -> Figure:
    """Influence predicted against observed: per pair, and the mass in each bin."""
    from matplotlib.ticker import PercentFormatter

    figure, (left, right) = _figures(9.6, 4.3)
    bins = [one for one in curve.bins if one.pairs]
    drawn = [one for one in bins if one.mean_influence > 0 and one.frequency > 0]
    least = min([1e-4, *(min(one.mean_influence, one.frequency) for one in drawn)]) / 1.6
    left.plot([least, 1], [least, 1], color=_GREY, linewidth=1, linestyle=":", label="perfect")
    if drawn:
        means = [one.mean_influence for one in drawn]
        frequency = np.array([one.frequency for one in drawn])
        spread = np.array([_spread(one) for one in drawn]).T  # (2, bins)
        left.errorbar(
            means,
            frequency,
            yerr=spread,
            color=_COLOURS[0],
            marker="o",
            markersize=5,
            linewidth=1.6,
            elinewidth=1,
            capsize=2.5,
            label="measured, 95 % interval",
        )
    left.set_xscale("log")
    left.set_yscale("log")
    left.set_xlim(least, 1.3)
    left.set_ylim(least, 1.3)
    left.set_aspect("equal", adjustable="box")
    left.set_xlabel("influence predicted, mean of the bin (log scale)")
    left.set_ylabel("influence observed, mean of the bin (log scale)")
    left.grid(True)
    left.legend(loc="upper left")
    place = np.arange(len(bins))
    right.bar(
        place - 0.2, [one.predicted for one in bins], 0.38, color=_COLOURS[5], label="predicted"
    )
    right.bar(
        place + 0.2, [one.observed.mean for one in bins], 0.38, color=_COLOURS[1], label="observed"
    )
    right.set_xticks(place, [_edge(one.high) for one in bins], rotation=45, ha="right")
    right.set_xlabel("influence up to")
    right.set_ylabel("share of all influence in the bin")
    right.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
    right.grid(True, axis="y")
    right.legend(loc="upper left", bbox_to_anchor=(0, 1.0))
    right.margins(y=0.22)
    figure.suptitle(
        f"{title}: expected calibration error {curve.error:.1%}, {curve.queries:,} generated "
        f"images of {curve.models} models",
        x=0.02,
        ha="left",
        fontsize=11,
    )
    return figure


def save(figure: Figure, path: Path) -> list[Path]:
    """Write `path` with .png and .svg; neither holds a date."""
    files = [path.with_name(f"{path.name}.png"), path.with_name(f"{path.name}.svg")]
    figure.savefig(files[0], dpi=_DPI, metadata={"Software": None})
    figure.savefig(files[1], metadata={"Date": None, "Creator": None})
    return files


def _figure(width: float, height: float) -> tuple[Figure, Axes]:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained", facecolor="white")
    FigureCanvasAgg(figure)
    return figure, figure.subplots()


def _figures(width: float, height: float) -> tuple[Figure, tuple[Axes, Axes]]:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained", facecolor="white")
    FigureCanvasAgg(figure)
    left, right = figure.subplots(1, 2)
    return figure, (left, right)


def _bar(axes: Axes, place: float, interval: Interval, number: int, model: ModelResults) -> float:
    """Draw one bar with its whisker and its number; returns how far to the right it reaches."""
    axes.barh(place, interval.mean, 0.82, **_face(number, model))
    end = interval.mean
    if interval.low is not None and interval.high is not None:
        end = interval.high
        axes.plot([interval.low, interval.high], [place, place], color="black", linewidth=1.2)
        for side in (interval.low, interval.high):
            axes.plot([side, side], [place - 0.16, place + 0.16], color="black", linewidth=1.2)
    axes.annotate(
        f"{interval.mean:.3f}",
        (end, place),
        xytext=(4, 0),
        textcoords="offset points",
        va="center",
        fontsize=8.5,
    )
    return end


def _face(number: int, model: ModelResults) -> dict[str, Any]:
    colour = _COLOURS[number % len(_COLOURS)]
    if model.tuned:
        return {"facecolor": colour, "edgecolor": colour}
    return {"facecolor": "white", "edgecolor": colour, "hatch": "////"}


def _legend(figure: Figure, axes: Axes, note: str) -> None:
    handles, labels = axes.get_legend_handles_labels()
    figure.legend(
        handles,
        labels,
        loc="outside lower left",
        ncols=1 if max(map(len, labels)) > 34 else 2,
        title=note,
        title_fontsize=8.5,
        alignment="left",
        handlelength=3,
    )


def _spread(one: ReliabilityBin) -> tuple[float, float]:
    """Of the frequency down and up to the ends of its interval; 0 where there is none."""
    if one.observed.low is None or one.observed.high is None:
        return 0.0, 0.0
    pairs = one.observed.mean / one.frequency  # per query
    low, high = one.observed.low / pairs, one.observed.high / pairs
    return max(0.0, one.frequency - low), max(0.0, high - one.frequency)


def _tuned(model: ModelResults) -> str:
    return "tuned" if model.tuned else "untuned"


def _edge(value: float) -> str:
    return "none" if value == 0 else f"{value:.5f}".rstrip("0").rstrip(".")
