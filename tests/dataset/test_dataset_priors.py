"""Prior images: those of the library, or else the generator's own."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tiny_builds import SETTINGS, Build

import evaluation.dataset.make as making
from evaluation.dataset.customize import Prior, customized


def alone(folder: Path, caption: str = "") -> Path:
    """A library of one image: it has no prior images."""
    (folder / "cat").mkdir(parents=True)
    pixels = np.random.default_rng(1).integers(256, size=(20, 20, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(folder / "cat" / "a.png")
    return folder


def test_prior_images_that_the_library_lacks_the_generator_makes(
    build: Build, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[list[Prior]] = []
    real = customized

    def watched(*args: object, **named: object) -> object:
        seen.append(list(args[3]))  # type: ignore[call-overload]
        return real(*args, **named)  # type: ignore[arg-type]

    monkeypatch.setattr(making, "customized", watched)
    images = alone(tmp_path / "library")
    # A copy of the exemplar, and what is no image, are no prior images.
    (images / "cat" / "b.png").write_bytes((images / "cat" / "a.png").read_bytes())
    (images / "cat" / "c.png").write_bytes(b"no image")
    build(tmp_path / "set", replace(SETTINGS, models=1), images=images)
    record = json.loads((tmp_path / "set" / "models" / "0000.json").read_text())
    assert record["prior_images"] == {"real": 0, "synthesized": 2}
    assert len(record["prior_losses"]) == 2
    paths = [f"priors/object/0000/{number:05d}.png" for number in range(2)]
    assert {name for name in record["images"] if name.startswith("priors/")} == set(paths)
    for path, prior in zip(paths, seen[0], strict=True):
        assert prior.prompt == "cat"
        with Image.open(tmp_path / "set" / path) as image:
            assert np.array_equal(np.asarray(image), np.asarray(prior.image))


@dataclass
class Count:
    """Progress that counts."""

    pending: int = -1
    done: int = 0

    def start(self, pending: int | None) -> None:
        assert pending is not None
        self.pending = pending

    def advance(self, images: int) -> None:
        self.done += images


def test_progress_counts_the_prior_images_that_the_generator_makes(
    build: Build, tmp_path: Path
) -> None:
    one = replace(SETTINGS, models=1)
    made = Count()
    build(tmp_path / "alone", one, images=alone(tmp_path / "library"), progress=made)
    assert made.pending == made.done == 5 + 2 + 2
    # A prior image that cannot be read is none.
    (tmp_path / "library" / "cat" / "b.png").write_bytes(b"no image")
    damaged = Count()
    build(tmp_path / "damaged", one, images=tmp_path / "library", progress=damaged)
    assert damaged.pending == damaged.done == 5 + 2 + 2
    real = Count()
    build(tmp_path / "real", one, progress=real)
    assert real.pending == real.done == 5 + 2


def test_without_prior_images_none_are_made(build: Build, tmp_path: Path) -> None:
    none = replace(SETTINGS.customization, prior_images=0)
    settings = replace(SETTINGS, models=1, customization=none)
    build(tmp_path / "set", settings, images=alone(tmp_path / "library"))
    record = json.loads((tmp_path / "set" / "models" / "0000.json").read_text())
    assert record["prior_losses"] == []
    assert not (tmp_path / "set" / "priors").exists()


def test_prior_images_of_the_library_are_used(
    build: Build, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, images_folder: Path
) -> None:
    seen: list[list[Prior]] = []
    real = customized

    def watched(*args: object, **named: object) -> object:
        seen.append(list(args[3]))  # type: ignore[call-overload]
        return real(*args, **named)  # type: ignore[arg-type]

    monkeypatch.setattr(making, "customized", watched)
    build(tmp_path / "set", replace(SETTINGS, models=1))
    record = json.loads((tmp_path / "set" / "models" / "0000.json").read_text())
    assert [prior.prompt for prior in seen[0]] == [f"red {record['name']}"] * 2
    for key, prior in zip(record["priors"], seen[0], strict=True):
        with Image.open(images_folder / key) as image:
            assert np.array_equal(np.asarray(image), np.asarray(prior.image))


def test_a_caption_cannot_teach_the_new_word(
    build: Build, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    images = alone(tmp_path / "library")
    Image.new("RGB", (20, 20), "blue").save(images / "cat" / "b.png")
    for name in "ab":
        (images / "cat" / f"{name}.json").write_text('{"caption": "a <new1> cat"}')
    seen: list[str] = []
    real = customized

    def watched(*args: object, **named: object) -> object:
        seen.extend(prior.prompt for prior in args[3])  # type: ignore[attr-defined]
        return real(*args, **named)  # type: ignore[arg-type]

    monkeypatch.setattr(making, "customized", watched)
    build(tmp_path / "set", replace(SETTINGS, models=1), images=images)
    assert seen == ["a cat"]
