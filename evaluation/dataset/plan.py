"""The plan of a dataset: which models, exemplars, prompts and seeds; written before all work."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from evaluation.dataset.files import PLAN
from evaluation.dataset.generator import TOKEN
from evaluation.dataset.library import Entry, Library, Subject
from evaluation.dataset.prompts import Prompt, PromptLists
from evaluation.dataset.settings import BuildSettings
from ingest.errors import ImageError, SourceError, UsageError

__all__ = ["ModelPlan", "Plan", "plan_dataset", "read_plan"]

SCHEMA = "attrib-dataset/1"


@dataclass(frozen=True)
class ModelPlan:
    """One customized model.

    Attributes:
        id: number in the dataset, as text of fixed width.
        name: class word, or creator.
        split: ``train``, ``val`` or ``test``.
        exemplars: paths below the dataset's folder.
        exemplar_hashes: SHA-256 of their files.
        priors: keys in the library.
        prompt: of the exemplars in training.
        seed: of the customization.
        prompts: of the synthesized images.
        seeds: of their noise.
        base_images: what the generator is to make of the first prompts before it is customized.
    """

    id: str
    name: str
    split: str
    exemplars: tuple[str, ...]
    exemplar_hashes: tuple[str, ...]
    priors: tuple[str, ...]
    prompt: str
    seed: int
    prompts: tuple[Prompt, ...]
    seeds: tuple[int, ...]
    base_images: int


@dataclass(frozen=True)
class Plan:
    """All models, and what they are made with.

    Attributes:
        settings: of the build, as JSON values.
        generator: name and hash of its files.
        versions: of the libraries that decide what comes out.
        models: in order.
        told: what was left out, and why.
    """

    settings: dict[str, Any]
    generator: dict[str, str]
    versions: dict[str, str]
    models: tuple[ModelPlan, ...]
    told: tuple[str, ...]

    def dumps(self) -> str:
        """As JSON; equal plans give equal text."""
        return json.dumps({"schema": SCHEMA, **asdict(self)}, indent=1, sort_keys=True) + "\n"


def plan_dataset(
    out: Path,
    library: Library,
    lists: PromptLists,
    settings: BuildSettings,
    is_known: Callable[[str], bool],
    generator: dict[str, str],
    versions: dict[str, str],
) -> Plan:
    """Choose everything, and copy the exemplars into ``out/exemplars``.

    A subject whose exemplars cannot all be read is passed over, and told of.

    Raises:
        UsageError: nothing to choose from, or no exemplar that can be read.
    """
    subjects, told = library.subjects(settings, is_known)
    models: list[ModelPlan] = []
    splits = _splits(len(subjects), settings)
    for number, subject in enumerate(subjects):
        try:
            kept = [_keep(out, entry) for entry in subject.exemplars]
        except (ImageError, SourceError) as exc:
            told.append(f"{subject.name}: an exemplar cannot be read, left out: {exc}")
            continue
        choices = np.random.default_rng([settings.seed, number])
        spoken = _spoken(subject, settings)
        prompts = lists.choose(spoken, settings.per_model, choices)
        seeds = choices.integers(2**31, size=1 + len(prompts)).tolist()
        models.append(
            ModelPlan(
                id=f"{number:04d}",
                name=subject.name,
                split=splits[number],
                exemplars=tuple(path for path, _ in kept),
                exemplar_hashes=tuple(digest for _, digest in kept),
                priors=tuple(entry.key for entry in subject.priors),
                prompt=spoken
                if settings.kind == "object"
                else f"a picture in the style of {TOKEN}",
                seed=seeds[0],
                prompts=tuple(prompts),
                seeds=tuple(seeds[1:]),
                base_images=min(settings.base_images, settings.per_model),
            )
        )
    if not models:
        raise UsageError(f"no exemplar can be used: {told[-1]}")
    values = asdict(settings)
    values["customization"]["rate"] = settings.customization.rate
    values["splits"] = list(settings.splits)
    return Plan(values, generator, versions, tuple(models), tuple(told))


def read_plan(out: Path) -> str | None:
    """The text of the plan in a folder; None where there is none.

    Raises:
        SourceError: unreadable.
    """
    try:
        return (out / PLAN).read_text("utf-8")
    except FileNotFoundError:
        return None
    except (OSError, UnicodeDecodeError) as exc:
        raise SourceError(f"cannot read {out / PLAN}: {exc}") from exc


def _spoken(subject: Subject, settings: BuildSettings) -> str:
    return f"{TOKEN} {subject.name}" if settings.kind == "object" else TOKEN


def _splits(count: int, settings: BuildSettings) -> list[str]:
    """By model, in proportion at every length of the list (Bresenham's line)."""
    names = ("train", "val", "test")
    given = dict.fromkeys(names, 0)
    splits = []
    for position in range(1, count + 1):
        lack = {n: s * position - given[n] for n, s in zip(names, settings.splits, strict=True)}
        chosen = max(names, key=lambda name: lack[name])
        given[chosen] += 1
        splits.append(chosen)
    return splits


def _keep(out: Path, entry: Entry) -> tuple[str, str]:
    data, _ = entry.read()
    digest = hashlib.sha256(data).hexdigest()
    suffix = Path(entry.key).suffix.lower() or ".img"
    path = f"exemplars/{digest[:16]}{suffix}"
    target = out / path
    if not target.is_file() or target.read_bytes() != data:
        target.parent.mkdir(parents=True, exist_ok=True)
        temporary = target.with_name(target.name + ".part")
        temporary.write_bytes(data)
        temporary.replace(target)
    return path, digest
