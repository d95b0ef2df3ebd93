"""What a build tells: models and prompts that are not there, and what it mends on resuming."""

from __future__ import annotations

import json
import logging
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tiny_builds import SETTINGS, Build

from evaluation.dataset.card import write_card
from evaluation.dataset.check import ModelQuality, _rose, check_dataset
from evaluation.dataset.generator import TOKEN, Generator
from evaluation.dataset.library import Library
from evaluation.dataset.prompts import shipped_prompts
from evaluation.dataset.reading import reads_template
from ingest.errors import UsageError


@pytest.fixture(scope="module")
def whole(build: Build, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("whole") / "set"
    build(out)
    return out


@pytest.fixture
def dataset(whole: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(whole, tmp_path / "set"))


def contents(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


def test_fewer_models_and_empty_splits_are_told_of(build: Build, tmp_path: Path) -> None:
    images = tmp_path / "images" / "cat"
    images.mkdir(parents=True)
    Image.effect_noise((32, 32), 80).convert("RGB").save(images / "0.png")
    settings = replace(SETTINGS, models=10, splits=(0.6, 0.15, 0.25))
    report = build(tmp_path / "set", settings, images=images.parent)
    said = [
        "10 models were asked for, 1 can be made: no other image can be an exemplar",
        "no model is in val: 0.15 of 1 is less than one; for object_val.json take more --models, "
        "or other --splits",
        "no model is in test: 0.25 of 1 is less than one; for object_test.json take more "
        "--models, or other --splits",
    ]
    assert list(report.told[-3:]) == said
    assert json.loads((tmp_path / "set" / "manifest.json").read_text())["left_out"][-3:] == said
    assert "## What is not in it\n" in write_card(tmp_path / "set").read_text()
    # As many as were asked for, in each split that has a share: nothing to be told.
    settings = replace(SETTINGS, models=1, splits=(1.0, 0.0, 0.0))
    report = build(tmp_path / "one", settings, images=images.parent)
    assert not any("model" in line for line in report.told)


def test_prompts_that_are_not_read_are_left_out_and_told_of(
    build: Build, generator: Generator, whole: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The tokenizer reads 16 tokens, and falls into letters."""
    ours = shipped_prompts("object")
    unread = [
        text for text in (*ours.free, *ours.procedural) if not reads_template(generator, text)
    ]
    plan = json.loads((whole / "plan.json").read_text())
    prompts = [prompt["text"] for model in plan["models"] for prompt in model["prompts"]]
    cut = [text for text in prompts if len(generator.text[0][0](text).input_ids) > 16]
    assert unread
    assert cut
    assert plan["told"] == [
        f"prompts of ours, left out: {len(unread)} of 80; tiny does not read as far as {TOKEN}",
        f"{len(cut)} of 15 prompts are longer than tiny reads, their ends are cut off (first: "
        f"{cut[0]!r})",
    ]
    assert all(generator.reads_token(text) for text in prompts)


def test_libraries_do_not_complain_of_every_prompt(
    generator: Generator, capfd: pytest.CaptureFixture[str]
) -> None:
    from evaluation.dataset.settings import Sampling
    from evaluation.dataset.synthesize import synthesized

    generator.reset_token()
    list(synthesized(generator, ["cat " * 40], [1], Sampling(steps=1, guidance=1.0)))
    assert not generator.reads_all("cat " * 40)
    assert generator.reads_all("cat")
    heard = capfd.readouterr()
    assert "truncated" not in heard.err + heard.out
    assert logging.getLogger("diffusers").getEffectiveLevel() == logging.ERROR


def test_a_generator_that_reads_none_of_our_prompts(build: Build, tmp_path: Path) -> None:
    """Styles: "in the style of" comes first."""
    with pytest.raises(UsageError) as caught:
        build(tmp_path / "set", replace(SETTINGS, kind="style", models=2))
    assert str(caught.value) == (
        f"tiny does not read as far as {TOKEN} in any of our prompts; give short ones with "
        "--prompts"
    )


def test_class_words_that_are_left_out_are_counted(tmp_path: Path) -> None:
    for number in range(11):
        place = tmp_path / f"word{number:02d}"
        place.mkdir()
        for image in range(2):
            pixels = np.full((8, 8, 3), 9 * number + image, np.uint8)
            Image.fromarray(pixels).save(place / f"{image}.png")
    library = Library([str(tmp_path)])
    _, told = library.subjects(SETTINGS, lambda word: word == "word10")
    assert told == [
        "class words that the tokenizer splits away, left out: word00, word01, word02, word03, "
        "word04, word05, word06, word07 and 2 more (20 images in all)"
    ]


@pytest.mark.parametrize("way", ["another image", "junk", "record", "prompts", "seed"])
def test_a_model_that_is_not_as_it_was_made_is_made_again(
    build: Build, whole: Path, dataset: Path, way: str
) -> None:
    image = dataset / "synth" / "object" / "free" / "0001" / "00000.png"
    record = dataset / "models" / "0001.json"
    values = json.loads(record.read_text())
    if way == "another image":
        shutil.copy(image.with_name("00001.png"), image)
    elif way == "junk":
        image.write_bytes(b"junk")
    elif way == "record":
        record.write_text(json.dumps({**values, "moved": 0.5}))
    else:
        (dataset / "manifest.json").unlink()  # of a build that was not finished yet
        other = dict.fromkeys(values["prompts"], "<new1>") if way == "prompts" else 3
        record.write_text(json.dumps({**values, way: other}))
    assert build(dataset).made == 1
    assert contents(dataset) == contents(whole)
    assert check_dataset(dataset).problems == ()


def quality(**values: object) -> ModelQuality:
    plain: dict[str, object] = {
        "id": "0", "name": "cat", "split": "train", "images": 8, "similarity": 0.5, "base": 0.5,
        "gain": 0.0, "gain_low": -0.1, "gain_high": 0.1, "failed": True, "copies": 0,
        "moved": 1.0, "loss_rose": False,
    }  # fmt: skip
    return ModelQuality(**{**plain, **values})  # type: ignore[arg-type]


def test_a_model_that_fell_apart_is_not_one_that_learned_too_little() -> None:
    assert not quality().fell_apart
    assert quality(loss_rose=True).fell_apart
    assert quality(gain=-0.1, gain_high=-0.01).fell_apart
    assert not quality(loss_rose=True, failed=False).fell_apart
    calm = [0.02, 0.2, 0.1, 0.3] * 10
    assert not _rose(calm)
    assert not _rose([0.05, 0.3])  # two steps say nothing
    assert _rose([*calm, 28.4, 0.2])
    assert _rose([0.1] * 20 + [0.4] * 20)
    assert not _rose([0.4] * 20 + [0.1] * 20)
    assert not _rose([])
