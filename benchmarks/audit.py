"""How much of a bare loop's speed the whole of `attrib audit` keeps, and what memory it takes.

    python -m benchmarks.audit [--gallery FOLDER] [--training FOLDER] [--count N] [--rounds R]
                               [--model NAME [--made-weights]] [--memory]

The gallery is N links, in turn to the images of a folder. Over the same images, with the same
model, threads and batches, in turn, R times:

    ahead     read, decode, preprocess in threads ahead of the embedding; nothing is kept
    audit     the parts of `attrib audit`: the same, thumbnails, attribution, near-copies, tables
    whole     that, and putting it together: duplicates, shares, report, manifest

Ratios are taken round by round, so that a machine whose speed drifts does not decide them, of wall
time and of processor time (of this process and of the index's).
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
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import numpy as np

from attrib.opened import ingest_into
from benchmarks.ingest import links
from benchmarks.made_weights import made_weights
from embed.backbones import DEFAULT_BACKBONE
from ingest.decode import decode
from ingest.source import open_sources
from search.audit.answers import LocalAnswers
from search.audit.gallery import Gallery
from search.audit.run import run_audit
from search.audit.settings import AuditSettings
from search.collection import Collection

ROOT = Path(__file__).resolve().parents[1]


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--gallery", type=Path, default=ROOT / "examples" / "generated")
    parser.add_argument("--training", type=Path, default=ROOT / "examples" / "training")
    parser.add_argument("--data", type=Path, help="a data folder, in place of --training")
    parser.add_argument("--count", type=int, default=1200)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--mass", type=float, default=AuditSettings().mass)
    parser.add_argument("--model", default=DEFAULT_BACKBONE)
    parser.add_argument(
        "--made-weights", action="store_true", help="random weights for a backbone of timm"
    )
    parser.add_argument("--memory", action="store_true", help="peak memory at N and 4 N images")
    parser.add_argument("--cache", type=Path, help="folder for the result (audit.json)")
    parser.add_argument("--peak-of", type=int, help=argparse.SUPPRESS)
    options, _ = parser.parse_known_args(arguments)
    if options.peak_of:
        options.count *= options.peak_of
    with ExitStack() as stack:
        if options.made_weights:
            stack.enter_context(made_weights(options.model))
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        gallery = folder / "gallery"
        gallery.mkdir()
        links(options.gallery, options.count, gallery)
        data = options.data or folder / "data"
        if options.data is None:
            ingest_into(data, [str(options.training)], dataset="bench", model=options.model)
        if options.peak_of:
            print(json.dumps(peak(data, gallery, folder / "out", options)))
            return
        result = {
            "images": options.count,
            "model": options.model,
            "mass": options.mass,
            "made_weights": options.made_weights,
            **speed(data, gallery, folder, options),
        }
        if options.memory:
            result["memory"] = memory(data, options)
    print(json.dumps(result, indent=2))
    if options.cache:
        options.cache.mkdir(parents=True, exist_ok=True)
        (options.cache / "audit.json").write_text(json.dumps(result, indent=2) + "\n")


def speed(
    data: Path, gallery: Path, folder: Path, options: argparse.Namespace
) -> dict[str, object]:
    """Seconds of each way, and ratios round by round."""
    settings = AuditSettings(mass=options.mass)
    wall: dict[str, list[float]] = {"ahead": [], "audit": [], "whole": []}
    processor: dict[str, list[float]] = {"ahead": [], "audit": []}
    with Collection.open(data) as collection:
        embedder = collection.embedder()
        answers = LocalAnswers(collection, lambda: embedder)
        paths = sorted(gallery.iterdir())
        preprocess = embedder.backbone.preprocessing.apply
        index = getattr(collection.index, "process_id", None)

        def spent() -> float:
            """Processor seconds of this process and of the index's."""
            own = time.process_time()
            if index is None:
                return own
            fields = Path(f"/proc/{index}/stat").read_text().rpartition(")")[2].split()
            return own + (int(fields[11]) + int(fields[12])) / 100

        def pixels(path: Path) -> np.ndarray:
            return preprocess(decode(path.read_bytes()).image)

        def ahead() -> None:
            size = settings.batch_size
            with ThreadPoolExecutor(settings.decode_threads) as pool:
                waiting: deque[Future[np.ndarray]] = deque()
                batch: list[np.ndarray] = []
                for path in [*paths, None]:
                    if path is not None:
                        waiting.append(pool.submit(pixels, path))
                    while waiting and (path is None or len(waiting) > 2 * size):
                        batch.append(waiting.popleft().result())
                        if len(batch) == size:
                            embedder.embed(np.stack(batch))
                            batch = []
                if batch:
                    embedder.embed(np.stack(batch))

        embedder.embed(np.stack([pixels(path) for path in paths[:32]]))  # warm
        for i in range(options.rounds):
            began, used = time.perf_counter(), spent()
            ahead()
            wall["ahead"].append(time.perf_counter() - began)
            processor["ahead"].append(spent() - used)

            marks = _Marks(spent)
            began, used = time.perf_counter(), spent()
            run_audit(
                Gallery(open_sources([str(gallery)])),
                answers,
                folder / f"out{i}",
                settings,
                progress=marks,
            )
            wall["whole"].append(time.perf_counter() - began)
            wall["audit"].append(marks.at - began)
            processor["audit"].append(marks.used - used)
            print({name: round(times[-1], 2) for name, times in wall.items()}, file=sys.stderr)
    return {
        "images_per_s": {
            name: round(options.count / statistics.median(times), 1) for name, times in wall.items()
        },
        "processor_ms_per_image": {
            name: round(1000 * statistics.median(times) / options.count, 2)
            for name, times in processor.items()
        },
        "audit / ahead": _ratio(wall["ahead"], wall["audit"]),
        "whole / ahead": _ratio(wall["ahead"], wall["whole"]),
        "processor time, audit / ahead": _ratio(processor["ahead"], processor["audit"]),
    }


class _Marks:
    """When the parts were done."""

    def __init__(self, spent: object) -> None:
        self.at = self.used = 0.0
        self._spent = spent

    def start(self, pending: int | None) -> None:
        pass

    def advance(self, images: int) -> None:
        pass

    def building(self) -> None:
        self.at, self.used = time.perf_counter(), self._spent()


def _ratio(ours: list[float], theirs: list[float]) -> dict[str, float]:
    values = [a / b for a, b in zip(ours, theirs, strict=True)]
    return {
        "median": round(statistics.median(values), 3),
        "min": round(min(values), 3),
        "max": round(max(values), 3),
    }


def memory(data: Path, options: argparse.Namespace) -> dict[str, object]:
    """Peak resident memory of a process that audits N images, and of one with 4 N."""
    found = {}
    for times in (1, 4):
        command = [sys.executable, "-m", "benchmarks.audit", "--peak-of", str(times)]
        command += ["--gallery", str(options.gallery), "--count", str(options.count)]
        command += ["--data", str(data), "--model", options.model, "--mass", str(options.mass)]
        done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT)
        found[times] = json.loads(done.stdout)
    return {
        "images": [found[1]["images"], found[4]["images"]],
        "peak_mib": [found[1]["peak_mib"], found[4]["peak_mib"]],
        "parts_peak_mib": [found[1]["parts_peak_mib"], found[4]["parts_peak_mib"]],
    }


def peak(data: Path, gallery: Path, out: Path, options: argparse.Namespace) -> dict[str, float]:
    """Audit; report the peaks of this process, at the end and before it is put together."""
    parts = [0.0]

    class Mark(_Marks):
        def building(self) -> None:
            parts[0] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024

    with Collection.open(data, wait_s=30) as collection:
        report = run_audit(
            Gallery(open_sources([str(gallery)])),
            LocalAnswers(collection, collection.embedder),
            out,
            AuditSettings(mass=options.mass),
            progress=Mark(lambda: 0.0),
        )
    own = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return {
        "images": report.summary["totals"]["images"],
        "peak_mib": round(own, 1),
        "parts_peak_mib": round(parts[0], 1),
    }


if __name__ == "__main__":
    main()
