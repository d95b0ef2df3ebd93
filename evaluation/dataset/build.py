"""A whole dataset: plan, customize, synthesize, model by model; resumable at any point."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from evaluation.dataset.customize import Prior, customized
from evaluation.dataset.files import (
    MANIFEST,
    PLAN,
    SPLITS,
    base_paths,
    children,
    prior_paths,
    record_path,
    synth_paths,
    write_bytes,
    write_text,
)
from evaluation.dataset.generator import Generator
from evaluation.dataset.library import Entry, Library
from evaluation.dataset.memory import check_memory
from evaluation.dataset.plan import ModelPlan, Plan, plan_dataset, read_plan
from evaluation.dataset.prompts import PromptLists, without_token
from evaluation.dataset.resume import difference, read_record
from evaluation.dataset.settings import BuildSettings
from evaluation.dataset.synthesize import synthesized
from ingest.decode import decode
from ingest.errors import DataFolderError, ImageError, SourceError, UsageError
from ingest.item import printable

__all__ = ["BuildReport", "Progress", "build_dataset", "generator_hash", "libraries"]

_LIBRARIES = (
    "attrib",
    "diffusers",
    "numpy",
    "peft",
    "pillow",
    "tokenizers",
    "torch",
    "transformers",
)


class Progress(Protocol):
    """Told of the images that are synthesized."""

    def start(self, pending: int | None) -> None:
        """So many are to be made."""
        ...

    def advance(self, images: int) -> None:
        """So many more are made."""
        ...


@dataclass(frozen=True)
class BuildReport:
    """What a build did.

    Attributes:
        models: in the dataset now.
        made: of them made by this run.
        images: synthesized in all.
        told: what was left out, and why.
    """

    models: int
    made: int
    images: int
    told: tuple[str, ...]


def libraries() -> dict[str, str]:
    """Versions of what decides the outcome, by package."""
    found = {}
    for name in _LIBRARIES:
        with suppress(PackageNotFoundError):
            found[name] = version(name)
    return found


def generator_hash(name: str) -> str:
    """SHA-256 over the files of a pipeline's folder; '' for one of the hub."""
    folder = Path(name)
    if not folder.is_dir():
        return ""
    digest = hashlib.sha256()
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            digest.update(path.relative_to(folder).as_posix().encode() + b"\0")
            with path.open("rb") as file:
                digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()


def build_dataset(
    out: Path,
    library: Library,
    load: Callable[[], Generator],
    lists: PromptLists,
    settings: BuildSettings,
    generator_name: dict[str, str],
    progress: Progress | None = None,
) -> BuildReport:
    """Make the dataset in `out`, or go on with it.

    A model is finished when its record is written, last of its files; what was begun and not
    finished is made again, from the same seeds. The same call gives the same files, byte for byte
    on a CPU with the same number of threads.

    Args:
        out: new, empty, or begun with the same arguments.
        library: exemplars and prior images.
        load: gives the generator.
        lists: of prompts.
        settings: of all.
        generator_name: ``name``, ``revision`` and ``sha256`` of the generator, for the record.
        progress: told of the images.

    Raises:
        UsageError: `out` holds a dataset of other settings, or something else; or there is no
            exemplar to be used.
        DataFolderError: the disk refuses.
        RunError: a customization failed, or would not fit into memory.
    """
    before = read_plan(out)
    # What was killed while it wrote its plan has left no more than a part of it.
    if before is None and any(path.name != PLAN + ".part" for path in children(out)):
        raise UsageError(f"{out} is not empty and holds no dataset; name a new folder with --out")
    generator = load()
    made_with = {**generator_name, "device": generator.device.type}
    plan = plan_dataset(library, lists, settings, generator.is_known, made_with, libraries())
    if before is not None and (differs := difference(before, plan.dumps())) is not None:
        raise UsageError(f"{out} was begun with other {differs}; give the same, or another --out")
    entries = {entry.key: entry for entry in library.entries}
    try:
        write_text(out / PLAN, plan.dumps())
        pending = [model for model in plan.models if read_record(out, model) is None]
        if pending:
            with_priors = settings.customization.prior_images > 0
            check_memory(generator, settings.customization, priors=with_priors)
        if progress is not None:
            progress.start(sum(len(model.prompts) + model.base_images for model in pending))
        for model in plan.models:
            _keep_exemplars(out, model, entries)
        for model in pending:
            _make(out, model, plan, entries, generator, settings, progress)
        _write_cases(out, plan, settings)
        _write_manifest(out, plan)
        shutil.rmtree(out / ".work", ignore_errors=True)
    except OSError as exc:
        raise DataFolderError(f"cannot write {out}: {exc.strerror or exc}") from exc
    images = sum(len(model.prompts) for model in plan.models)
    return BuildReport(len(plan.models), len(pending), images, plan.told)


def _make(
    out: Path,
    model: ModelPlan,
    plan: Plan,
    entries: dict[str, Entry],
    generator: Generator,
    settings: BuildSettings,
    progress: Progress | None,
) -> None:
    exemplars = [decode((out / path).read_bytes()).image for path in model.exemplars]
    priors = _priors([entries[key] for key in model.priors], model, settings)
    lacking = 0 if priors else settings.customization.prior_images
    work = out / ".work" / model.id
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
        for path, image in zip(paths, images, strict=True):
            target = work / path
            target.parent.mkdir(parents=True, exist_ok=True)
            image.save(target, "PNG")
            if progress is not None:
                progress.advance(1)

    generator.reset_token()
    make(
        before,
        [order[twin].text for twin in twins],
        [model.seeds[twin] for twin in twins],
    )
    word = _word(model, settings)
    noises = np.random.default_rng([model.seed, 2]).integers(2**31, size=lacking).tolist()
    make(own, [word] * lacking, noises)
    priors += [Prior(decode((work / path).read_bytes()).image, word) for path in own]
    with customized(
        generator, exemplars, model.prompt, priors, settings.customization, seed=model.seed
    ) as trained:
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


def _priors(entries: Sequence[Entry], model: ModelPlan, settings: BuildSettings) -> list[Prior]:
    """Those that can be read, without copies of the exemplar: one more or less is no loss."""
    priors = []
    for entry in entries:
        with suppress(ImageError, SourceError):
            data, image = entry.read()
            if hashlib.sha256(data).hexdigest() not in model.exemplar_hashes:
                caption = without_token(entry.caption)
                priors.append(Prior(image, caption or _word(model, settings)))
    return priors


def _word(model: ModelPlan, settings: BuildSettings) -> str:
    """What prior images without a caption show."""
    return model.name if settings.kind == "object" else "a picture"


def _keep_exemplars(out: Path, model: ModelPlan, entries: dict[str, Entry]) -> None:
    """Copy a model's exemplars into the dataset, where they are not there yet."""
    chosen = zip(model.exemplars, model.exemplar_keys, model.exemplar_hashes, strict=True)
    for path, key, digest in chosen:
        target = out / path
        if target.is_file() and hashlib.sha256(target.read_bytes()).hexdigest() == digest:
            continue
        data, _ = entries[key].read()
        if hashlib.sha256(data).hexdigest() != digest:
            raise SourceError(f"{printable(key)} changed while the dataset was planned; try again")
        write_bytes(target, data)


def _write_cases(out: Path, plan: Plan, settings: BuildSettings) -> None:
    """The test cases by split, in the format of AbC, and all prompts.

    Splits without a model get no file.
    """
    for split in SPLITS:
        cases: list[dict[str, Any]] = [
            {
                "exemplar": list(model.exemplars),
                "synth": synth_paths(model, settings.kind),
                "class_id": model.name,
                "category": settings.kind,
                "model_id": int(model.id),
                "customization_steps": settings.customization.steps,
            }
            for model in plan.models
            if model.split == split
        ]
        if cases:
            write_text(out / f"{settings.kind}_{split}.json", json.dumps(cases, indent=1) + "\n")
    prompts: dict[str, str] = {}
    for model in plan.models:
        prompts.update(_record(out, model)["prompts"])
    write_text(out / "prompts.json", json.dumps(prompts, indent=1) + "\n")


def _write_manifest(out: Path, plan: Plan) -> None:
    """Everything that made the set, and the hash of every file of it."""
    files: dict[str, str] = {}
    written = [PLAN, "prompts.json"]
    for model in plan.models:
        files.update(zip(model.exemplars, model.exemplar_hashes, strict=True))
        # As they were made: what happened to them since is for the check to find.
        files.update(_record(out, model)["images"])
        written.append(record_path(out, model.id).relative_to(out).as_posix())
        case = f"{plan.settings['kind']}_{model.split}.json"
        written += [] if case in written else [case]
    for name in written:
        files[name] = hashlib.sha256((out / name).read_bytes()).hexdigest()
    manifest = {
        "settings": plan.settings,
        "generator": plan.generator,
        "versions": plan.versions,
        "left_out": plan.told,
        "files": files,
    }
    write_text(out / MANIFEST, json.dumps(manifest, indent=1, sort_keys=True) + "\n")


def _record(out: Path, model: ModelPlan) -> dict[str, Any]:
    record = read_record(out, model)
    if record is None:
        raise SourceError(f"files of model {model.id} vanished from {out}; build it again")
    return record
