"""The wheel holds the prompt lists, which no import would miss."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path

import pytest

from evaluation.dataset.prompts import shipped_prompts

ROOT = Path(__file__).resolve().parents[2]


def test_the_wheel_ships_the_prompt_lists(tmp_path: Path) -> None:
    wheel = pytest.importorskip("hatchling.builders.wheel", reason="hatchling builds the wheel")
    (built,) = wheel.WheelBuilder(str(ROOT)).build(directory=str(tmp_path), versions=["standard"])
    with zipfile.ZipFile(built) as archive:
        lists = json.loads(archive.read("evaluation/dataset/prompt_lists.json"))
    assert tuple(lists["object"]["free"]) == shipped_prompts("object").free
    assert tuple(lists["style"]["free"]) == shipped_prompts("style").free
