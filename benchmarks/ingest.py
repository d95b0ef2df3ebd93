"""How much of a bare loop's speed the whole of `attrib ingest` keeps, and what memory it takes.

    python -m benchmarks.ingest [--images FOLDER] [--count N] [--rounds R] [--memory]

N images are N links, in turn to the images of the folder. Four ways over the same images, with
the same model on the same cores, in turn, R times:

    bare      decode, preprocess, embed; one after the other; nothing is kept
    ahead     the same with decoding in threads ahead of the embedding: the most that can be had
    attrib    the whole of `attrib ingest`: the same, and thumbnails, shards, index, ledger
    raw       embed alone, on pixels that are ready: what the device could do

Ratios are taken round by round, so that a machine whose speed drifts does not decide them.
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import numpy as np

from attrib.opened import ingest_into
from embed.backbones import DEFAULT_BACKBONE, resolve
from embed.embedder import Embedder
from ingest.decode import decode
from search.ingestion import IngestSettings

ROOT = Path(__file__).resolve().parents[1]


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=Path, default=ROOT / "examples" / "training" / "images")
    parser.add_argument("--count", type=int, default=2400)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--batch-size", type=int, default=IngestSettings().batch_size)
    parser.add_argument("--model", default=DEFAULT_BACKBONE)
    parser.add_argument(
        "--memory", action="store_true", help="also peak memory at N and 8 N images"
    )
    parser.add_argument("--cache", type=Path, help="folder for the result (ingest.json)")
    parser.add_argument("--peak-of", type=int, help=argparse.SUPPRESS)
    options, _ = parser.parse_known_args(arguments)
    if options.peak_of:
        options.count *= options.peak_of
    with tempfile.TemporaryDirectory() as folder:
        source = links(options.images, options.count, Path(folder))
        if options.peak_of:
            print(json.dumps(peak(source, options)))
            return
        result = {"images": options.count, "model": options.model, **speed(source, options)}
    if options.memory:
        result["memory"] = memory(options)
    print(json.dumps(result, indent=2))
    if options.cache:
        options.cache.mkdir(parents=True, exist_ok=True)
        (options.cache / "ingest.json").write_text(json.dumps(result, indent=2) + "\n")


def links(images: Path, count: int, folder: Path) -> Path:
    """A folder of `count` links to the images, each image as often as needed."""
    paths = sorted(p for p in images.rglob("*") if p.suffix in (".jpg", ".png"))
    for i in range(count):
        path = paths[i % len(paths)]
        (folder / f"{i:07d}{path.suffix}").symlink_to(path.resolve())
    return folder


def speed(source: Path, options: argparse.Namespace) -> dict[str, object]:
    """Images per second of each way, and ratios round by round."""
    paths = sorted(source.iterdir())
    embedder = Embedder(resolve(options.model))
    size = options.batch_size
    preprocess = embedder.backbone.preprocessing.apply

    def pixels(path: Path) -> np.ndarray:
        return preprocess(decode(path.read_bytes()).image)

    def bare() -> None:
        for start in range(0, len(paths), size):
            embedder.embed(np.stack([pixels(path) for path in paths[start : start + size]]))

    def ahead() -> None:
        settings = IngestSettings(batch_size=size)
        with ThreadPoolExecutor(settings.decode_threads) as pool:
            waiting: deque[Future[np.ndarray]] = deque()
            batch: list[np.ndarray] = []
            for path in [*paths, *[None] * (3 * size)]:
                if path is not None:
                    waiting.append(pool.submit(pixels, path))
                if len(waiting) > 2 * size or (path is None and waiting):
                    batch.append(waiting.popleft().result())
                if len(batch) == size:
                    embedder.embed(np.stack(batch))
                    batch = []
            batch += [future.result() for future in waiting]
            if batch:
                embedder.embed(np.stack(batch))

    ready = np.stack([pixels(path) for path in paths[:size]])

    def raw() -> None:
        for start in range(0, len(paths), size):
            embedder.embed(ready[: len(paths) - start])

    def whole() -> None:
        # The model is loaded already in the other ways; here too.
        import embed.embedder as module

        loaded = module.Embedder
        module.Embedder = lambda *_, **__: embedder  # type: ignore[misc,assignment]
        try:
            with tempfile.TemporaryDirectory() as folder:
                ingest_into(
                    Path(folder) / "data",
                    [str(source)],
                    dataset="bench",
                    model=options.model,
                    settings=IngestSettings(batch_size=size),
                    calibrate=False,
                )
        finally:
            module.Embedder = loaded  # type: ignore[misc]

    ways: dict[str, Callable[[], None]] = {
        "bare": bare,
        "ahead": ahead,
        "attrib": whole,
        "raw": raw,
    }
    bare()  # warm
    rates: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(options.rounds):
        for name, way in ways.items():
            began = time.perf_counter()
            way()
            rates[name].append(len(paths) / (time.perf_counter() - began))
            print(f"{name:8} {rates[name][-1]:7.1f} images/s", file=sys.stderr)

    def ratio(a: str, b: str) -> dict[str, float]:
        values = [x / y for x, y in zip(rates[a], rates[b], strict=True)]
        return {
            "median": round(statistics.median(values), 3),
            "min": round(min(values), 3),
            "max": round(max(values), 3),
        }

    return {
        "images_per_s": {name: round(statistics.median(r), 1) for name, r in rates.items()},
        "attrib / bare": ratio("attrib", "bare"),
        "attrib / ahead": ratio("attrib", "ahead"),
        "attrib / raw": ratio("attrib", "raw"),
    }


def memory(options: argparse.Namespace) -> dict[str, object]:
    """Peak resident memory of a process that ingests N images, and of one with 8 N."""
    found = {}
    for times in (1, 8):
        command = [sys.executable, "-m", "benchmarks.ingest", "--peak-of", str(times)]
        command += ["--images", str(options.images), "--count", str(options.count)]
        command += ["--model", options.model, "--batch-size", str(options.batch_size)]
        done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT)
        found[times] = json.loads(done.stdout)
    return {
        "images": [found[1]["images"], found[8]["images"]],
        "peak_mib": [found[1]["peak_mib"], found[8]["peak_mib"]],
        "index_peak_mib": [found[1]["index_peak_mib"], found[8]["index_peak_mib"]],
        "ratio": round(found[8]["peak_mib"] / found[1]["peak_mib"], 3),
    }


def peak(source: Path, options: argparse.Namespace) -> dict[str, float]:
    """Ingest; report the peaks of this process and of the index's."""
    with tempfile.TemporaryDirectory() as folder:
        report, _ = ingest_into(
            Path(folder) / "data",
            [str(source)],
            dataset="bench",
            model=options.model,
            settings=IngestSettings(batch_size=options.batch_size),
            calibrate=False,
        )
    own = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    child = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024
    return {"images": report.total, "peak_mib": round(own, 1), "index_peak_mib": round(child, 1)}


if __name__ == "__main__":
    main()
