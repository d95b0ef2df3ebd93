"""How fast the paper's protocol is, against one sort of the gallery for each query.

    python -m benchmarks.evaluate --n 1000000 --dim 512 --queries 2000

Synthetic features: distractors in clusters, as in web images, and models of 1 to 10 exemplars whose
generated images lie near them. Both ways run in one process on the same features, the sorts on some
of the queries between two halves of the count, so that a busy machine slows both; their time for
all queries is extrapolated, and the ranks of these queries are compared.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from evaluation.features import CaseFeatures
from evaluation.protocol import ArrayBlocks, Ranks, ranks

CENTRES = 2_000
LATENT = 64
NOISE = 0.3
SIGNAL = 0.6
BLOCK = 8_192
QUERIES_A_MODEL = 20


def main() -> None:
    """Make features, time both ways, print a table; with --json a file."""
    arguments = _arguments()
    print("making features ...", flush=True)
    distractors, case = _features(arguments.n, arguments.dim, arguments.queries)
    chosen = np.linspace(0, len(case.synth) - 1, arguments.sorted).astype(int)
    halves = np.array_split(np.arange(len(case.synth)), 2)
    gallery = ArrayBlocks(distractors)
    ranks(_some(case, chosen[:1]), ArrayBlocks(distractors[:BLOCK]))  # warm-up

    orders = {"torch": _torch_order(distractors), "numpy": _numpy_order(distractors)}
    peak = _Peak()
    with peak:
        first, found_first = _time(lambda: ranks(_some(case, halves[0]), gallery))
    sorts = {name: _sorted(case, distractors, chosen, order) for name, order in orders.items()}
    with peak:
        second, found_second = _time(lambda: ranks(_some(case, halves[1]), gallery))
    counted = first + second
    found = [*(found_first.of(q) for q in range(len(found_first)))]
    found += [found_second.of(q) for q in range(len(found_second))]
    features = distractors.nbytes + case.synth.nbytes + case.exemplars.nbytes
    result = {
        "n": arguments.n,
        "dim": arguments.dim,
        "queries": len(case.synth),
        "exemplars_mean": float(case.positives.mean()),
        "rank_median": float(np.median(np.concatenate(found))),
        "machine": f"{platform.machine()}, {len(os.sched_getaffinity(0))} CPUs",
        "started": time.strftime("%Y-%m-%d %H:%M:%S"),
        "count_s": counted,
        "peak_over_features": (features + peak.bytes) / features,
        "features_bytes": features,
    }
    for name, (seconds, sorted_ranks) in sorts.items():
        extrapolated = seconds / len(chosen) * len(case.synth)
        agree = np.mean(
            [np.array_equal(found[q], r) for q, r in zip(chosen, sorted_ranks, strict=True)]
        )
        result |= {
            f"sort_{name}_s_a_query": seconds / len(chosen),
            f"sort_{name}_s_extrapolated": extrapolated,
            f"ratio_{name}": extrapolated / counted,
            f"same_ranks_{name}": float(agree),
        }
    if arguments.json:
        arguments.json.write_text(json.dumps(result, indent=2) + "\n")
    _print(result, len(chosen))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--n", type=int, default=1_000_000, help="distractors")
    parser.add_argument("--dim", type=int, default=512)
    parser.add_argument("--queries", type=int, default=2_000)
    parser.add_argument("--sorted", type=int, default=20, help="queries that are sorted for")
    parser.add_argument("--json", type=Path, help="file to write the figures to")
    return parser.parse_args()


def _features(n: int, dim: int, queries: int) -> tuple[NDArray[np.float32], CaseFeatures]:
    random = np.random.default_rng(0)
    latent_map = random.standard_normal((LATENT, dim), np.float32) / np.float32(LATENT**0.5)
    centres = random.standard_normal((CENTRES, LATENT), np.float32)

    def draw(count: int, of: NDArray[np.int64] | None = None) -> NDArray[np.float32]:
        latent = centres[random.integers(CENTRES, size=count) if of is None else of]
        latent = latent + np.float32(0.7) * random.standard_normal((count, LATENT), np.float32)
        rows = latent @ latent_map
        rows += np.float32(NOISE) * random.standard_normal((count, dim), np.float32)
        return _unit(rows)

    distractors = np.empty((n, dim), np.float32)
    for start in range(0, n, BLOCK):
        distractors[start : start + BLOCK] = draw(min(BLOCK, n - start))
    models = max(1, queries // QUERIES_A_MODEL)
    counts = random.integers(1, 11, size=models)
    chunks = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
    # Exemplars of a model show one thing: they are drawn from one cluster.
    centre = np.repeat(random.integers(CENTRES, size=models), counts)
    exemplars = draw(int(chunks[-1]), centre)
    model = np.sort(np.arange(queries) % models)
    near = exemplars[chunks[model] + random.integers(counts[model])]
    synth = _unit(SIGNAL * near + (1 - SIGNAL) * draw(queries)).astype(np.float32)
    names = tuple(str(i) for i in range(models))
    return distractors, CaseFeatures(
        "made-up", names, exemplars, chunks, synth, model, ("gpt",) * queries
    )


def _unit(rows: NDArray[np.float32]) -> NDArray[np.float32]:
    unit: NDArray[np.float32] = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    return unit


def _some(case: CaseFeatures, queries: NDArray[np.int64]) -> CaseFeatures:
    return replace(
        case,
        synth=case.synth[queries],
        synth_model=case.synth_model[queries],
        synth_type=tuple(case.synth_type[q] for q in queries),
    )


Order = Callable[[NDArray[np.float32], NDArray[np.float32]], NDArray[np.int64]]


def _torch_order(distractors: NDArray[np.float32]) -> Order:
    import torch

    gallery = torch.from_numpy(distractors)

    def order(query: NDArray[np.float32], own: NDArray[np.float32]) -> NDArray[np.int64]:
        # The distractors are multiplied where they lie; to copy 2 GB a query would flatter us.
        one = torch.from_numpy(query)
        scores = torch.cat([gallery @ one, torch.from_numpy(own) @ one])
        return torch.argsort(-scores).numpy()

    return order


def _numpy_order(distractors: NDArray[np.float32]) -> Order:
    def order(query: NDArray[np.float32], own: NDArray[np.float32]) -> NDArray[np.int64]:
        return np.argsort(-np.concatenate([distractors @ query, own @ query]))

    return order


def _sorted(
    case: CaseFeatures, distractors: NDArray[np.float32], chosen: NDArray[np.int64], order: Order
) -> tuple[float, list[NDArray[np.int64]]]:
    order(case.synth[0], case.exemplars[:1])  # warm-up
    started = time.perf_counter()
    found = []
    for query in chosen:
        own = case.exemplars_of(int(case.synth_model[query]))
        found.append(np.flatnonzero(order(case.synth[query], own) >= len(distractors)) + 1)
    return time.perf_counter() - started, found


def _time(call: Callable[[], Ranks]) -> tuple[float, Ranks]:
    started = time.perf_counter()
    value = call()
    return time.perf_counter() - started, value


class _Peak:
    """The most by which this process grew while it was entered, looked at 50 times a second."""

    def __init__(self) -> None:
        self.bytes = 0

    def __enter__(self) -> _Peak:
        self._resting = _resident()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._stop.wait(0.02):
            self.bytes = max(self.bytes, _resident() - self._resting)


def _resident() -> int:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def _print(result: dict[str, object], sorted_queries: int) -> None:
    print(
        f"{result['n']:,} distractors x {result['dim']}, {result['queries']:,} queries of "
        f"{result['exemplars_mean']:.1f} exemplars, median rank {result['rank_median']:,.0f}; "
        f"{result['machine']}"
    )
    print(f"counting:      {result['count_s']:8.1f} s for all queries, measured")
    for name in ("torch", "numpy"):
        print(
            f"sorting {name}: {result[f'sort_{name}_s_extrapolated']:8.1f} s, extrapolated from "
            f"{sorted_queries} queries ({result[f'sort_{name}_s_a_query']:.3f} s each): "
            f"{result[f'ratio_{name}']:.1f} x; same ranks for "
            f"{result[f'same_ranks_{name}']:.0%} of them (float32 sorts settle near ties by chance)"
        )
    print(f"peak memory:   {result['peak_over_features']:8.2f} x the features")


if __name__ == "__main__":
    main()
