"""Which images become exemplars and prior images."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from evaluation.dataset.library import Library
from evaluation.dataset.plan import Plan, plan_dataset
from evaluation.dataset.prompts import shipped_prompts
from evaluation.dataset.settings import BuildSettings, Customization
from ingest.errors import SourceError, UsageError


def plan(library: Library, settings: BuildSettings, *, unknown: str = "") -> Plan:
    lists = shipped_prompts(settings.kind)
    return plan_dataset(library, lists, settings, lambda word: word != unknown, {}, {})


def paint(path: Path, shade: int, **sidecar: object) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (24, 20), (shade, 255 - shade, 9)).save(path)
    if sidecar:
        path.with_suffix(".json").write_text(json.dumps(sidecar))
    return path


def words(library: Library) -> dict[str, str]:
    return {entry.key: entry.word for entry in library.entries}


def test_class_words_come_from_fields_or_else_from_folders(tmp_path: Path) -> None:
    paint(tmp_path / "in" / "Farm_Animals" / "a.png", 1)
    paint(tmp_path / "in" / "x" / "b.png", 2, **{"class": "birds/Snowy-Owl_3"})
    paint(tmp_path / "in" / "x" / "c.png", 3, label="Red  Boat", genus="fish")
    paint(tmp_path / "in" / "d.png", 4)
    found = words(Library([str(tmp_path / "in")]))
    assert found == {
        "Farm_Animals/a.png": "farm animals",
        "x/b.png": "snowy-owl 3",
        "x/c.png": "red boat",
        "d.png": "",
    }
    named = words(Library([str(tmp_path / "in")], class_field="genus"))
    assert named["x/c.png"] == "fish"
    assert named["Farm_Animals/a.png"] == ""


def test_class_words_and_creators_come_from_columns(tmp_path: Path) -> None:
    paths = [str(paint(tmp_path / f"{n}.png", n)) for n in range(3)]
    table = tmp_path / "list.parquet"
    columns = {"path": paths, "category": ["cat", "dog", None], "creator": ["Ann", None, "Bob"]}
    pq.write_table(pa.table(columns), table)
    entries = Library([str(table)]).entries
    assert [entry.word for entry in entries][:2] == ["cat", "dog"]
    assert [entry.creator for entry in entries] == ["Ann", "", "Bob"]


def test_more_models_begin_with_the_same_ones_and_another_seed_with_others(
    images_folder: Path,
) -> None:
    library = Library([str(images_folder)])
    few = plan(library, BuildSettings(models=3, seed=4))
    many = plan(library, BuildSettings(models=9, seed=4))
    assert few.models == many.models[:3]
    assert len({model.exemplars for model in many.models}) == 9
    other = plan(library, BuildSettings(models=3, seed=5))
    assert [m.exemplar_keys for m in other.models] != [m.exemplar_keys for m in few.models]
    assert [model.id for model in few.models] == ["0000", "0001", "0002"]


def test_prior_images_are_of_the_class_and_never_the_exemplar(images_folder: Path) -> None:
    library = Library([str(images_folder)])
    for model in plan(library, BuildSettings(models=9)).models:
        assert len(model.priors) == 2
        assert all(key.startswith(f"{model.name}/") for key in model.priors)
        assert not set(model.priors) & set(model.exemplar_keys)
    one = BuildSettings(models=9, customization=Customization(prior_images=1))
    assert all(len(model.priors) == 1 for model in plan(library, one).models)


def test_styles_are_creators(images_folder: Path) -> None:
    library = Library([str(images_folder)])
    settings = BuildSettings(kind="style", models=9, exemplars_per_style=3)
    models = plan(library, settings).models
    assert sorted(model.name for model in models) == ["Ann", "Bob"]
    for model in models:
        own = {entry.key for entry in library.entries if entry.creator == model.name}
        assert len(model.exemplar_keys) == 3
        assert set(model.exemplar_keys) <= own
        assert not set(model.priors) & own
        assert model.prompt == "a picture in the style of <new1>"
        assert Counter(prompt.kind for prompt in model.prompts) == {"free": 20, "object": 20}


def test_splits_are_in_proportion_at_any_length(tmp_path: Path) -> None:
    for number in range(40):
        paint(tmp_path / "cat" / f"{number}.png", number)
    splits = (0.6, 0.15, 0.25)
    models = plan(Library([str(tmp_path)]), BuildSettings(models=40, splits=splits)).models
    for length in range(1, 41):
        given = Counter(model.split for model in models[:length])
        for name, share in zip(("train", "val", "test"), splits, strict=True):
            assert abs(given[name] - share * length) < 1
    assert Counter(model.split for model in models) == {"train": 24, "val": 6, "test": 10}


def test_unreadable_and_copied_exemplars_give_way_to_others(tmp_path: Path) -> None:
    for number in range(3):
        paint(tmp_path / "cat" / f"{number}.png", number)
    (tmp_path / "cat" / "copy.png").write_bytes((tmp_path / "cat" / "0.png").read_bytes())
    (tmp_path / "cat" / "cut.png").write_bytes((tmp_path / "cat" / "1.png").read_bytes()[:40])
    (tmp_path / "cat" / "none.png").write_bytes(b"")
    made = plan(Library([str(tmp_path)]), BuildSettings(models=3))
    assert len({model.exemplar_hashes for model in made.models}) == 3
    all_of_it = plan(Library([str(tmp_path)]), BuildSettings(models=9))
    assert all_of_it.models[0].exemplars == made.models[0].exemplars
    assert len(all_of_it.models) == 3
    told = sorted(all_of_it.told)
    assert len(told) == 3
    assert told[1].startswith("cat/cut.png cannot be read, left out: ")
    assert told[2] == "cat/none.png cannot be read, left out: empty file"
    assert told[0] in {
        f"cat/{name}.png is a copy of another exemplar, left out" for name in ("0", "copy")
    }


def test_a_style_with_unreadable_images_uses_its_others(tmp_path: Path) -> None:
    for number in range(5):
        paint(tmp_path / f"{number}.png", number, creator="Ann")
    (tmp_path / "3.png").write_bytes(b"no image")
    settings = BuildSettings(kind="style", exemplars_per_style=4)
    made = plan(Library([str(tmp_path)]), settings)
    assert sorted(made.models[0].exemplar_keys) == ["0.png", "1.png", "2.png", "4.png"]
    assert len(made.told) <= 1


def test_words_that_the_tokenizer_splits_away_are_left_out(images_folder: Path) -> None:
    made = plan(Library([str(images_folder)]), BuildSettings(models=9), unknown="dog")
    assert {model.name for model in made.models} == {"cat", "boat"}
    assert made.told == ("class words that the tokenizer splits away, left out: dog",)


def test_nothing_to_choose_from(tmp_path: Path) -> None:
    paint(tmp_path / "0.png", 0)
    library = Library([str(tmp_path)])
    with pytest.raises(UsageError) as caught:
        plan(library, BuildSettings())
    assert str(caught.value) == (
        "no exemplar can be chosen: images without a class word, left out: 1 (first: 0.png)"
    )
    with pytest.raises(UsageError, match=r"^no exemplar can be chosen: no image has a creator$"):
        plan(library, BuildSettings(kind="style"))
    paint(tmp_path / "0.png", 0, creator="Ann")
    with pytest.raises(UsageError, match=r"chosen: creators of fewer than 3 images, left out: 1$"):
        plan(Library([str(tmp_path)]), BuildSettings(kind="style"))
    broken = tmp_path / "cat" / "0.png"
    broken.parent.mkdir()
    broken.write_bytes(b"no image")
    with pytest.raises(UsageError, match=r"^no exemplar can be used: cat/0.png cannot be read"):
        plan(Library([str(broken.parent.parent)]), BuildSettings())


def test_sources_that_cannot_be_used(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="no such file or folder"):
        Library([str(tmp_path / "none")])
    (tmp_path / "a.tar").write_bytes(b"\0" * 1024)
    with pytest.raises(UsageError, match="exemplars are read one by one; unpack it into a folder"):
        Library([str(tmp_path / "a.tar")])
    paint(tmp_path / "x" / "0.png", 0)
    paint(tmp_path / "y" / "0.png", 1)
    with pytest.raises(SourceError, match="images of the same key"):
        Library([str(tmp_path / "x"), str(tmp_path / "y")])


def test_settings_that_make_no_dataset() -> None:
    good = BuildSettings()
    for wrong, said in (
        ({"kind": "video"}, "a dataset is of objects or of styles, not of 'video'"),
        ({"models": 0}, "at least one model, with one exemplar, is needed"),
        ({"per_model": 1}, "at least 2 images a model are needed, not 1"),
        ({"splits": (0.5, 0.1, 0.1)}, "splits are shares that sum to 1, not (0.5, 0.1, 0.1)"),
    ):
        with pytest.raises(UsageError) as caught:
            replace(good, **wrong)
        assert str(caught.value) == said
