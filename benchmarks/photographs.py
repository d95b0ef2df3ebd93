"""How well attribution models find the photograph that a strong variation was made from.

    python -m benchmarks.photographs FOLDER [--grid 4] [--queries 300] [--side 64] [--model NAME]...

Gallery: all images of the folder, or with --grid G every image cut into G x G tiles. Queries: a
seeded choice of them, each varied strongly (`evaluation.augment`). The only right answer is the
image (or tile) that a query was made from. Intervals are bootstrapped over files, since the tiles
of one photograph are not independent; differences are to the first model, on the same queries.

Variations by a program are not what a generator does. That a model is better at undoing them says
that it is no worse an encoder of such images, and little more.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from embed.registry import find_model
from evaluation.augment import STRONG, augmented
from evaluation.bootstrap import mean_intervals, paired_difference
from ingest.decode import decode
from ingest.errors import AttribError, ImageError, UsageError
from ingest.source import open_sources

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from PIL import Image

    from evaluation.bootstrap import Interval

MODELS = ("efficientnet-lite0", "efficientnet-lite0-stages-48px", "efficientnet-lite0-clipart")
METRICS = ("Recall@1", "Recall@5", "mAP")
FEWEST = 100
LARGEST = 1024
"""Pixels of a file's longer side: more, no backbone looks at, and a hundred files fill memory."""

_BATCH = 32


@dataclass(frozen=True, eq=False)
class Photographs:
    """Images of the gallery and the file that each was cut from.

    Attributes:
        images: mode RGB.
        files: (images,) number of the file.
        names: of the files.
    """

    images: list[Image.Image]
    files: NDArray[np.int64]
    names: list[str]


def main(arguments: Sequence[str] | None = None) -> None:
    """Embed, rank, print a table; with --json a file."""
    options = _options(arguments)
    try:
        print(_report(options))
    except AttribError as exc:
        sys.exit(f"benchmarks.photographs: {exc}")


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--grid", type=int, default=1, help="cut every image into G x G tiles")
    parser.add_argument("--queries", type=int, default=300)
    parser.add_argument("--side", type=int, default=64, help="pixels of a query's sides")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--model", action="append", help="may be repeated; the first is compared")
    parser.add_argument("--json", type=Path, help="file to write the figures to")
    options = parser.parse_args(arguments)
    if min(options.grid, options.queries, options.side) < 1 or options.side > LARGEST:
        parser.error(f"--grid and --queries are at least 1, --side 1 to {LARGEST}")
    return options


def _report(options: argparse.Namespace) -> str:
    names = list(dict.fromkeys(options.model or MODELS))
    photographs = load(options.folder, options.grid)
    count = len(photographs.images)
    if count < FEWEST:
        raise UsageError(
            f"{options.folder} gives {count} images, at least {FEWEST} are needed; give a larger "
            "folder, or cut its images with --grid"
        )
    random = np.random.default_rng(options.seed)
    chosen = np.sort(random.permutation(count)[: options.queries])
    variation = replace(STRONG, smallest=options.side, largest=options.side)
    queries = [
        augmented(photographs.images[i], 1_000_003 * options.seed + int(i), variation)
        for i in chosen
    ]
    tables: dict[str, NDArray[np.float64]] = {}
    rates: dict[str, float] = {}
    for name in names:
        print(f"{name} ...", file=sys.stderr, flush=True)
        tables[name], rates[name] = scores(name, photographs.images, queries, chosen)
    return _written(options, photographs, chosen, tables, rates)


def load(folder: Path, grid: int) -> Photographs:
    """The images of a folder, equal files once, scaled down to `LARGEST`, cut into tiles.

    Raises:
        SourceError: no such folder, or no image in it.
    """
    images: list[Image.Image] = []
    files: list[int] = []
    names: list[str] = []
    seen: set[str] = set()
    for source in open_sources([str(folder)]):
        for item in source.items():
            data = item.path.read_bytes()
            digest = hashlib.sha256(data).hexdigest()
            if digest in seen:
                continue
            seen.add(digest)
            try:
                image = decode(data).image
            except ImageError as exc:
                print(f"left out: {item.path}: {exc}", file=sys.stderr)
                continue
            image.thumbnail((LARGEST, LARGEST))
            tiles = _tiles(image, grid)
            images += tiles
            files += [len(names)] * len(tiles)
            names.append(str(item.path))
    return Photographs(images, np.array(files, np.int64), names)


def _tiles(image: Image.Image, grid: int) -> list[Image.Image]:
    """`grid` x `grid` tiles that do not overlap, row by row."""
    across = np.linspace(0, image.width, grid + 1).astype(int).tolist()
    down = np.linspace(0, image.height, grid + 1).astype(int).tolist()
    return [
        image.crop((across[x], down[y], across[x + 1], down[y + 1]))
        for y in range(grid)
        for x in range(grid)
    ]


def scores(
    name: str,
    images: Sequence[Image.Image],
    queries: Sequence[Image.Image],
    chosen: NDArray[np.int64],
) -> tuple[NDArray[np.float64], float]:
    """(queries, `METRICS`) of a model, and gallery images embedded a second.

    `chosen`: (queries,) the image that each was made from. Ties count against it.
    """
    from embed.embedder import Embedder

    model = find_model(name)
    embedder = Embedder(model.backbone)

    def base(some: Sequence[Image.Image]) -> NDArray[np.float32]:
        parts = []
        for start in range(0, len(some), _BATCH):
            pixels = [model.backbone.preprocessing.apply(i) for i in some[start : start + _BATCH]]
            parts.append(embedder.embed(np.stack(pixels)).astype(np.float16).astype(np.float32))
        return np.concatenate(parts)

    base(images[:_BATCH])  # warm
    began = time.perf_counter()
    gallery = base(images)
    rate = len(images) / (time.perf_counter() - began)
    similarities = model.mappers.synth(base(queries)) @ model.mappers.real(gallery).T
    own = similarities[np.arange(len(chosen)), chosen]
    rank = (similarities >= own[:, None]).sum(axis=1)  # itself is one of them
    return np.column_stack([rank <= 1, rank <= 5, 1 / rank]).astype(np.float64), rate


def _written(
    options: argparse.Namespace,
    photographs: Photographs,
    chosen: NDArray[np.int64],
    tables: dict[str, NDArray[np.float64]],
    rates: dict[str, float],
) -> str:
    groups = photographs.files[chosen]
    first = next(iter(tables))
    lines = [
        f"{len(photographs.images):,} images of {len(photographs.names):,} files, "
        f"{len(chosen):,} queries of {options.side} pixels, seed {options.seed}",
        "",
        "| | " + " | ".join(METRICS) + " | images/s |",
        "|---|" + "--:|" * (len(METRICS) + 1),
    ]
    models: dict[str, dict[str, Any]] = {}
    for name, table in tables.items():
        found = mean_intervals(table, groups)
        lines.append(f"| `{name}` | {' | '.join(map(_text, found))} | {rates[name]:.0f} |")
        models[name] = {"images_per_s": rates[name], "metrics": _named(found)}
    for name in list(tables)[1:]:
        less = paired_difference(tables[first], tables[name], groups)
        lines.append(f"| `{name}` less the first | {' | '.join(map(_text, less))} | |")
        models[name]["less_the_first"] = _named(less)
    if options.json:
        result = {
            "images": len(photographs.images),
            "files": len(photographs.names),
            "queries": len(chosen),
            "grid": options.grid,
            "seed": options.seed,
            "variation": asdict(replace(STRONG, smallest=options.side, largest=options.side)),
            "models": models,
        }
        options.json.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    return "\n".join(lines)


def _named(intervals: Sequence[Interval]) -> dict[str, Any]:
    return {name: i.to_dict() for name, i in zip(METRICS, intervals, strict=True)}


def _text(interval: Interval) -> str:
    if interval.low is None or interval.high is None:
        return f"{interval.mean:.3f}"
    return f"{interval.mean:.3f} ({interval.low:.3f} to {interval.high:.3f})"


if __name__ == "__main__":
    main()
