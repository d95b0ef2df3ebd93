"""The fake backbone of tests/search with a hash of its weights; pictures and a test case for it.

Run as a program it extracts slowly, so that tests can kill it:
    python extract_program.py CACHE FOLDER
"""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from PIL import Image

from evaluation import extract_run
from evaluation.extract import extract


def _load(path: Path, name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


fake = _load(Path(__file__).parents[1] / "search" / "fake_backbone.py", "fake_of_evaluation")
BACKBONE = fake.BACKBONE
DIM: int = fake.DIM


class FakeEmbedder(fake.FakeEmbedder):  # type: ignore[misc, name-defined]
    """Counts its batches; see tests/search/fake_backbone.py."""

    weights_hash = BACKBONE.weights_hash


def draw(path: Path, seed: int) -> Path:
    """A picture of coarse coloured squares."""
    path.parent.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, (4, 5, 3), dtype=np.uint8)
    Image.fromarray(coarse).resize((40, 30), Image.Resampling.NEAREST).save(path)
    return path


def pictures(folder: Path, count: int) -> list[Path]:
    return [draw(folder / f"{i:04d}.png", i) for i in range(count)]


def never() -> Any:
    """In the place of what makes an embedder, where all features are there."""
    raise AssertionError("the backbone was loaded")


def draw_case(folder: Path) -> Path:
    """A test case of two models: two exemplars and one, one generated image and three."""
    seeds = iter(range(100))

    def drawn(name: str) -> str:
        draw(folder / name, next(seeds))
        return name

    models = [
        {
            "exemplar": [drawn("real/a.png"), drawn("real/b.png")],
            "synth": {"gpt": [drawn("made/a0.png")]},
            "class_id": "a",
            "category": "object",
        },
        {
            "exemplar": [drawn("real/c.png")],
            "synth": {
                "gpt": [drawn("made/c0.png"), drawn("made/c1.png")],
                "media": [drawn("made/c2.png")],
            },
            "class_id": "c",
            "category": "object",
        },
    ]
    path = folder / "case.json"
    path.write_text(json.dumps(models), encoding="utf-8")
    return path


if __name__ == "__main__":
    cache, folder = (Path(argument) for argument in sys.argv[1:])
    extract_run.SHARD = 32
    slow = FakeEmbedder(pause_s=0.2)
    extract(sorted(folder.iterdir()), lambda: slow, BACKBONE, cache)
