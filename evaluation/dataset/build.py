"""A whole dataset: plan, customize, synthesize, model by model; resumable at any point."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Protocol

from evaluation.dataset.captions import Captions
from evaluation.dataset.endpoint import Endpoint
from evaluation.dataset.files import (
    LOCK,
    MANIFEST,
    PLAN,
    SPLITS,
    WORK,
    children,
    record_path,
    synth_paths,
    write_bytes,
    write_text,
)
from evaluation.dataset.generator import Generator
from evaluation.dataset.identity import identity
from evaluation.dataset.library import Entry, Library
from evaluation.dataset.lock import taken
from evaluation.dataset.make import image_count, make_model
from evaluation.dataset.memory import check_memory
from evaluation.dataset.plan import ModelPlan, Plan, plan_dataset, read_plan
from evaluation.dataset.prompts import PromptLists
from evaluation.dataset.reading import cut_prompts, readable_lists, reads_template
from evaluation.dataset.resume import (
    captions_of,
    difference,
    is_whole,
    listed_files,
    read_record,
)
from evaluation.dataset.settings import BuildSettings
from evaluation.dataset.trained import check_method
from ingest.errors import DataFolderError, SourceError, UsageError
from ingest.item import printable

__all__ = ["BuildReport", "Makes", "Progress", "build_dataset", "generator_hash", "libraries"]

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


class Makes(Protocol):
    """Has models made somewhere."""

    def __call__(
        self, out: Path, models: Sequence[ModelPlan], advance: Callable[[int], None]
    ) -> None:
        """Return when all are made; `out` has their plan and exemplars."""
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
    *,
    endpoint: Endpoint | None = None,
    make: Makes | None = None,
) -> BuildReport:
    """Make the dataset in `out`, or go on with it.

    A model is finished when its record is written, last of its files; what was begun and not
    finished is made again, from the same seeds, and so is a model whose files have changed. The
    same call gives the same files, byte for byte on a CPU with the same number of threads.

    Args:
        out: new, empty, or begun with the same arguments.
        library: exemplars and prior images.
        load: gives the generator.
        lists: of prompts.
        settings: of all.
        generator_name: ``name``, ``revision`` and ``sha256`` of the generator, for the record; also
            ``device``, where its models are made on another kind than this generator is on. What
            else decides the bytes is added (`evaluation.dataset.identity`).
        progress: told of the images.
        endpoint: asked for free prompts in place of those in `lists`, once: what it wrote is kept
            in the plan.
        make: has the models made elsewhere; None to make them here, one after another.

    Raises:
        UsageError: `out` holds a dataset of other settings, or something else; there is no
            exemplar to be used; or a prompt's slot is beyond what the generator reads.
        DataFolderBusyError: another process writes into `out`.
        DataFolderError: the disk refuses.
        RunError: a customization failed, or would not fit into memory; the endpoint refuses.
    """
    _check_place(out)
    with ExitStack() as held:
        is_there = out.is_dir()
        if is_there:
            held.enter_context(taken(out))
        before = read_plan(out)
        generator = load()
        check_method(generator, settings.customization.method)
        name = generator_name["name"]
        lists, told = readable_lists(generator, name, lists, settings.kind)
        # Before there is a plan: what would fit has other settings, and is another plan.
        if before is None and make is None:
            check_memory(generator, settings)
        captions = None
        if endpoint is not None:
            captions = Captions(
                endpoint,
                settings,
                captions_of(before),
                is_read=lambda template: reads_template(generator, template),
            )
        plan = plan_dataset(
            library,
            lists,
            settings,
            generator.is_known,
            identity(generator, generator_name),
            libraries(),
            captions,
        )
        told += [*cut_prompts(generator, name, plan.models), *_fewer(plan, settings)]
        plan = replace(plan, told=(*plan.told, *told))
        _refuse_other(out, before, plan)
        pending = _pending(out, plan, settings)
        if before is not None and pending and make is None:
            check_memory(generator, settings)
        try:
            if not is_there:
                # No wrong call leaves a folder behind: it is made once there is a plan.
                out.mkdir(parents=True, exist_ok=True)
                held.enter_context(taken(out))
                _refuse_other(out, read_plan(out), plan)
                pending = _pending(out, plan, settings)
            write_text(out / PLAN, plan.dumps())
            _make_pending(out, plan, pending, library, generator, settings, progress, make)
            _write_cases(out, plan, settings)
            _write_manifest(out, plan)
            shutil.rmtree(out / WORK, ignore_errors=True)
        except OSError as exc:
            raise DataFolderError(f"cannot write {out}: {exc.strerror or exc}") from exc
    images = sum(len(model.prompts) for model in plan.models)
    return BuildReport(len(plan.models), len(pending), images, plan.told)


def _fewer(plan: Plan, settings: BuildSettings) -> list[str]:
    """Of models that were asked for and are not there, in all and by split."""
    told = []
    if (count := len(plan.models)) < settings.models:
        lacking = (
            "no other image can be an exemplar"
            if settings.kind == "object"
            else "no other creator has enough images"
        )
        told.append(f"{settings.models} models were asked for, {count} can be made: {lacking}")
    for split, share in zip(SPLITS, settings.splits, strict=True):
        if share > 0 and not any(model.split == split for model in plan.models):
            told.append(
                f"no model is in {split}: {share:g} of {count} is less than one; for "
                f"{settings.kind}_{split}.json take more --models, or other --splits"
            )
    return told


def _refuse_other(out: Path, before: str | None, plan: Plan) -> None:
    if before is not None and (differs := difference(before, plan.dumps())) is not None:
        raise UsageError(f"{out} was begun with other {differs}; give the same, or another --out")


def _pending(out: Path, plan: Plan, settings: BuildSettings) -> list[ModelPlan]:
    """The models that are not made, or of which something has changed since."""
    listed = listed_files(out)
    return [model for model in plan.models if not is_whole(out, model, settings.kind, listed)]


def _check_place(out: Path) -> None:
    if out.exists() and not out.is_dir():
        raise UsageError(f"{out} is a file; name a folder with --out")
    # What was killed while it wrote its plan has left no more than these.
    left = {PLAN + ".part", LOCK}
    if not (out / PLAN).exists() and any(path.name not in left for path in children(out)):
        raise UsageError(f"{out} is not empty and holds no dataset; name a new folder with --out")


def _make_pending(
    out: Path,
    plan: Plan,
    pending: Sequence[ModelPlan],
    library: Library,
    generator: Generator,
    settings: BuildSettings,
    progress: Progress | None,
    make: Makes | None,
) -> None:
    # Of a build that was killed, or of workers that it had; those notice.
    shutil.rmtree(out / WORK, ignore_errors=True)
    entries = {entry.key: entry for entry in library.entries}
    advance: Callable[[int], None] = _nobody
    if progress is not None:
        progress.start(sum(image_count(model, entries, settings) for model in pending))
        advance = progress.advance
    for model in plan.models:
        _keep_exemplars(out, model, entries)
    if make is not None and pending:
        make(out, pending, advance)
    elif make is None:
        for model in pending:
            make_model(out, model, entries, generator, settings, advance)


def _nobody(images: int) -> None:
    """Told of images where nobody asks."""


def _keep_exemplars(out: Path, model: ModelPlan, entries: Mapping[str, Entry]) -> None:
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
    if plan.captions is not None:
        manifest["captions"] = {name: plan.captions[name] for name in ("endpoint", "model")}
    write_text(out / MANIFEST, json.dumps(manifest, indent=1, sort_keys=True) + "\n")


def _record(out: Path, model: ModelPlan) -> dict[str, Any]:
    record = read_record(out, model)
    if record is None:
        raise SourceError(f"files of model {model.id} vanished from {out}; build it again")
    return record
