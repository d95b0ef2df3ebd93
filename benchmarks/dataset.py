"""What `attrib dataset build` costs beside the bare tuning and sampling that it is made of.

    python -m benchmarks.dataset
    python -m benchmarks.dataset --generator FOLDER --exemplars TABLE --models 2 --steps 20

Both sides run in this process, in turns, with the same generator: `build_dataset` with all that it
does (choosing, reading, checking memory, PNG files, hashes, records), and nothing but the calls of
`customized` and `synthesized` for the same models, whose images must come out the same. Measured is
processor time, which other work on the machine does not lengthen as it does wall time.
Without --generator and --exemplars a small pipeline and a library are made up.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from benchmarks.dataset_generator import make_generator, make_library
from evaluation.dataset.build import build_dataset, generator_hash, libraries
from evaluation.dataset.customize import Prior, customized
from evaluation.dataset.files import synth_paths
from evaluation.dataset.generator import Generator, load_generator
from evaluation.dataset.library import Library
from evaluation.dataset.plan import ModelPlan, plan_dataset
from evaluation.dataset.prompts import shipped_prompts, without_token
from evaluation.dataset.settings import BuildSettings, Customization, Sampling
from evaluation.dataset.synthesize import synthesized
from ingest.decode import decode

if TYPE_CHECKING:
    from PIL import Image


def main() -> None:
    """Measure, print a table; with --json a file."""
    import torch

    arguments = _arguments()
    torch.set_num_threads(arguments.threads)
    with tempfile.TemporaryDirectory(prefix="attrib-benchmark-") as made:
        folder = Path(made)
        name = arguments.generator or str(make_generator(folder / "generator"))
        specs = arguments.exemplars or [str(make_library(folder / "library"))]
        generator = load_generator(name, device=arguments.device)
        result = _measured(generator, specs, _settings(arguments), arguments, folder)
        began = time.process_time()
        generator_hash(name)
        result["generator_hash_s"] = time.process_time() - began
    result |= {"versions": libraries(), "threads": arguments.threads}
    print("round   build (s)   bare (s)   build / bare")
    rows = zip(result["build_s"], result["bare_s"], result["ratios"], strict=True)
    for number, (build, bare, ratio) in enumerate(rows, start=1):
        print(f"{number:5}   {build:9.2f}   {bare:8.2f}   {ratio:12.4f}")
    print(f"median of the ratios {result['ratio']:.4f}: {100 * (result['ratio'] - 1):+.1f} %")
    print(f"of a build, once: listing the library {result['library_s']:.2f} s")
    print(f"before it, once: hash of the generator's files {result['generator_hash_s']:.2f} s")
    if arguments.json:
        Path(arguments.json).write_text(json.dumps(result, indent=1) + "\n")


def _measured(
    generator: Generator,
    specs: Sequence[str],
    settings: BuildSettings,
    arguments: argparse.Namespace,
    folder: Path,
) -> dict[str, Any]:
    lists = shipped_prompts(settings.kind)
    began = time.process_time()
    library = Library(specs)
    listed = time.process_time() - began
    plan = plan_dataset(library, lists, settings, generator.is_known, {}, {})
    entries = {entry.key: entry for entry in library.entries}
    inputs = []
    for model in plan.models:
        exemplars = [entries[key].read()[1] for key in model.exemplar_keys]
        priors = [
            Prior(entries[key].read()[1], without_token(entries[key].caption) or model.name)
            for key in model.priors
        ]
        if settings.customization.prior_images and not priors:
            sys.exit(f"the library has no prior images for {model.name}: take others")
        inputs.append((model, exemplars, priors))
    builds: list[float] = []
    bares: list[float] = []
    model, exemplars, priors = inputs[0]
    _bare(generator, model, exemplars, priors, settings)  # to warm up
    for number in range(arguments.rounds):
        out = folder / f"set-{number}"

        images: list[Image.Image] = []

        def build(out: Path = out) -> None:
            named = {"name": generator.name, "revision": "", "sha256": ""}
            build_dataset(out, Library(specs), lambda: generator, lists, settings, named)

        def bare(images: list[Image.Image] = images) -> None:
            for model, exemplars, priors in inputs:
                images += _bare(generator, model, exemplars, priors, settings)

        # Each is the first of a round as often as the other.
        if number % 2:
            builds.append(_timed(build))
            bares.append(_timed(bare))
        else:
            bares.append(_timed(bare))
            builds.append(_timed(build))
        _compare(out, plan.models, images, settings)
    ratios = [build / bare for build, bare in zip(builds, bares, strict=True)]
    return {
        "models": len(plan.models),
        "images": sum(len(model.prompts) for model in plan.models),
        "build_s": builds,
        "bare_s": bares,
        "ratios": ratios,
        "ratio": statistics.median(ratios),
        "library_s": listed,
    }


def _bare(
    generator: Generator,
    model: ModelPlan,
    exemplars: Sequence[Image.Image],
    priors: Sequence[Prior],
    settings: BuildSettings,
) -> list[Image.Image]:
    """The model's images, with nothing around the calls that make them."""
    order = [
        prompt
        for kind in synth_paths(model, settings.kind)
        for prompt in model.prompts
        if prompt.kind == kind
    ]
    twins = [number * len(order) // model.base_images for number in range(model.base_images)]
    generator.reset_token()
    list(
        synthesized(
            generator,
            [order[twin].text for twin in twins],
            [model.seeds[twin] for twin in twins],
            settings.sampling,
        )
    )
    with customized(
        generator, exemplars, model.prompt, priors, settings.customization, seed=model.seed
    ):
        prompts = [prompt.text for prompt in order]
        return list(synthesized(generator, prompts, model.seeds, settings.sampling))


def _compare(
    out: Path, models: Sequence[ModelPlan], images: list[Image.Image], settings: BuildSettings
) -> None:
    paths = [
        path
        for model in models
        for some in synth_paths(model, settings.kind).values()
        for path in some
    ]
    for path, image in zip(paths, images, strict=True):
        built = decode((out / path).read_bytes()).image
        if not np.array_equal(np.asarray(built), np.asarray(image.convert("RGB"))):
            sys.exit(f"{path} is another image than the bare calls make: nothing is compared")


def _timed(call: Callable[[], None]) -> float:
    began = time.process_time()
    call()
    return time.process_time() - began


def _settings(arguments: argparse.Namespace) -> BuildSettings:
    return BuildSettings(
        models=arguments.models,
        per_model=arguments.per_model,
        customization=Customization(
            method=arguments.method, steps=arguments.steps, prior_images=arguments.prior_images
        ),
        sampling=Sampling(steps=arguments.sampling_steps),
    )


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--generator", help="a pipeline; made up when not given")
    parser.add_argument("--exemplars", action="append", help="images with class words; likewise")
    parser.add_argument("--models", type=int, default=2)
    parser.add_argument("--per-model", type=int, default=8)
    parser.add_argument("--method", default="custom-diffusion")
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--prior-images", type=int, default=20)
    parser.add_argument("--sampling-steps", type=int, default=10)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--json", help="write the figures into this file, too")
    return parser.parse_args()


if __name__ == "__main__":
    main()
