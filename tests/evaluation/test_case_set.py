"""The test cases that a person names: which are read, and what is told of those that are not."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from PIL import Image

from evaluation.case_set import excluded_exemplars, read_cases
from ingest.errors import SourceError, UsageError


def no_note(line: str) -> None:
    raise AssertionError(line)


@pytest.fixture
def case_file(tmp_path: Path) -> Path:
    """Two models of two images each."""
    folder = tmp_path / "cases"
    (folder / "images").mkdir(parents=True)
    for number in range(4):
        Image.new("RGB", (32, 32), (60 * number, 10, 10)).save(folder / f"images/{number}.png")
    models = [
        {"exemplar": ["images/0.png"], "synth": {"gpt": ["images/1.png"]}},
        {"exemplar": ["images/2.png"], "synth": {"gpt": ["images/3.png"]}},
    ]
    path = folder / "val.json"
    path.write_text(json.dumps(models), "utf-8")
    return path


def test_exemplars_of_other_splits(case_file: Path, tmp_path: Path) -> None:
    images = case_file.parent / "images"
    wanted = {(images / "0.png").resolve(), (images / "2.png").resolve()}
    assert excluded_exemplars([case_file], note=no_note) == wanted
    assert excluded_exemplars([case_file.parent], note=no_note) == wanted
    away = tmp_path / "away" / "a" / "b" / "c" / "val.json"
    away.parent.mkdir(parents=True)
    shutil.copy(case_file, away)
    assert excluded_exemplars([away], case_file.parent, note=no_note) == wanted
    lines: list[str] = []
    excluded_exemplars([away], note=lines.append)
    assert lines == [
        f"no exemplar of val is there under {away.parent}: they are known by path alone, and "
        "copies of them may count as distractors"
    ]


def test_missing_images_and_names_twice(case_file: Path) -> None:
    (case_file.parent / "images/2.png").unlink()
    with pytest.raises(SourceError) as caught:
        read_cases([case_file], note=no_note)
    assert str(caught.value) == (
        f"val: 1 of its image files are missing under {case_file.parent} (images/2.png); get them, "
        "or leave them out with --skip-missing"
    )
    lines: list[str] = []
    cases = read_cases([case_file], skip_missing=True, note=lines.append)
    assert [model.id for model in cases.images[0].models] == ["0"]
    assert lines == ["val: model 1: left out: its exemplars are missing (images/2.png)"]
    with pytest.raises(UsageError) as twice:
        read_cases([case_file, case_file], note=no_note)
    assert str(twice.value) == (
        "two of the test cases are named val; they are told apart by their names: leave one out, "
        "or rename its file"
    )


def test_cases_of_one_name_are_told_apart_by_their_folders(case_file: Path) -> None:
    other = case_file.parent.with_name("other")
    shutil.copytree(case_file.parent, other)
    both = [case_file, other / case_file.name]
    found = read_cases(both, by_folder=True, note=no_note).images
    assert [case.name for case in found] == [f"{case_file.parent.name}/val", "other/val"]
    assert [case.name for case in read_cases(both[:1], by_folder=True, note=no_note).images] == [
        "val"
    ]
    with pytest.raises(UsageError, match="two of the test cases are named other/val"):
        read_cases([both[1], other], by_folder=True, note=no_note)
