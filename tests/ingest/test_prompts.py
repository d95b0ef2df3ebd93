"""`prompts.json` beside generated images."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from ingest.errors import SourceError
from ingest.record import ImageRecord
from ingest.source import open_sources
from ingest.table import open_table


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("a.png", "b.png"):
        Image.fromarray(np.zeros((4, 4, 3), np.uint8)).save(tmp_path / name)
    return tmp_path


def _records(folder: Path) -> dict[str, ImageRecord]:
    (source,) = open_sources([str(folder)])
    assert source.kind != "tar"
    records = [source.read(item) for item in source.items()]
    assert all(isinstance(record, ImageRecord) for record in records)
    return {record.key: record for record in records if isinstance(record, ImageRecord)}


@pytest.mark.parametrize(
    "prompts",
    [
        {"a.png": "a red hat", "b.png": "a bus"},
        {"a.png": {"prompt": "a red hat", "seed": 7}, "b.png": {"prompt": "a bus", "seed": 8}},
        [{"file": "a.png", "prompt": "a red hat", "seed": 7}, {"file": "b.png", "prompt": "a bus"}],
        {"./a.png": "a red hat", "b": "a bus"},
    ],
)
def test_a_prompt_is_the_caption(folder: Path, prompts: Any) -> None:
    (folder / "prompts.json").write_text(json.dumps(prompts))
    found = _records(folder)
    assert {key: record.caption for key, record in found.items()} == {
        "a.png": "a red hat",
        "b.png": "a bus",
    }
    if "seed" in str(prompts):
        assert found["a.png"].extra == {"seed": "7"}


def test_what_is_written_beside_the_image_wins(folder: Path) -> None:
    (folder / "prompts.json").write_text('{"a.png": "of the table"}')
    (folder / "a.txt").write_text("of the image")
    assert [record.caption for record in _records(folder).values()] == ["of the image", ""]


def test_another_prompt_is_another_state(folder: Path) -> None:
    signatures = []
    for prompt in ("one", "two"):
        (folder / "prompts.json").write_text(json.dumps({"a.png": prompt}))
        (source,) = open_sources([str(folder)])
        assert source.kind != "tar"
        signatures.append([item.signature for item in source.items()])
    assert signatures[0][0] != signatures[1][0]
    assert signatures[0][1] == signatures[1][1]


@pytest.mark.parametrize("text", ["[1, 2]", "3", '[{"text": "no file"}]'])
def test_prompts_of_another_shape_are_somebody_elses(folder: Path, text: str) -> None:
    (folder / "prompts.json").write_text(text)
    assert _records(folder)


@pytest.mark.parametrize("text", ["{", "[" * 100_000])
def test_another_file_of_that_name_is_told(folder: Path, text: str) -> None:
    (folder / "prompts.json").write_text(text)
    with pytest.raises(SourceError, match=r"cannot read .*prompts\.json as a table: "):
        _records(folder)


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=8,
)


@given(value=_JSON)
def test_any_json_is_rows_or_one_error(
    value: Any, tmp_path_factory: pytest.TempPathFactory
) -> None:
    # In a folder of its own: one above other tests' images would be read for them.
    path = tmp_path_factory.mktemp("any") / "prompts.json"
    path.write_text(json.dumps(value))
    rows = [row for batch in open_table(path).batches for row in batch.to_pylist()]
    if isinstance(value, dict):
        assert len(rows) == len(value)
    else:
        assert len(rows) in (0, len(value) if isinstance(value, list) else 0)
