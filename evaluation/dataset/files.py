"""Where the files of a dataset are."""

from __future__ import annotations

import re
from collections.abc import Container
from pathlib import Path
from typing import TYPE_CHECKING

from ingest.item import printable

if TYPE_CHECKING:
    from evaluation.dataset.plan import ModelPlan

__all__ = [
    "CARD",
    "FOLDERS",
    "LOCK",
    "MANIFEST",
    "OWNER",
    "PLAN",
    "QUALITY",
    "RECORD",
    "SPLITS",
    "WORK",
    "base_paths",
    "children",
    "inside",
    "prior_paths",
    "record_path",
    "synth_paths",
    "write_bytes",
    "write_text",
]

LOCK = ".lock"
WORK = ".work"
OWNER = ".work/owner"
"""Which build workers make models for."""
PLAN = "plan.json"
MANIFEST = "manifest.json"
QUALITY = "quality.json"
CARD = "README.md"
SPLITS = ("train", "val", "test")
RECORD = re.compile(r"models/[0-9]{1,9}\.json")
"""What records are called; anything else in their place is not one."""
FOLDERS = ("exemplars", "models", "synth", "base", "priors")
"""Whose every file is in the manifest."""


def synth_paths(model: ModelPlan, kind: str) -> dict[str, list[str]]:
    """A model's images, below the dataset's folder, by kind of prompt."""
    places: dict[str, list[str]] = {}
    for prompt in model.prompts:
        some = places.setdefault(prompt.kind, [])
        some.append(f"synth/{kind}/{prompt.kind}/{model.id}/{len(some):05d}.png")
    return places


def base_paths(model: ModelPlan, kind: str) -> list[str]:
    """What the generator made of a model's first prompts before it was customized."""
    return [f"base/{kind}/{model.id}/{number:05d}.png" for number in range(model.base_images)]


def prior_paths(model: ModelPlan, kind: str, count: int) -> list[str]:
    """Prior images that the generator itself made, where the library has none."""
    return [f"priors/{kind}/{model.id}/{number:05d}.png" for number in range(count)]


def record_path(out: Path, number: str) -> Path:
    """The record of a finished model."""
    return out / "models" / f"{number}.json"


def children(folder: Path) -> list[Path]:
    """What is in a folder; nothing where there is none."""
    return list(folder.iterdir()) if folder.is_dir() else []


def inside(out: Path, name: object, listed: Container[str]) -> Path:
    """A file of a dataset that its records name; they may be anyone's, and name anything.

    Raises:
        ValueError: it is not in the list of the dataset's files, or not below its folder.
    """
    shown = printable(str(name))
    if not isinstance(name, str) or name not in listed:
        raise ValueError(f"{shown} is not among the files of {MANIFEST}")
    path = out / name
    if Path(name).is_absolute() or not path.resolve().is_relative_to(out.resolve()):
        raise ValueError(f"{shown} is outside of the dataset's folder")
    return path


def write_text(path: Path, text: str) -> None:
    """Write a file, whole or not at all; one that holds the same text is left alone."""
    data = text.encode()
    if not path.is_file() or path.read_bytes() != data:
        write_bytes(path, data)


def write_bytes(path: Path, data: bytes) -> None:
    """Write a file, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(path.name + ".part")
    temporary.unlink(missing_ok=True)
    with temporary.open("xb") as file:  # a link of that name, which may lead anywhere, is not taken
        file.write(data)
    temporary.replace(path)
