"""The plan of a dataset: which models, exemplars, prompts and seeds; written before all work."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np

from evaluation.dataset.captions import Captions
from evaluation.dataset.files import PLAN
from evaluation.dataset.generator import TOKEN
from evaluation.dataset.library import Entry, Library, Subject
from evaluation.dataset.prompts import Prompt, PromptLists, without_token
from evaluation.dataset.settings import BuildSettings, recorded
from ingest.errors import ImageError, SourceError, UsageError
from ingest.item import printable

__all__ = ["ModelPlan", "Plan", "class_prompt", "loads_plan", "plan_dataset", "read_plan"]

SCHEMA = "attrib-dataset/1"
_LEAST = 3
"""Exemplars of a style, where so many are wanted."""


@dataclass(frozen=True)
class ModelPlan:
    """One customized model.

    Attributes:
        id: number in the dataset, as text of fixed width.
        name: class word, or creator.
        split: ``train``, ``val`` or ``test``.
        exemplars: paths below the dataset's folder.
        exemplar_keys: in the library.
        exemplar_hashes: SHA-256 of their files.
        priors: keys in the library.
        prior_hashes: SHA-256 of their files; '' for one that cannot be read, which is passed over.
        prior_prompts: what each of them shows.
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
    exemplar_keys: tuple[str, ...]
    exemplar_hashes: tuple[str, ...]
    priors: tuple[str, ...]
    prior_hashes: tuple[str, ...]
    prior_prompts: tuple[str, ...]
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
        generator: name, hash of its files or commit, kind of device, and threads on a CPU.
        versions: of the libraries that decide what comes out.
        models: in order.
        told: what was left out, and why.
        captions: what an endpoint wrote, and which; None where none was asked.
    """

    settings: dict[str, Any]
    generator: dict[str, str]
    versions: dict[str, str]
    models: tuple[ModelPlan, ...]
    told: tuple[str, ...]
    captions: dict[str, Any] | None = None

    def dumps(self) -> str:
        """As JSON; equal plans give equal text."""
        values = {"schema": SCHEMA, **asdict(self)}
        if self.captions is None:
            del values["captions"]
        return json.dumps(values, indent=1, sort_keys=True) + "\n"


def plan_dataset(
    library: Library,
    lists: PromptLists,
    settings: BuildSettings,
    is_known: Callable[[str], bool],
    generator: dict[str, str],
    versions: dict[str, str],
    captions: Captions | None = None,
) -> Plan:
    """Choose everything; nothing is written.

    Exemplars that cannot be read are passed over and told of, and so are those that another model
    has already: one image in two splits would make the test worthless. The next one takes their
    place.

    Args:
        library: exemplars and prior images.
        lists: of prompts.
        settings: of all.
        is_known: whether the generator's tokenizer can say a word.
        generator: as of `evaluation.dataset.identity.identity`.
        versions: of the libraries that decide what comes out.
        captions: that take the place of the free prompts in `lists`, where there are enough.

    Raises:
        UsageError: nothing to choose from, or no exemplar that can be read.
        RunError: the endpoint of `captions` refuses.
    """
    subjects, told = library.subjects(settings, is_known)
    models: list[ModelPlan] = []
    splits = _splits(settings)
    taken: set[str] = set()
    hashes: dict[str, str] = {}
    wanted = 1 if settings.kind == "object" else settings.exemplars_per_style
    for subject in subjects:
        number = len(models)
        if number == settings.models:
            break
        kept = _readable(subject, wanted, taken, told)
        if len(kept) < min(wanted, _LEAST):
            if settings.kind == "style":
                told.append(f"{printable(subject.name)}: too few exemplars are left, left out")
            continue
        taken |= {digest for _, _, digest in kept}
        choices = np.random.default_rng([settings.seed, number])
        spoken = _spoken(subject, settings)
        written = captions.of(subject.name) if captions is not None else ()
        chosen = replace(lists, free=written) if written else lists
        prompts = chosen.choose(spoken, settings.per_model, choices)
        seeds = choices.integers(2**31, size=1 + len(prompts)).tolist()
        models.append(
            ModelPlan(
                id=f"{number:04d}",
                name=subject.name,
                split=next(splits),
                exemplars=tuple(path for _, path, _ in kept),
                exemplar_keys=tuple(key for key, _, _ in kept),
                exemplar_hashes=tuple(digest for _, _, digest in kept),
                priors=tuple(entry.key for entry in subject.priors),
                prior_hashes=tuple(_hash(entry, hashes) for entry in subject.priors),
                prior_prompts=tuple(
                    without_token(entry.caption) or class_prompt(subject.name, settings)
                    for entry in subject.priors
                ),
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
    values = recorded(settings, library.class_field)
    if captions is None:
        return Plan(values, generator, versions, tuple(models), tuple(told))
    told += captions.told()
    return Plan(values, generator, versions, tuple(models), tuple(told), captions.values())


def loads_plan(text: str) -> Plan:
    """The inverse of `Plan.dumps`.

    Raises:
        ValueError: it is none.
    """
    try:
        values = json.loads(text)
        if values.pop("schema") != SCHEMA:
            raise ValueError("of another attrib")
        models = [_model_plan(model) for model in values["models"]]
        return Plan(**{**values, "models": tuple(models), "told": tuple(values["told"])})
    except (TypeError, KeyError, AttributeError) as exc:
        raise ValueError(f"no plan: {exc}") from exc


def _model_plan(values: dict[str, Any]) -> ModelPlan:
    frozen: dict[str, Any] = {
        name: tuple(value) if isinstance(value, list) else value for name, value in values.items()
    }
    frozen["prompts"] = tuple(Prompt(**prompt) for prompt in values["prompts"])
    return ModelPlan(**frozen)


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


def class_prompt(name: str, settings: BuildSettings) -> str:
    """What prior images without a caption show.

    Args:
        name: of a model.
        settings: with the kind of the dataset.
    """
    return name if settings.kind == "object" else "a picture"


def _hash(entry: Entry, known: dict[str, str]) -> str:
    """SHA-256 of an image's file, read once for all models; '' where it cannot be read."""
    if entry.key not in known:
        try:
            known[entry.key] = hashlib.sha256(entry.data()).hexdigest()
        except (ImageError, SourceError):
            known[entry.key] = ""
    return known[entry.key]


def _splits(settings: BuildSettings) -> Iterator[str]:
    """By model, in proportion after every one of them (Bresenham's line)."""
    names = ("train", "val", "test")
    given = dict.fromkeys(names, 0)
    for position in count(1):
        lack = {n: s * position - given[n] for n, s in zip(names, settings.splits, strict=True)}
        chosen = max(names, key=lambda name: lack[name])
        given[chosen] += 1
        yield chosen


def _readable(
    subject: Subject, wanted: int, taken: set[str], told: list[str]
) -> list[tuple[str, str, str]]:
    """Key, path below the dataset and SHA-256 of the first `wanted` exemplars that can be used."""
    kept: list[tuple[str, str, str]] = []
    for entry in subject.exemplars:
        if len(kept) == wanted:
            break
        try:
            data, _ = entry.read()
        except (ImageError, SourceError) as exc:
            told.append(f"{printable(entry.key)} cannot be read, left out: {exc}")
            continue
        digest = hashlib.sha256(data).hexdigest()
        if digest in taken or any(digest == other for _, _, other in kept):
            told.append(f"{printable(entry.key)} is a copy of another exemplar, left out")
            continue
        suffix = Path(entry.key).suffix.lower()
        suffix = suffix if re.fullmatch(r"\.[a-z0-9]{1,5}", suffix) else ".img"
        kept.append((entry.key, f"exemplars/{digest[:16]}{suffix}", digest))
    return kept
