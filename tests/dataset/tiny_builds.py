"""A build of a tiny dataset in one process, as several tests want it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from evaluation.dataset.build import BuildReport, Progress, build_dataset
from evaluation.dataset.endpoint import Endpoint
from evaluation.dataset.generator import Generator
from evaluation.dataset.library import Library
from evaluation.dataset.prompts import PromptLists, shipped_prompts
from evaluation.dataset.settings import BuildSettings, Customization, Sampling

__all__ = ["SETTINGS", "Build", "builder"]

SETTINGS = BuildSettings(
    models=3,
    per_model=5,
    base_images=2,
    splits=(0.4, 0.3, 0.3),
    customization=Customization(steps=2, batch_size=2, learning_rate=1e-3, prior_images=2),
    sampling=Sampling(steps=2, batch_size=4),
)

Build = Callable[..., BuildReport]


def builder(generator: Generator, images_folder: Path) -> Build:
    """`build_dataset` with what all of them have in common."""

    def built(
        out: Path,
        settings: BuildSettings = SETTINGS,
        *,
        images: Path = images_folder,
        lists: PromptLists | None = None,
        name: str = "tiny",
        progress: Progress | None = None,
        endpoint: Endpoint | None = None,
    ) -> BuildReport:
        return build_dataset(
            out,
            Library([str(images)]),
            lambda: generator,
            lists or shipped_prompts(settings.kind),
            settings,
            {"name": name, "revision": "", "sha256": ""},
            progress,
            endpoint=endpoint,
        )

    return built
