"""Datasets that others made: what their records name stays within the folder."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from tiny_builds import Build

from embed.lazy_embedder import LazyEmbedder
from embed.registry import find_model
from evaluation.dataset.card import write_card
from evaluation.dataset.check import Check, check_dataset
from ingest.errors import DataFolderError, SourceError

JUDGE = "efficientnet-lite0-stages-48px"


@pytest.fixture(scope="module")
def made(build: Build, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("made") / "set"
    build(out)
    return out


@pytest.fixture
def foreign(made: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(made, tmp_path / "outer" / "set"))


def judged(out: Path) -> Check:
    model = find_model(JUDGE)
    return check_dataset(out, model, LazyEmbedder(model))


def alter(out: Path, **values: object) -> None:
    """Change the first record, and the manifest with it: whoever makes a set makes both."""
    path = out / "models" / "0000.json"
    record: dict[str, Any] = json.loads(path.read_text())
    path.write_text(json.dumps({**record, **values}))
    list_file(out, "models/0000.json", path)


def list_file(out: Path, name: str, path: Path) -> None:
    manifest = json.loads((out / "manifest.json").read_text())
    manifest["files"][name] = hashlib.sha256(path.read_bytes()).hexdigest()
    (out / "manifest.json").write_text(json.dumps(manifest))


def everything(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*")}


def test_the_number_of_a_model_is_that_of_its_file(foreign: Path) -> None:
    alter(foreign, id="../../escaped")
    before = everything(foreign.parent)
    assert "](sheets/0000.png)" in write_card(foreign).read_text()
    assert judged(foreign).models[0].id == "0000"
    new = everything(foreign.parent) - before
    assert all(name.startswith("set/") for name in new)
    assert "escaped" not in " ".join(new)


@pytest.mark.parametrize("listed", [False, True])
@pytest.mark.parametrize("way", ["absolute", "above", "link"])
def test_exemplars_outside_of_the_folder_are_not_read(
    foreign: Path, way: str, listed: bool
) -> None:
    secret = foreign.parent / "secret.png"
    shutil.copy(next((foreign / "exemplars").iterdir()), secret)
    name = {"absolute": str(secret), "above": "../secret.png", "link": "exemplars/link.png"}[way]
    if way == "link":
        (foreign / name).symlink_to(secret)
    alter(foreign, exemplars=[name])
    if listed:
        list_file(foreign, name, secret)
        said = f"{name} is outside of the dataset's folder"
    else:
        said = f"{name} is not among the files of manifest.json"
    with pytest.raises(SourceError) as caught:
        write_card(foreign)
    assert said in str(caught.value)
    assert not (foreign / "README.md").exists()
    check = judged(foreign)
    assert [model.id for model in check.models] == ["0001", "0002"]
    if way == "link" and not listed:
        said = f"{name} does not belong to the dataset"
    assert any(said in problem for problem in check.problems)


def test_sheets_that_are_a_link_are_not_written_to(foreign: Path) -> None:
    elsewhere = foreign.parent / "elsewhere"
    elsewhere.mkdir()
    (foreign / "sheets").symlink_to(elsewhere)
    with pytest.raises(DataFolderError, match=r"sheets is not a folder of this dataset; move it"):
        write_card(foreign)
    assert list(elsewhere.iterdir()) == []


def test_links_in_the_place_of_files_are_not_followed(foreign: Path) -> None:
    """Of the card, of what it is written to first, and of the lock."""
    outside = foreign.parent / "outside.txt"
    outside.write_text("mine")
    for name in ("README.md", "README.md.part", "quality.json.part", "sheets/0000.png.part"):
        (foreign / name).parent.mkdir(exist_ok=True)
        (foreign / name).symlink_to(outside)
    write_card(foreign)
    judged(foreign)
    assert outside.read_text() == "mine"
    (foreign / ".lock").unlink()
    (foreign / ".lock").symlink_to(outside)
    with pytest.raises(DataFolderError, match=r"\.lock is a link"):
        write_card(foreign)
    assert outside.read_text() == "mine"


def test_what_is_no_record_is_not_taken_for_one(foreign: Path) -> None:
    for name in ("models/../../x.json", "models/a.json", "models/0000.json/", "models/١.json"):
        list_file(foreign, name, foreign / "plan.json")
    assert judged(foreign).models[-1].id == "0002"
    text = write_card(foreign).read_text()
    assert text.startswith("# Object models of tiny\n\n3 customized models")


def test_hostile_values_of_the_manifest_are_no_markdown(foreign: Path) -> None:
    path = foreign / "manifest.json"
    manifest = json.loads(path.read_text())
    manifest["settings"]["customization"]["method"] = "<script>x</script>"
    manifest["settings"]["kind"] = "object](http://x)"
    path.write_text(json.dumps(manifest))
    text = write_card(foreign).read_text()
    assert "| \\<script\\>x\\</script\\>, 2 steps" in text
    assert text.startswith("# Object\\](http\\://x) models of tiny")
    manifest["settings"]["seed"] = "<script>"
    path.write_text(json.dumps(manifest))
    with pytest.raises(SourceError, match="is damaged: "):
        write_card(foreign)


def test_a_damaged_image_is_named_with_what_mends_it(foreign: Path) -> None:
    name = "synth/object/free/0000/00000.png"
    (foreign / name).write_bytes(b"junk")
    with pytest.raises(SourceError) as caught:
        write_card(foreign)
    assert str(caught.value).startswith(f"{foreign / name} is damaged: ")
    assert str(caught.value).endswith("; the `attrib dataset build` that made it makes it again")
