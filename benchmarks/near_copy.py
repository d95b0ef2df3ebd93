"""How often the flags of an audit err: near-copy, duplicate, nothing close.

    python -m benchmarks.near_copy [--images FOLDER --metadata FILE --gallery FOLDER]

Non-copies: every image of a known creator against the rows nearest to it among the images of all
other creators. Where two creators' images show one drawing, that is a copy under another name: such
pairs were told apart by eye, and are listed in `near_copy_pairs.txt` (`--sheet` draws the pairs
that score highest). Copies: training images after an edit.
"""

from __future__ import annotations

import argparse
import os
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from benchmarks.near_copy_data import (
    Folder,
    Pairs,
    compared,
    copies_of,
    embedded,
    non_copies,
    one_drawing,
    opened,
    training_features,
)
from embed.embedder import Embedder
from embed.registry import find_model
from search.audit.copy_edits import EDITS
from search.audit.copy_score import FEATURES, Edges
from search.audit.derived import LOOK_SHARE, NOTHING_CLOSE
from search.audit.duplicates import alike, fingerprint
from search.audit.flags import Thresholds
from search.audit.near_copy import BY_EDGES, LOOKED_AT

HERE = Path(__file__).parent
EXAMPLES = HERE.parent / "examples"


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, and print tables in Markdown."""
    options = _options(arguments)
    folder = Folder.read(options.images, options.metadata)
    print(f"{len(folder.paths):,} training images, {len(set(folder.creators) - {''}):,} creators\n")
    model = find_model(options.model[0])
    base = training_features(folder, model, options.cache)
    queries = _some([n for n, c in enumerate(folder.creators) if c], options.queries)
    copies = one_drawing(options.pairs)
    synth, real = model.mappers.synth(base), model.mappers.real(base)
    found = non_copies(folder, synth, real, LOOKED_AT, queries, copies)
    pairs = compared(folder, found, options.fit)
    chosen = _some(range(len(folder.paths)), options.edited)
    made = {name: _edited(folder, chosen, name, options.fit) for name in EDITS}
    if options.fit:
        _fit(folder, pairs, made)
    _near_copies(folder, pairs, made)
    if options.sheet:
        _sheet(folder, pairs, options.sheet)
    for name in options.model:
        model = find_model(name)
        embedder = Embedder(model.backbone)
        base = training_features(folder, model, options.cache)
        edits = [embedded(embedder, copies_of(folder, chosen, edit)) for edit in EDITS]
        _through_answers(
            name,
            model.mappers.real(base),
            [model.mappers.synth(features) for features in edits],
            chosen,
            made,
        )
        for what in ("generated", "strange"):
            if (images := getattr(options, what)) is not None:
                paths = sorted(p for p in images.rglob("*") if p.suffix in {".png", ".jpg"})
                found_ = embedded(embedder, (opened(path) for path in paths))
                _nothing_close(name, what, model.mappers.synth(found_), model.mappers.real(base))
    _duplicates(folder, chosen, options.gallery)


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=Path, default=EXAMPLES / "training" / "images")
    parser.add_argument("--metadata", type=Path, help="file and creator; beside the images")
    parser.add_argument("--gallery", type=Path, default=EXAMPLES / "gallery")
    parser.add_argument("--generated", type=Path, help="images whose source is in the collection")
    parser.add_argument("--strange", type=Path, help="images of quite another kind")
    parser.add_argument("--pairs", type=Path, default=HERE / "near_copy_pairs.txt")
    parser.add_argument("--model", action="append", help="for candidates; may be repeated")
    parser.add_argument("--queries", type=int, default=10**9, help="images tried as non-copies")
    parser.add_argument("--edited", type=int, default=300, help="images that are edited")
    parser.add_argument("--fit", action="store_true", help="print weights of the score")
    parser.add_argument("--sheet", type=Path, help="picture of the highest scoring non-copies")
    parser.add_argument("--cache", type=Path, default=Path(tempfile.gettempdir()) / "near-copy")
    options = parser.parse_args(arguments)
    options.model = options.model or ["efficientnet-lite0"]
    options.metadata = options.metadata or options.images.parent / "metadata.parquet"
    return options


def _some(numbers: Sequence[int], count: int) -> list[int]:
    return np.random.default_rng(0).permutation(np.array(numbers))[:count].tolist()


def _edited(folder: Folder, chosen: Sequence[int], name: str, fit: bool) -> Pairs:
    made = Pairs()
    for number, picture in zip(chosen, copies_of(folder, chosen, name), strict=True):
        made.add((number, number), 1.0, (Edges.of(picture), folder.edges(number)), fit)
    return made


def _fit(folder: Folder, pairs: Pairs, made: dict[str, Pairs]) -> None:
    """Logistic regression on one half of the images, a non-copy counting as ten copies."""
    from scipy.optimize import minimize

    def half(some: Pairs) -> NDArray[np.float64]:
        return some.features()[[folder.is_for_fit(n) for n in some.generated]]

    others = half(pairs)
    same = np.concatenate([half(made[name]) for name, edit in EDITS.items() if edit.light])
    scale = others.std(axis=0)
    scale[-1] = 1

    def loss(weights: NDArray[np.float64]) -> float:
        wrong = 10 * np.logaddexp(0, (others / scale) @ weights).mean()
        missed = np.logaddexp(0, -((same / scale) @ weights)).mean()
        return float(wrong + missed + 1e-3 * (weights[:-1] ** 2).sum())

    weights = minimize(loss, np.zeros(len(FEATURES))).x / scale
    print("weights", dict(zip(FEATURES, np.round(weights, 3).tolist(), strict=True)), "\n")


def _near_copies(folder: Folder, pairs: Pairs, made: dict[str, Pairs]) -> None:
    scores = np.array(pairs.scores)
    tested = np.array([not folder.is_for_fit(n) for n in pairs.generated])
    print(f"{len(scores):,} pairs that are no copies; BY_EDGES {BY_EDGES}")
    for rate in (1e-2, 1e-3, 3e-4):
        least = float(np.quantile(scores, 1 - rate))
        print(f"- {rate:g} of them score at least {least:.3f}")
    for part, which in (("all", tested | True), ("not fitted on", tested)):
        fired = scores[which] >= BY_EDGES
        images = {n for n, w, s in zip(pairs.generated, which, scores, strict=True) if w}
        wrong = {
            n for n, w, s in zip(pairs.generated, which, scores, strict=True) if w and s >= BY_EDGES
        }
        print(f"- {part}, pairs: {_rate(int(fired.sum()), len(fired))}")
        print(f"- {part}, images: {_rate(len(wrong), len(images))}")
    print("\n| edit | light | recall, images not fitted on |\n|---|---|---|")
    for name, edit in EDITS.items():
        found = [
            score >= BY_EDGES
            for number, score in zip(made[name].generated, made[name].scores, strict=True)
            if not folder.is_for_fit(number)
        ]
        print(f"| {name} | {'yes' if edit.light else ''} | {_rate(sum(found), len(found))} |")


def _through_answers(
    name: str,
    training: NDArray[np.float32],
    edits: Sequence[NDArray[np.float32]],
    chosen: Sequence[int],
    made: dict[str, Pairs],
) -> None:
    """Whether a copy is found by an audit: among the rows, similar enough, and alike."""
    look = float(np.quantile(_nearest(training), LOOK_SHARE))
    print(f"\n{name}: pictures are looked at from a similarity of {look:.3f} on\n")
    print("| edit | among the rows | and looked at | flagged |\n|---|---|---|---|")
    for (edit, pairs), features in zip(made.items(), edits, strict=True):
        similarities = features @ training.T
        own = similarities[np.arange(len(chosen)), list(chosen)]
        among = (similarities > own[:, None]).sum(axis=1) < LOOKED_AT
        looked = among & (own >= look)
        alike_ = np.array(pairs.scores) >= BY_EDGES
        rates = (among.mean(), looked.mean(), (looked & alike_).mean())
        print(f"| {edit} | " + " | ".join(f"{rate:.3f}" for rate in rates) + " |")


def _nothing_close(
    name: str, what: str, generated: NDArray[np.float32], training: NDArray[np.float32]
) -> None:
    top = (generated @ training.T).max(axis=1)
    quantiles = ", ".join(f"{q:g}: {np.quantile(top, q):.4f}" for q in (0.005, 0.01, 0.02, 0.05))
    print(f"\n{name}, {what} images: similarity to the nearest, by quantile: {quantiles}")
    if name in NOTHING_CLOSE:
        found = int((top < NOTHING_CLOSE[name]).sum())
        print(f"called nothing close: {_rate(found, len(top))}")


def _nearest(training: NDArray[np.float32]) -> NDArray[np.float32]:
    some = _some(range(len(training)), 300)
    similarities = training[some] @ training.T
    similarities[similarities >= 0.9999] = -1
    nearest: NDArray[np.float32] = similarities.max(axis=1)
    return nearest


def _duplicates(folder: Folder, chosen: Sequence[int], gallery: Path) -> None:
    least = Thresholds().duplicate
    pictures = [opened(path) for path in sorted(gallery.glob("*.png"))]
    for part, images in (("gallery", pictures), ("training", [folder.picture(n) for n in chosen])):
        looks = [fingerprint(image) for image in images]
        found = sum(alike(one, other, least) for n, one in enumerate(looks) for other in looks[:n])
        print(f"\n{part}: alike {_rate(found, len(looks) * (len(looks) - 1) // 2)} of all pairs\n")
        print("| edit | alike |\n|---|---|")
        for name, edit in EDITS.items():
            rng = np.random.default_rng(0)
            again = [fingerprint(edit.apply(image, rng)) for image in images]
            same = sum(alike(a, b, least) for a, b in zip(looks, again, strict=True))
            print(f"| {name} | {_rate(same, len(looks))} |")


def _rate(found: int, of: int) -> str:
    from scipy.stats import binomtest

    interval = binomtest(found, of).proportion_ci(0.95, method="exact")
    return f"{found / of:.4g} ({interval.low:.2g} - {interval.high:.2g}; {found:,} of {of:,})"


def _sheet(folder: Folder, pairs: Pairs, file: Path) -> None:
    """The pairs that score highest, eight in a line, and their names."""
    scores = pairs.scores
    order = sorted(range(len(scores)), key=lambda n: -scores[n])[:96]
    sheet = Image.new("RGB", (8 * 230, (len(order) + 7) // 8 * 140), "gray")
    draw = ImageDraw.Draw(sheet)
    for place, pair in enumerate(order):
        x, y = place % 8 * 230, place // 8 * 140
        names = pairs.generated[pair], pairs.training[pair]
        for number, name in enumerate(names):
            sheet.paste(folder.picture(name).resize((110, 110)), (x + 112 * number, y))
        draw.text((x, y + 112), f"{place}: {scores[pair]:.4f}", fill="white")
        print(place, f"{scores[pair]:.4f}", *(folder.paths[name].name for name in names))
    sheet.save(file)


if __name__ == "__main__":
    os.nice(10)
    main()
