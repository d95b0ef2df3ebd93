"""One model of a dataset: what the generator makes before it is tuned, and what it makes after."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path

import numpy as np

from evaluation.dataset.customize import Prior, customized
from evaluation.dataset.files import (
    WORK,
    base_paths,
    prior_paths,
    record_path,
    synth_paths,
    write_text,
)
from evaluation.dataset.free_memory import out_of_memory
from evaluation.dataset.generator import Generator
from evaluation.dataset.library import Entry
from evaluation.dataset.plan import ModelPlan, class_prompt
from evaluation.dataset.settings import BuildSettings
from evaluation.dataset.synthesize import synthesized
from ingest.decode import decode
from ingest.errors import ImageError, SourceError
from ingest.item import printable

__all__ = ["image_count", "make_model"]

# Settings are part of the plan: other ones are another dataset.
_SMALLER_SAMPLING = "lower --sampling-batch, with another --out, or take a larger machine"
_SMALLER_STEPS = "lower --batch-size or add --gradient-checkpointing, with another --out"


def make_model(
    out: Path,
    model: ModelPlan,
    entries: Mapping[str, Entry],
    generator: Generator,
    settings: BuildSettings,
    advance: Callable[[int], None],
    work: Path | None = None,
) -> None:
    """Make all images of a model, then its record: where that is, the model is whole.

    Args:
        out: of the dataset; the model's exemplars are in it.
        model: what to make.
        entries: of the library by key.
        generator: to be tuned; afterwards it is what it was.
        settings: of the whole dataset.
        advance: told of the images that are made, of the last one before any is put in its place:
            what it raises leaves the dataset as it was.
        work: folder for images that are not; below `out`, and of this call alone.

    Raises:
        ImageError: an exemplar is damaged.
        SourceError: a prior image is another than it was when the dataset was planned.
        RunError: as of `customized` and `synthesized`.
        OSError: the disk refuses.
    """
    exemplars = [decode((out / path).read_bytes()).image for path in model.exemplars]
    priors = list(_priors(model, entries))
    lacking = 0 if priors else settings.customization.prior_images
    work = out / WORK / model.id if work is None else work
    shutil.rmtree(work, ignore_errors=True)
    by_kind = synth_paths(model, settings.kind)
    places = [path for paths in by_kind.values() for path in paths]
    order = [prompt for kind in by_kind for prompt in model.prompts if prompt.kind == kind]
    before = base_paths(model, settings.kind)
    # Of both kinds of prompts, each with the words and the noise of the image that it is compared
    # with: then nothing but the training is between them.
    twins = [number * len(order) // len(before) for number in range(len(before))]
    own = prior_paths(model, settings.kind, lacking)

    def make(paths: Sequence[str], prompts: Sequence[str], seeds: Sequence[int]) -> None:
        images = synthesized(generator, prompts, seeds, settings.sampling)
        with out_of_memory(_SMALLER_SAMPLING):
            for path, image in zip(paths, images, strict=True):
                target = work / path
                target.parent.mkdir(parents=True, exist_ok=True)
                image.save(target, "PNG")
                advance(1)

    generator.reset_token()
    make(
        before,
        [order[twin].text for twin in twins],
        [model.seeds[twin] for twin in twins],
    )
    word = class_prompt(model.name, settings)
    noises = np.random.default_rng([model.seed, 2]).integers(2**31, size=lacking).tolist()
    make(own, [word] * lacking, noises)
    priors += [Prior(decode((work / path).read_bytes()).image, word) for path in own]
    with (
        out_of_memory(_SMALLER_STEPS),
        customized(
            generator, exemplars, model.prompt, priors, settings.customization, seed=model.seed
        ) as trained,
    ):
        make(places, [prompt.text for prompt in order], model.seeds)
    hashes = {}
    for path in (*places, *before, *own):
        hashes[path] = hashlib.sha256((work / path).read_bytes()).hexdigest()
        (out / path).parent.mkdir(parents=True, exist_ok=True)
        (work / path).replace(out / path)
    record = {
        **asdict(model),
        "images": hashes,
        "base_of": {path: places[twin] for path, twin in zip(before, twins, strict=True)},
        "prior_images": {"real": len(priors) - lacking, "synthesized": lacking},
        "prompts": {path: prompt.text for path, prompt in zip(places, order, strict=True)},
        "losses": [round(loss, 6) for loss in trained.losses],
        "prior_losses": [round(loss, 6) for loss in trained.prior_losses],
        "moved": trained.moved,
    }
    write_text(record_path(out, model.id), json.dumps(record, indent=1, sort_keys=True) + "\n")


def image_count(model: ModelPlan, entries: Mapping[str, Entry], settings: BuildSettings) -> int:
    """How many images the generator makes for a model, prior images among them."""
    has_priors = next(_priors(model, entries), None) is not None
    lacking = 0 if has_priors else settings.customization.prior_images
    return len(model.prompts) + model.base_images + lacking


def _priors(model: ModelPlan, entries: Mapping[str, Entry]) -> Iterator[Prior]:
    """Those that can be used, without copies of the exemplar: one more or less is no loss.

    Raises:
        SourceError: one is another than it was when the dataset was planned.
    """
    planned = zip(model.priors, model.prior_hashes, model.prior_prompts, strict=True)
    for key, digest, prompt in planned:
        if not digest or digest in model.exemplar_hashes:
            continue
        try:
            data = entries[key].data()
        except (ImageError, SourceError) as exc:
            raise SourceError(
                f"prior image {printable(key)} cannot be read any more: {exc}"
            ) from exc
        if hashlib.sha256(data).hexdigest() != digest:
            raise SourceError(
                f"prior image {printable(key)} changed since the dataset was planned; put it back, "
                "or name another --out"
            )
        with suppress(ImageError):
            yield Prior(decode(data).image, prompt)
