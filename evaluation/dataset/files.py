"""Where the files of a dataset are."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from evaluation.dataset.plan import ModelPlan

__all__ = [
    "CARD",
    "MANIFEST",
    "PLAN",
    "QUALITY",
    "SPLITS",
    "base_paths",
    "record_path",
    "synth_paths",
    "write_text",
]

PLAN = "plan.json"
MANIFEST = "manifest.json"
QUALITY = "quality.json"
CARD = "README.md"
SPLITS = ("train", "val", "test")


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


def record_path(out: Path, number: str) -> Path:
    """The record of a finished model."""
    return out / "models" / f"{number}.json"


def write_text(path: Path, text: str) -> None:
    """Write a file, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(path.name + ".part")
    temporary.write_text(text, "utf-8")
    temporary.replace(path)
