"""Which variations of its own images a collection should be calibrated on.

    python -m benchmarks.self_calibration CASE.json... --data DATA --distractors FOLDER
        [--exclude CASES]... [--samples 128] [--seed 0] [--json FILE]

For each way of varying images (`evaluation.augment`): a calibrator is fitted to the collection's
own varied images, as `attrib calibrate --self` does, and its answers to the *generated* images of
the test cases are compared with their exemplars: divergence in nats, as answered (relu, smoothed).
Beside it the default settings, and the best that any calibrator fitted to those very cases would
reach. Choose on validation cases.
"""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

from embed.lazy_embedder import LazyEmbedder
from evaluation.augment import GENERATED, STRONG, Variation
from evaluation.case_set import excluded_exemplars
from evaluation.cases import TestCase, cases_in, exemplar_paths
from evaluation.extract import case_features
from evaluation.fit import CalibratorFit, fit_calibrator
from evaluation.gallery import distractors
from evaluation.self_calibration import self_spectrum
from evaluation.spectrum import Spectrum, case_spectrum
from ingest.errors import AttribError
from search.collection import Collection

VARIATIONS = {
    "64-128 px, mild": Variation(64, 128, 0.5, 0.3, 0.5, 0),
    "64 px": Variation(64, 64, 0.3, 0.4, 1, 0),
    "64 px, strong": STRONG,
    "48 px": Variation(48, 48, 0.3, 0.4, 1, 6),
    "32-48 px, strong": Variation(32, 48, 0.2, 0.5, 1, 12),
    "24-32 px, strong (used)": GENERATED,
    "16-24 px, strong": Variation(16, 24, 0.2, 0.5, 1, 12),
}


def main() -> int:
    """Print a table; returns the exit code."""
    options = _options()
    try:
        found = measured(options)
    except AttribError as exc:
        print(f"benchmarks.self_calibration: {exc}", file=sys.stderr)
        return exc.exit_code
    if options.json:
        options.json.write_text(json.dumps(found, indent=2) + "\n", "utf-8")
    return 0


def measured(options: argparse.Namespace) -> dict[str, Any]:
    """Divergences of every variation on every case, printed as they come."""
    with Collection.open(options.data) as collection:
        cases = [case for file in options.cases for case in cases_in(file, None)]
        spectra = _spectra(collection, cases, options)
        print("| calibrated on | tau |", " | ".join(case.name for case in cases), "|")
        print("|---|--:|", "|".join("--:" for _ in cases), "|", sep="")
        before = {name: _fit(one, collection) for name, one in spectra.items()}
        unfitted = {name: fit.before.kl_smoothed for name, fit in before.items()}
        best = {name: fit.after.kl_smoothed for name, fit in before.items()}
        _row("nothing: default settings", collection.model.calibrator.tau, unfitted)
        rows: dict[str, Any] = {"default": unfitted, "best": best}
        for name, variation in VARIATIONS.items():
            own = self_spectrum(
                collection, samples=options.samples, seed=options.seed, variation=variation
            )
            fit = _fit(own.spectrum, collection)
            scores = {
                case: _fit(one, collection, fit).before.kl_smoothed for case, one in spectra.items()
            }
            _row(name, fit.calibrator.tau, scores)
            rows[name] = {"variation": asdict(variation), "tau": fit.calibrator.tau, **scores}
        _row("each case itself", None, best)
    return rows


def _spectra(
    collection: Collection, cases: list[TestCase], options: argparse.Namespace
) -> dict[str, Spectrum]:
    model = collection.model
    embedder = LazyEmbedder(model)
    known = {"weights_hash": model.weights_hash}
    gone = exemplar_paths(cases) | excluded_exemplars(options.exclude or [], note=print)
    gallery = distractors(options.distractors, gone, embedder, model.backbone, **known)
    mapped = gallery.mapped(model.mappers)
    return {
        case.name: case_spectrum(
            case_features(case, embedder, model.backbone, **known).mapped(model.mappers), mapped
        )
        for case in cases
    }


def _fit(
    spectrum: Spectrum, collection: Collection, start: CalibratorFit | None = None
) -> CalibratorFit:
    before = collection.model.calibrator if start is None else start.calibrator
    return fit_calibrator(spectrum, "benchmark", before=before, objective="exact")


def _row(name: str, tau: float | None, scores: dict[str, float]) -> None:
    shown = "" if tau is None else f"{tau:.4f}"
    print(f"| {name} | {shown} |", " | ".join(f"{s:.3f}" for s in scores.values()), "|", flush=True)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("cases", nargs="+", type=Path, metavar="CASE.json")
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--distractors", required=True)
    parser.add_argument("--exclude", type=Path, action="append")
    parser.add_argument("--samples", type=int, default=128)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path)
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
