"""Builds a small dataset in a process of its own, to be killed: PIPELINE IMAGES OUT."""

from __future__ import annotations

import sys
from pathlib import Path

import torch

from evaluation.dataset.build import build_dataset
from evaluation.dataset.generator import load_generator
from evaluation.dataset.library import Library
from evaluation.dataset.prompts import shipped_prompts
from evaluation.dataset.settings import BuildSettings, Customization, Sampling


def main(pipeline: str, images: str, out: str) -> None:
    torch.set_num_threads(1)
    settings = BuildSettings(
        models=4,
        per_model=4,
        base_images=2,
        customization=Customization(steps=2, batch_size=2, learning_rate=1e-3, prior_images=2),
        sampling=Sampling(steps=2, batch_size=4),
    )
    build_dataset(
        Path(out),
        Library([images]),
        lambda: load_generator(pipeline, device="cpu"),
        shipped_prompts("object"),
        settings,
        {"name": "tiny", "revision": "", "sha256": ""},
    )


if __name__ == "__main__":
    main(*sys.argv[1:])
