"""Whether a dataset is whole, whether its customizations took, and the card that says so."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from folders import copy_folder, small_disk
from PIL import Image

from embed.lazy_embedder import LazyEmbedder
from embed.registry import find_model
from evaluation.dataset.build import build_dataset
from evaluation.dataset.card import write_card
from evaluation.dataset.check import Check, check_dataset, read_quality
from evaluation.dataset.generator import Generator
from evaluation.dataset.library import Library
from evaluation.dataset.prompts import shipped_prompts
from evaluation.dataset.settings import BuildSettings, Customization, Sampling
from ingest.errors import DataFolderError, SourceError

JUDGE = "efficientnet-lite0-stages-48px"
SETTINGS = BuildSettings(
    models=2,
    per_model=8,
    base_images=8,
    customization=Customization(method="full", steps=1, learning_rate=1e-9, prior_images=0),
    sampling=Sampling(steps=4, guidance=1.0),
)


def build(out: Path, generator: Generator, images: Path, settings: BuildSettings) -> Path:
    lists = shipped_prompts(settings.kind)
    named = {"name": "tiny|<b>", "revision": "", "sha256": ""}
    build_dataset(out, Library([str(images)]), lambda: generator, lists, settings, named)
    return out


@pytest.fixture(scope="module")
def untouched(
    generator: Generator, images_folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """Of models that were not customized: one step at a tiny rate."""
    return build(tmp_path_factory.mktemp("weak") / "set", generator, images_folder, SETTINGS)


@pytest.fixture
def copy(untouched: Path, tmp_path: Path) -> Path:
    """Without the outcome of a check."""
    return Path(
        shutil.copytree(untouched, tmp_path / "copy", ignore=shutil.ignore_patterns("quality.json"))
    )


def judged(out: Path, *, copy_score: float = 0.3) -> Check:
    model = find_model(JUDGE)
    return check_dataset(out, model, LazyEmbedder(model), copy_score=copy_score)


def test_a_whole_dataset_has_no_problems(untouched: Path) -> None:
    assert check_dataset(untouched) == Check(())


def test_missing_changed_and_foreign_files_are_named(copy: Path) -> None:
    image = copy / "synth" / "object" / "free" / "0000" / "00001.png"
    image.unlink()
    (copy / "models" / "0001.json").write_text("[]")
    (copy / "base" / "object" / "0000" / "other.png").write_bytes(b"x")
    (copy / "priors").mkdir()
    (copy / "priors" / "line\nbreak.png").write_bytes(b"x")
    assert sorted(check_dataset(copy).problems) == [
        "base/object/0000/other.png does not belong to the dataset",
        "models/0001.json is not the file that was written",
        "priors/line\nbreak.png does not belong to the dataset",
        "synth/object/free/0000/00001.png: No such file or directory",
    ]
    # What is damaged is not judged, and stands among the problems.
    assert judged(copy).models == ()


def test_models_that_were_not_customized_are_reported(untouched: Path) -> None:
    check = judged(untouched)
    assert [model.id for model in check.failed] == ["0000", "0001"]
    for model in check.models:
        assert model.gain_low <= model.gain <= model.gain_high
        assert model.images == 8
        assert model.copies == 0
    assert read_quality(untouched) == check
    assert check_dataset(untouched).problems == ()


def test_a_model_whose_images_are_nearer_to_the_exemplar_gains(copy: Path) -> None:
    """Images that are the exemplar under much noise; the generator's own stay as they are."""
    record = json.loads((copy / "models" / "0000.json").read_text())
    with Image.open(copy / record["exemplars"][0]) as opened:
        pixels = np.asarray(opened.convert("RGB")).astype(np.float64)
    draws = np.random.default_rng(0)
    for path in record["prompts"]:
        noisy = 0.8 * pixels + 0.2 * draws.integers(256, size=pixels.shape)
        Image.fromarray(noisy.astype(np.uint8)).save(copy / path)
    near, other = judged(copy).models
    assert near.gain == pytest.approx(near.similarity - near.base, abs=1e-6)
    assert near.gain_low > 0
    assert not near.failed
    assert other.failed


def test_copies_are_counted_from_the_given_score_on(untouched: Path, copy: Path) -> None:
    for model in judged(copy, copy_score=0.0).models:
        assert model.copies == model.images
    assert len(judged(copy, copy_score=0.0).copying) == 2


def test_the_gain_is_of_pairs(copy: Path) -> None:
    """An image that is its own twin gains nothing, whatever the others are."""
    record = json.loads((copy / "models" / "0000.json").read_text())
    for base, made in record["base_of"].items():
        shutil.copy(copy / made, copy / base)
    model = judged(copy).models[0]
    assert model.gain == pytest.approx(0, abs=1e-6)
    assert model.failed


def test_what_is_no_dataset(copy: Path, tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"holds no dataset of `attrib dataset build`$"):
        check_dataset(tmp_path)
    (copy / "manifest.json").unlink()
    with pytest.raises(SourceError, match="it is not finished: build goes on with it"):
        check_dataset(copy)
    with pytest.raises(SourceError, match="holds no finished dataset"):
        write_card(copy)
    for damaged in ("[]", "{", '{"files": {"a": 1}}', '{"files": 3}'):
        (copy / "manifest.json").write_text(damaged)
        with pytest.raises(SourceError, match=r"manifest\.json is damaged: "):
            check_dataset(copy)
        with pytest.raises(SourceError, match="is damaged: "):
            write_card(copy)


def test_the_card_shows_what_was_made(copy: Path) -> None:
    text = write_card(copy).read_text()
    assert "Not looked at yet: `attrib dataset check` does." in text
    judged(copy)
    text = write_card(copy).read_text()
    assert "2 customized models and 16 images" in text
    assert "by construction" not in text
    assert "That this took is **not sure** of 2 of the 2 models" in text
    assert "not whole" not in text
    assert f"Similarities are of {JUDGE}: " in text
    assert "- Not surely customized (the interval of the gain is not above 0): 2 of 2 " in text
    assert text.count(" not sure | ") == 2
    for number in ("0000", "0001"):
        assert f"](sheets/{number}.png)" in text
        with Image.open(copy / "sheets" / f"{number}.png") as sheet:
            assert sheet.size == (9 * 96 + 24, 2 * 96)
            pixels = np.asarray(sheet.convert("L"))
        assert pixels[:96, :96].std() > 10  # the exemplar
        assert (pixels[96:, :96] == 255).all()
        assert (pixels[:, 96:120] == 255).all()  # the gap
        # Twins below each other: these models are hardly tuned, and all but the same.
        made, base = pixels[:96, 120:].astype(int), pixels[96:, 120:].astype(int)
        assert np.abs(made - base).mean() < 0.1 * np.abs(made - np.roll(base, 96, axis=1)).mean()
        assert check_dataset(copy).problems == ()


def test_the_card_says_what_is_not_whole(copy: Path) -> None:
    (copy / "synth" / "<b>.png").write_bytes(b"x")
    judged(copy)
    text = write_card(copy).read_text()
    assert "**The dataset is not whole:**\n\n- synth/\\<b\\>.png does not belong to" in text


def test_the_card_names_models_that_fell_apart(copy: Path) -> None:
    """Images of noise alone are farther from the exemplar than the generator's own."""
    record = json.loads((copy / "models" / "0001.json").read_text())
    with Image.open(copy / record["exemplars"][0]) as opened:
        exemplar = opened.convert("RGB").resize((16, 16))
    for base, made in record["base_of"].items():
        exemplar.save(copy / base)
        Image.new("RGB", (16, 16), "black").save(copy / made)
    check = judged(copy)
    assert [model.fell_apart for model in check.models] == [False, True]
    text = write_card(copy).read_text()
    assert "- Of these fell apart (loss rose, or images are farther " in text
    assert text.count(" fell apart | ") == 1
    assert text.count(" not sure | ") == 1


def test_a_card_that_does_not_fit_on_the_disk(copy: Path, tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", "4m") as disk:
        full = copy_folder(copy, disk / "set")
        (disk / "ballast").write_bytes(bytes(shutil.disk_usage(disk).free))
        with pytest.raises(DataFolderError, match=r"^cannot write .*: No space left on device$"):
            write_card(full)


def test_hostile_names_do_not_get_into_the_card(copy: Path) -> None:
    path = copy / "models" / "0000.json"
    record = json.loads(path.read_text())
    record["name"] = "a](http://x) | <script>\n# head\x1b[1m `www.x.org` ![i](j) ~~k~~"
    path.write_text(json.dumps(record))
    text = write_card(copy).read_text()
    shown = r"a\](http\://x) \| \<script\> \# head \[1m \`www\.x.org\` \!\[i\](j) \~\~k\~\~"
    assert f"\n0000\\: {shown}\n" in text
    assert f"![0000\\: {shown}](sheets/0000.png)" in text
    assert "# Object models of tiny\\|\\<b\\>" in text
    assert "<script" not in text.replace(r"\<", "")
    assert "\x1b" not in text
