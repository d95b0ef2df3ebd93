"""How long an answer takes at a million training images, and how right it is.

    python -m benchmarks.query --n 1000000 --kind clustered --quantization none --cache DIR

Builds a synthetic collection in the cache (once), then measures in one run, interleaved, so that a
busy machine slows both sides of every ratio: the engine's exact scan, and whole answers (features
given; search, calibration, 50 rows with their payloads, remaining influence) where the support is
fetched whole and where it is estimated. The truth comes from the generator, not from the index.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args

import numpy as np
from numpy.typing import NDArray

from benchmarks import synthetic
from embed.calibrator import Calibrator
from search.answer import Attribution
from search.attribution import Attributor
from search.calibration import weights
from search.edge import EdgeIndex, EdgeSettings
from search.edge_settings import Quantization

K = 50
SUPPORT = 75
"""The median support that tau is chosen for, with the default b."""
B = -0.02
FLAT = 3.0
"""The flat calibrator's tau, in the tau above: most influence lies outside of the head."""
EXACT_EVERY = 5
FOLDED = 256
"""Nearest records among which the truth folds copies, as attrib does in a larger support."""


def main() -> None:
    """Build or open, measure, write JSON, print a table."""
    arguments = _arguments()
    name = _name(arguments, arguments.n)
    folder = arguments.cache / name
    queries = synthetic.queries(arguments.kind, arguments.queries)
    result: dict[str, Any] = {
        "n": arguments.n,
        "kind": arguments.kind,
        "quantization": arguments.quantization,
        "vectors_on_disk": arguments.vectors_on_disk,
        "queries": arguments.queries,
        "machine": f"{platform.machine()}, {_cpus()} CPUs",
        "started": time.strftime("%Y-%m-%d %H:%M:%S"),
    }
    result["build"] = _build(folder, arguments)
    truth, image = _truth(arguments.cache, arguments.kind, arguments.n, queries)
    if arguments.build_only:
        return
    with EdgeIndex.open(folder / "index", wait_s=30) as index:
        result["memory"] = {"opened": _memory(index.process_id, arguments.n)}
        # Before any exact scan, which touches every vector and so brings all of them into memory.
        tau = _tau(truth)
        attributor = Attributor(index, "synthetic", "", Calibrator(tau, B))
        others = synthetic.queries(arguments.kind, 2 * len(queries))[len(queries) :]
        for query in others:  # not the ones that are timed: a repeated query is twice as fast
            attributor.attribute(query[None], ["memory"], k=K)
        result["memory"]["answering"] = _memory(index.process_id, arguments.n)
        result |= _measure(index, queries, truth, image)
        result["memory"]["after"] = _memory(index.process_id, arguments.n)
        info = index.info()
        result["index"] = {"ef": info.ef, "indexed": info.indexed, **info.details}
    smaller = arguments.cache / f"{_name(arguments, 100_000)}.json"
    if arguments.n > 100_000 and smaller.exists():
        before = json.loads(smaller.read_text())
        for method in ("complete", "estimated", "flat"):
            result[method]["times_100k"] = result[method]["median_ms"] / before[method]["median_ms"]
    (arguments.cache / f"{name}.json").write_text(json.dumps(result, indent=2))
    _print(result)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--n", type=int, default=1_000_000, help="training images")
    parser.add_argument("--kind", choices=get_args(synthetic.Kind), default="clustered")
    parser.add_argument("--quantization", choices=get_args(Quantization), default="none")
    parser.add_argument("--cache", type=Path, required=True, help="folder to keep collections in")
    parser.add_argument("--queries", type=int, default=200)
    parser.add_argument("--vectors-on-disk", action="store_true")
    parser.add_argument("--build-only", action="store_true", help="leave the measuring for later")
    arguments = parser.parse_args()
    arguments.cache.mkdir(parents=True, exist_ok=True)
    return arguments


def _name(arguments: argparse.Namespace, n: int) -> str:
    disk = "-disk" if arguments.vectors_on_disk else ""
    return f"{arguments.kind}-{arguments.quantization}{disk}-{n}"


def _build(folder: Path, arguments: argparse.Namespace) -> dict[str, float]:
    """Seconds that building took, remembered beside the collection; its presence means done."""
    done = folder / "build.json"
    if done.exists():
        built: dict[str, float] = json.loads(done.read_text())
        return built
    folder.mkdir(parents=True, exist_ok=True)
    settings = EdgeSettings(
        quantization=arguments.quantization, vectors_on_disk=arguments.vectors_on_disk
    )
    started = time.perf_counter()
    with EdgeIndex.create(folder / "index", synthetic.DIM, settings) as index:
        for block in synthetic.blocks(arguments.kind, arguments.n):
            index.upsert(*_points(block))
        index.flush()
        upserted = time.perf_counter()
        print(f"upserted in {upserted - started:.0f} s", flush=True)
        index.build()
    built = {
        "upsert_s": upserted - started,
        "build_s": time.perf_counter() - upserted,
    }
    done.write_text(json.dumps(built))
    print(f"built in {built['build_s']:.0f} s", flush=True)
    return built


def _points(block: synthetic.Block) -> tuple[Any, Any, Any]:
    ids, records = synthetic.payloads(block)
    return ids, block.vectors, records


def _truth(
    cache: Path, kind: synthetic.Kind, n: int, queries: NDArray[np.float32]
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """All similarities (queries, n), and (n,) which image each record is a copy of."""
    file = cache / f"truth-{kind}-{n}-{len(queries)}.npz"
    if file.exists():
        with np.load(file) as content:
            return content["scores"], content["image"]
    scores = np.empty((len(queries), n), np.float32)
    image = np.empty(n, np.int64)
    for block in synthetic.blocks(kind, n):
        part = slice(block.start, block.start + len(block.vectors))
        scores[:, part] = queries @ block.vectors.T
        image[part] = block.image
    np.savez(file, scores=scores, image=image)
    return scores, image


def _measure(
    index: EdgeIndex,
    queries: NDArray[np.float32],
    truth: NDArray[np.float32],
    image: NDArray[np.int64],
) -> dict[str, Any]:
    tau = _tau(truth)
    calibrators = {
        "complete": Calibrator(tau, B),
        "estimated": Calibrator(tau, 0.0),
        "flat": Calibrator(tau * FLAT, 0.0),
    }
    attributors = {
        name: Attributor(index, "synthetic", "", calibrator)
        for name, calibrator in calibrators.items()
    }
    started = time.perf_counter()
    for attributor in attributors.values():  # sample loaded, pages touched
        attributor.attribute(queries[:1], ["warm-up"], k=K)
    warm_up = time.perf_counter() - started
    times: dict[str, list[float]] = {name: [] for name in ("scan", "search", *attributors)}
    answers: dict[str, list[Attribution]] = {name: [] for name in attributors}
    found: list[set[int]] = []
    for place in range(len(queries)):
        query = queries[place : place + 1]
        if place % EXACT_EVERY == 0:  # with a query of its own, for the same reason
            scanned = queries[place - 1 : place] if place else queries[-1:]
            times["scan"].append(_time(index.search, scanned, K, exact=True)[0])
        # Only the first to touch a query is timed with it; after that its pages and links are warm.
        order = ["search", *attributors]
        first = place % len(order)
        for name in order[first:] + order[:first]:
            if name == "search":
                seconds, results = _time(index.search, query, K)
                records = index.fetch(results[0].ids, fields=["key"])
                found.append({int(record["key"]) for record in records})
            else:
                seconds, results = _time(attributors[name].attribute, query, [str(place)], k=K)
                answers[name] += results
            if name == order[first]:
                times[name].append(seconds)
    scan = statistics.median(times["scan"])
    result: dict[str, Any] = {
        "warm_up_ms": warm_up * 1e3,
        "scan": _summary(times["scan"]),
        "search": {**_summary(times["search"]), "recall": _recall(found, truth)},
    }
    for name, calibrator in calibrators.items():
        result[name] = {
            "tau": calibrator.tau,
            "b": calibrator.b,
            **_summary(times[name]),
            "scan_over_answer": scan / statistics.median(times[name]),
            **_accuracy(answers[name], truth, image, calibrator),
        }
    return result


def _tau(truth: NDArray[np.float32]) -> float:
    """Of which the median support is `SUPPORT`: exp(-gap / tau) = -b at that rank."""
    nearest = -np.partition(-truth, (0, SUPPORT), axis=1)
    gap = float(np.median(nearest[:, 0] - nearest[:, SUPPORT]))
    return gap / -float(np.log(-B))


def _accuracy(
    answers: list[Attribution],
    truth: NDArray[np.float32],
    image: NDArray[np.int64],
    calibrator: Calibrator,
) -> dict[str, Any]:
    top_errors, row_errors, covered, supports, shown, widths, recalls = [], [], [], [], [], [], []
    for answer, scores in zip(answers, truth, strict=True):
        weight = weights(scores, float(scores.max()), calibrator)
        total = float(weight.sum())
        nearest = np.argpartition(-scores, FOLDED)[:FOLDED]
        folded: dict[int, float] = {}
        for place in nearest:
            folded[image[place]] = folded.get(image[place], 0.0) + float(weight[place])
        best = sorted(folded, key=lambda number: -folded[number])[:K]
        best = [number for number in best if folded[number] > 0]
        exact = sum(folded[number] for number in best) / total
        got = sum(row.influence for row in answer.rows)
        top_errors.append(abs(got - exact) / exact)
        true_rows = [folded.get(image[int(row.key)], 0.0) / total for row in answer.rows]
        recalls.append(
            len({int(image[int(row.key)]) for row in answer.rows} & set(best)) / len(best)
        )
        row_errors += [
            abs(row.influence - share) / share
            for row, share in zip(answer.rows, true_rows, strict=True)
            if share > 0
        ]
        low, high = answer.remaining_interval
        if answer.method == "estimated":
            covered.append(low <= 1 - sum(true_rows) <= high)
            widths.append((high - low) / max(1 - sum(true_rows), 1e-12))
        supports.append(int(np.count_nonzero(weight)))
        shown.append(exact)
    return {
        "methods": sorted({answer.method for answer in answers}),
        "rows_recall": float(np.mean(recalls)),
        "support_median": float(np.median(supports)),
        "top_influence_median": float(np.median(shown)),
        "top_error_mean": float(np.mean(top_errors)),
        "top_error_median": float(np.median(top_errors)),
        "top_error_p95": float(np.quantile(top_errors, 0.95)),
        "top_error_max": max(top_errors),
        "row_error_max": max(row_errors),
        "coverage": float(np.mean(covered)) if covered else None,
        "interval_over_remaining_median": float(np.median(widths)) if widths else None,
    }


def _recall(found: list[set[int]], truth: NDArray[np.float32]) -> float:
    """Recall@K; a record as similar as the K-th best is a right one, whichever copy it is."""
    right = 0
    for hits, scores in zip(found, truth, strict=True):
        last = float(-np.partition(-scores, K - 1)[K - 1])
        right += sum(float(scores[hit]) >= last - 1e-6 for hit in hits)
    return right / (K * len(found))


def _time(call: Callable[..., Any], *arguments: object, **options: object) -> tuple[float, Any]:
    started = time.perf_counter()
    value = call(*arguments, **options)
    return time.perf_counter() - started, value


def _summary(seconds: list[float]) -> dict[str, float]:
    return {
        "median_ms": statistics.median(seconds) * 1e3,
        "p99_ms": float(np.quantile(seconds, 0.99)) * 1e3,
    }


def _memory(process: int, n: int) -> dict[str, float]:
    """Resident bytes of the index process: its own, and pages of files that can be taken back."""
    fields = {}
    for line in Path(f"/proc/{process}/status").read_text().splitlines():
        name, _, value = line.partition(":")
        if name in ("RssAnon", "RssFile"):
            fields[name] = int(value.split()[0]) * 1024
    return {
        "anon_bytes": fields["RssAnon"],
        "file_bytes": fields["RssFile"],
        "anon_bytes_per_vector": fields["RssAnon"] / n,
        "file_bytes_per_vector": fields["RssFile"] / n,
    }


def _cpus() -> int:
    import os

    return len(os.sched_getaffinity(0))


def _print(result: dict[str, Any]) -> None:
    print(
        f"\n{result['n']:,} {result['kind']}, quantization {result['quantization']}, "
        f"{result['machine']}, recall@{K} {result['search']['recall']:.4f}"
    )
    print(
        f"{'':10} {'median ms':>10} {'p99 ms':>8} {'scan/x':>7} {'support':>9} {'top 50':>7} "
        f"{'error':>8} {'max':>8} {'covered':>8}"
    )
    for name in ("scan", "search", "complete", "estimated", "flat"):
        row = result[name]
        ratio = result["scan"]["median_ms"] / row["median_ms"]
        line = f"{name:10} {row['median_ms']:10.2f} {row['p99_ms']:8.2f} {ratio:7.1f}"
        if "coverage" in row:
            line += (
                f" {row['support_median']:9.0f} {row['top_influence_median']:7.1%}"
                f" {row['top_error_mean']:8.3%} {row['top_error_max']:8.3%} "
            )
            if row["coverage"] is not None:
                line += f" {row['coverage']:8.1%}"
        print(line)
    memory = result["memory"]["answering"]
    print(
        f"resident bytes per vector: {memory['anon_bytes_per_vector']:.0f} own, "
        f"{memory['file_bytes_per_vector']:.0f} of files; build {result['build']}"
    )


if __name__ == "__main__":
    main()
