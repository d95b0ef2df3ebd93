"""The recipes that `benchmarks.tuning` compares: what each learns, from models of other folds.

A recipe takes a `Fold` and gives a `Solution`: features of training images and of generated images.
Whatever can be is what `attrib tune` runs (`embed.alignment`, `embed.tuning`); what is not part of
attrib (yet) stands here in full.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from itertools import product

import numpy as np

from benchmarks.tuning_fold import Floats, Fold, Solution, View
from benchmarks.tuning_residual import Map, residual_pair
from embed.alignment import aligned, standardised
from embed.mapper import Mapper, MapperPair, normalised
from embed.tuning import TuningSettings, tune
from embed.tuning_data import TuningData
from evaluation.features import CaseFeatures
from evaluation.protocol import ArrayBlocks, average_precision, ranks

__all__ = ["DEFAULT", "RECIPES", "Recipe"]

DEFAULT = "default"
"""The recipe of `attrib tune` as it is typed: what all others are compared with."""

LEADING = 512  # directions in which the paper's map learns: a step in all of them takes a second
WIDEST = 1024
NEIGHBOURS = 10  # of local scaling
HARD = 50  # nearest distractors of a generated image that are mined


Recipe = Callable[[Fold], Solution]


def _of_pair(pair: MapperPair, backbone: str) -> Solution:
    return Solution(lambda base: pair.real(base[backbone]), lambda base: pair.synth(base[backbone]))


# -- without learning, and in closed form ----------------------------------------------------------


def _untuned(fold: Fold, backbone: int = 0) -> Solution:
    name = list(fold.views)[backbone]
    return _of_pair(MapperPair.identity(fold.views[name].learn.dim), name)


def _standardised(fold: Fold) -> Solution:
    return _of_pair(standardised(fold.views[fold.main].data()), fold.main)


def _pairs(fold: Fold, backbone: str, shrinkage: float, out_dim: int) -> MapperPair:
    """`aligned`; the directions come in order, so that a narrow one is the top of a wide one."""

    def make() -> MapperPair:
        return aligned(fold.views[backbone].data(), shrinkage=shrinkage, out_dim=WIDEST)

    wide = fold.once(("pairs", backbone, shrinkage), make)
    assert isinstance(wide, MapperPair)

    def cut(side: Mapper) -> Mapper:
        return Mapper.linear(side.arrays["weight"][:out_dim], side.arrays["bias"][:out_dim])

    return MapperPair(cut(wide.real_mapper), cut(wide.synth_mapper))


def _closed_form(fold: Fold, shrinkage: float = 3.0, out_dim: int = 512) -> Solution:
    return _of_pair(_pairs(fold, fold.main, shrinkage, out_dim), fold.main)


def _mixed(fold: Fold, shrinkage: float, out_dim: int) -> Solution:
    """Gaps of the kinds that are not measured damped, too; statistics of the measured kind."""
    view = fold.views[fold.main]
    if view.extra is None:
        raise LookupError("there are no models of another kind")
    data, more = view.data(), replace(view, learn=view.extra).data()
    both = TuningData(
        np.concatenate([data.exemplars, more.exemplars]),
        np.concatenate([data.exemplar_model, more.exemplar_model + data.models]),
        np.concatenate([data.synth, more.synth]),
        np.concatenate([data.synth_model, more.synth_model + data.models]),
        data.others,
    )
    return _of_pair(aligned(both, shrinkage=shrinkage, out_dim=out_dim), fold.main)


def _roots(fold: Fold) -> Solution:
    """Signed square roots of the base features first: no channel outweighs the others."""

    def root(x: Floats) -> Floats:
        return np.asarray(np.sign(x) * np.sqrt(np.abs(x)), np.float32)

    view = fold.views[fold.main].through(root, root)
    pair = aligned(view.data(), shrinkage=3.0, out_dim=512)
    return Solution(
        lambda base: pair.real(root(base[fold.main])),
        lambda base: pair.synth(root(base[fold.main])),
    )


def _whitened(fold: Fold, shrinkage: float) -> Solution:
    """Without pairs, in the spirit of arXiv 2601.22663: each side aligned and decorrelated.

    There a contrastive self-supervised encoder aligns the two domains and an Infomax loss
    decorrelates its features, which together approximate canonical correlation analysis. Here the
    frozen backbone is taken as aligned once each side is standardised, and the decorrelation is
    (C + shrinkage I)^(-1/2) of each side's own correlations C: symmetric, so that axes stay.
    """
    view = fold.views[fold.main]
    base = standardised(view.data())

    def side(mapper: Mapper, x: Floats) -> Mapper:
        values, vectors = np.linalg.eigh(np.cov(mapper(x).astype(np.float64).T))
        turn = (vectors / np.sqrt(np.maximum(values, 0) + shrinkage)) @ vectors.T
        return Mapper.linear(turn @ mapper.arrays["weight"], turn @ mapper.arrays["bias"])

    pair = MapperPair(
        side(base.real_mapper, view.others), side(base.synth_mapper, view.learn.synth)
    )
    return _of_pair(pair, fold.main)


# -- learned by steps ------------------------------------------------------------------------------


def _learned(fold: Fold, start: str, settings: TuningSettings, hard: bool = False) -> Solution:
    """`embed.tuning.tune` in the coordinates of a start, stopped by mAP on `stop`."""
    pre = fold.once(("start", start), lambda: _start(fold, start))
    assert isinstance(pre, MapperPair)

    def make() -> View:
        return fold.views[fold.main].through(pre.real_mapper, pre.synth_mapper)

    view = fold.once(("view", start), make)
    assert isinstance(view, View)
    data = view.data()
    if hard:
        data = replace(data, others=_hard(data))

    def score(pair: MapperPair) -> float:
        return _precision(view.stop.mapped(pair), pair.real(view.others))

    pair = tune(data, settings, score).mappers
    return Solution(
        lambda base: pair.real(pre.real_mapper(base[fold.main])),
        lambda base: pair.synth(pre.synth_mapper(base[fold.main])),
    )


def _start(fold: Fold, start: str) -> MapperPair:
    view = fold.views[fold.main]
    if start == "pairs":
        return _pairs(fold, fold.main, 3.0, 512)
    if start.endswith("standardised"):
        pair = standardised(view.data())
    else:
        pair = MapperPair(*(Mapper.linear(np.eye(view.learn.dim), np.zeros(view.learn.dim)),) * 2)
    if not start.startswith("leading"):
        return pair
    # One turn for both sides: a map that starts as the identity and stays near orthogonal is the
    # same in these directions, save for what little of the features lies outside of them.
    real = pair.real_mapper(view.others).astype(np.float64)
    synth = pair.synth_mapper(view.learn.synth).astype(np.float64)
    _, vectors = np.linalg.eigh(real.T @ real / len(real) + synth.T @ synth / len(synth))
    turn = vectors[:, ::-1][:, :LEADING].T
    sides = [
        Mapper.linear(turn @ one.arrays["weight"], turn @ one.arrays["bias"])
        for one in (pair.real_mapper, pair.synth_mapper)
    ]
    return MapperPair(*sides)


def _precision(case: CaseFeatures, gallery: Floats) -> float:
    return float(average_precision(ranks(case, ArrayBlocks(gallery))).mean())


def _hard(data: TuningData) -> Floats:
    """The distractors nearest to each generated image, each once."""
    similar = normalised(data.synth) @ normalised(data.others).T
    nearest = np.argpartition(-similar, HARD, axis=1)[:, :HARD]
    return data.others[np.unique(nearest)]


def _residual(fold: Fold) -> Solution:
    """A residual layer on the closed form, see `benchmarks.tuning_residual`."""
    pre = _pairs(fold, fold.main, 3.0, 512)
    view = fold.views[fold.main].through(pre.real, pre.synth)
    stop = view.stop

    def score(real: Map, synth: Map) -> float:
        moved = replace(stop, exemplars=real(stop.exemplars), synth=synth(stop.synth))
        return _precision(moved, real(view.others))

    pair = residual_pair(view.data(), score)
    return Solution(
        lambda base: pair[0](pre.real(base[fold.main])),
        lambda base: pair[1](pre.synth(base[fold.main])),
    )


# -- similarities and backbones together -----------------------------------------------------------


def _csls(fold: Fold, of: Recipe) -> Solution:
    """Local scaling (Conneau et al., ICLR 2018): 2 s - r, r of a training image its mean
    similarity with its nearest generated images, those of the models that are learned from.

    What a query's own neighbourhood takes off changes no rank, and is left out. One number more
    a feature holds r, so that it is an inner product still.
    """
    plain = of(fold)
    known = plain.synth({name: view.learn.synth for name, view in fold.views.items()})

    def real(base: dict[str, Floats]) -> Floats:
        features = plain.real(base)
        near = np.partition(features @ known.T, -NEIGHBOURS, axis=1)[:, -NEIGHBOURS:]
        return np.concatenate([2 * features, -near.mean(axis=1, keepdims=True)], axis=1)

    def synth(base: dict[str, Floats]) -> Floats:
        features = plain.synth(base)
        return np.concatenate([features, np.ones((len(features), 1), np.float32)], axis=1)

    return Solution(real, synth)


def _concatenated(fold: Fold) -> Solution:
    """Base features of all backbones side by side, then the closed form."""

    def joined(base: dict[str, Floats]) -> Floats:
        return np.concatenate([normalised(base[name]) for name in fold.views], axis=1)

    data = fold.views[fold.main].data()
    exemplars = joined({name: view.learn.exemplars for name, view in fold.views.items()})
    synth = joined({name: view.learn.synth for name, view in fold.views.items()})
    others = joined({name: view.others for name, view in fold.views.items()})
    wide = replace(data, exemplars=exemplars, synth=synth, others=others)
    pair = aligned(wide, shrinkage=3.0, out_dim=512)
    return Solution(lambda base: pair.real(joined(base)), lambda base: pair.synth(joined(base)))


def _summed(fold: Fold, weight: float) -> Solution:
    """Similarities of two backbones, each after its closed form, by weight 1 and `weight`."""
    weights = dict(zip(fold.views, (1.0, weight), strict=True))
    pairs = {name: _pairs(fold, name, 3.0, 512) for name in fold.views}

    def side(which: str, base: dict[str, Floats]) -> Floats:
        features = [
            np.float32(weights[name] ** 0.5) * getattr(pairs[name], which)(base[name])
            for name in fold.views
        ]
        return normalised(np.concatenate(features, axis=1))

    return Solution(partial(side, "real"), partial(side, "synth"))


def _chosen(fold: Fold, of: Sequence[Recipe]) -> Solution:
    """The best of several by mAP on `stop`: settings chosen by validation, and measured apart."""
    solutions = [recipe(fold) for recipe in of]
    found = [average_precision(one.ranks(fold.views, "stop")).mean() for one in solutions]
    return solutions[int(np.argmax(found))]


# -- by name ---------------------------------------------------------------------------------------


def _memo(name: str, recipe: Recipe) -> Recipe:
    def run(fold: Fold) -> Solution:
        found = fold.once(("recipe", name), lambda: recipe(fold))
        assert isinstance(found, Solution)
        return found

    return run


def _recipes() -> dict[str, Recipe]:
    plain = TuningSettings(start="identity")
    short = replace(plain, steps=100, patience=3)
    still = replace(plain, steps=0)
    channel = replace(short, kind="channel", learning_rate=1e-2, orthogonality=1.9)
    found: dict[str, Recipe] = {
        DEFAULT: partial(_learned, start="pairs", settings=plain),
        "untuned": _untuned,
        "untuned, second backbone": partial(_untuned, backbone=1),
        "standardised": _standardised,
    }
    forms = {
        f"pairs, shrinkage {s:g}, {f} numbers": partial(_closed_form, shrinkage=s, out_dim=f)
        for s, f in product((1.0, 3.0, 10.0, 30.0), (256, 512, 1024))
    }
    papers = {
        f"paper, T {t:g}, penalty {o:g}, rate {r:g}, batch {b}": partial(
            _learned,
            start="leading",
            settings=replace(
                short, temperature=t, orthogonality=o, learning_rate=r, models_per_batch=b
            ),
        )
        for t, o, r, b in product((0.05, 0.2), (0.1, 1.0), (1e-4, 1e-3), (12, 64))
    }
    found |= forms | papers
    found |= {
        "untuned, 512 directions": partial(_learned, start="leading", settings=still),
        "standardised, 512 directions": partial(
            _learned, start="leading standardised", settings=still
        ),
        "paper's form, standardised start": partial(
            _learned, start="leading standardised", settings=short
        ),
        "channel": partial(_learned, start="identity", settings=channel),
        "channel on standardised": partial(
            _learned,
            start="standardised",
            settings=channel,
        ),
        "MLP": partial(_learned, start="identity", settings=replace(short, kind="mlp")),
        "MLP on pairs": partial(_learned, start="pairs", settings=replace(short, kind="mlp")),
        "residual MLP on pairs": _residual,
        "default, T 0.05": partial(
            _learned, start="pairs", settings=replace(plain, temperature=0.05)
        ),
        "default, T 0.2": partial(
            _learned, start="pairs", settings=replace(plain, temperature=0.2)
        ),
        "default, penalty 0.1": partial(
            _learned, start="pairs", settings=replace(plain, orthogonality=0.1)
        ),
        "default, hard negatives": partial(_learned, start="pairs", settings=plain, hard=True),
        "pairs, other kinds of models too": partial(_mixed, shrinkage=3.0, out_dim=512),
        "pairs, other kinds too, shrinkage 10, 1024 numbers": partial(
            _mixed, shrinkage=10.0, out_dim=1024
        ),
        "pairs on signed square roots": _roots,
        "no pairs: whitened per side, shrinkage 1": partial(_whitened, shrinkage=1.0),
        "no pairs: whitened per side, shrinkage 10": partial(_whitened, shrinkage=10.0),
        "both backbones, pairs": _concatenated,
        "both backbones, similarities 1 : 0.25": partial(_summed, weight=0.25),
        "both backbones, similarities 1 : 1": partial(_summed, weight=1.0),
    }
    kept = {name: _memo(name, recipe) for name, recipe in found.items()}
    kept |= {
        f"local scaling, {name}": partial(_csls, of=kept[name])
        for name in ("standardised", "pairs, shrinkage 3, 512 numbers", DEFAULT)
    }
    kept["pairs, chosen by validation"] = partial(_chosen, of=[kept[name] for name in forms])
    kept["paper, chosen by validation"] = partial(_chosen, of=[kept[name] for name in papers])
    return kept


RECIPES: dict[str, Recipe] = _recipes()
