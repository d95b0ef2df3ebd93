"""The official feature files: layout, refusals, and that no code in them runs."""

from __future__ import annotations

import os
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from evaluation.official import read_case_file, read_npy_features, read_subset_file
from ingest.errors import ModelError, SourceError, WeightsError


class Command:
    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, ("touch harmed",)


def case_content(**changes: Any) -> dict[str, Any]:
    """Two models with two and three exemplars; three and one generated images."""
    rng = torch.Generator().manual_seed(0)
    return {
        "exemplar_paths": [f"e{i}.png" for i in range(5)],
        "exemplar_chunks": [(0, 2), (2, 5)],
        "exemplar_tensors": torch.randn(5, 4, generator=rng),
        "synth_paths": {"gpt": ["a", "b", "c"], "media": ["d"]},
        "synth_ids": {"gpt": [0, 1, 1], "media": [0]},
        "synth_tensors": {
            "gpt": torch.randn(3, 4, generator=rng),
            "media": torch.randn(1, 4, generator=rng),
        },
        **changes,
    }


def save(path: Path, content: Any, **options: Any) -> Path:
    torch.save(content, path, **options)
    return path


def refusal(read: Any, path: Path) -> str:
    with pytest.raises((SourceError, WeightsError, ModelError)) as caught:
        read(path)
    text = str(caught.value)
    assert "\n" not in text
    return text


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.float16, torch.bfloat16])
def test_a_case(tmp_path: Path, zipped: bool, dtype: torch.dtype) -> None:
    content = case_content()
    content["exemplar_tensors"] = content["exemplar_tensors"].to(dtype)
    path = tmp_path / "test_artchive.pth"
    case = read_case_file(save(path, content, _use_new_zipfile_serialization=zipped))
    assert case.name == "test_artchive"
    assert case.model_ids == ("0", "1")
    np.testing.assert_array_equal(case.exemplars, content["exemplar_tensors"].float())
    assert case.exemplars.dtype == np.float32
    np.testing.assert_array_equal(case.chunks, [0, 2, 5])
    np.testing.assert_array_equal(case.synth[:3], content["synth_tensors"]["gpt"])
    np.testing.assert_array_equal(case.synth[3:], content["synth_tensors"]["media"])
    np.testing.assert_array_equal(case.synth_model, [0, 1, 1, 0])
    assert case.synth_type == ("gpt", "gpt", "gpt", "media")
    np.testing.assert_array_equal(case.positives, [2, 3, 3, 2])


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        (
            {"exemplar_chunks": [(0, 2), (3, 5)]},
            "{}: the exemplars of model 1 begin at 3, those before it end at 2",
        ),
        (
            {"exemplar_chunks": [(0, 3), (2, 5)]},
            "{}: the exemplars of model 1 begin at 2, those before it end at 3",
        ),
        ({"exemplar_chunks": [(0, 0), (0, 5)]}, "{}: model 0 has no exemplar (0 to 0)"),
        (
            {"exemplar_chunks": [(0, 2), (2, 4)]},
            "{}: exemplar_chunks end at 4, there are 5 exemplars",
        ),
        (
            {"exemplar_chunks": [(0, 2), (2, 9)]},
            "{}: exemplar_chunks end at 9, there are 5 exemplars",
        ),
        ({"exemplar_chunks": [(0, 2, 5)]}, "{}: exemplar_chunks 0 are not 2 whole numbers"),
        ({"exemplar_chunks": []}, "{}: exemplar_chunks is not a list of (start, end)"),
        (
            {"synth_ids": {"gpt": [0, 1, 2], "media": [0]}},
            "{}: synth_ids gpt are 0 to 2, there are 2 models",
        ),
        (
            {"synth_ids": {"gpt": [0, -1, 1], "media": [0]}},
            "{}: synth_ids gpt are -1 to 1, there are 2 models",
        ),
        (
            {"synth_ids": {"gpt": [0, 1], "media": [0]}},
            "{}: synth_tensors gpt are 3, their ids 2",
        ),
        (
            {"synth_ids": {"gpt": [0, 1, 0.5], "media": [0]}},
            "{}: synth_ids gpt are not whole numbers",
        ),
        (
            {"synth_ids": {"gpt": [0, 1, 1]}},
            "{}: synth_tensors and synth_ids are not of the same prompt types",
        ),
        (
            {"synth_tensors": {"gpt": torch.zeros(3, 5), "media": torch.zeros(1, 4)}},
            "{}: synth_tensors gpt have 5 numbers each, the exemplars 4",
        ),
        (
            {"exemplar_tensors": torch.zeros(5)},
            "{}: exemplar_tensors is float32 (5,), expected floating-point numbers of shape "
            "(images, dim)",
        ),
        (
            {"exemplar_tensors": torch.zeros(5, 4, dtype=torch.int64)},
            "{}: exemplar_tensors is int64 (5, 4), expected floating-point numbers of shape "
            "(images, dim)",
        ),
        ({"exemplar_tensors": None}, "{}: exemplar_tensors is a NoneType, not a tensor"),
        ({"synth_tensors": {}, "synth_ids": {}}, "{} holds no generated image"),
    ],
)
def test_cases_that_do_not_fit(tmp_path: Path, changes: dict[str, Any], expected: str) -> None:
    path = save(tmp_path / "case.pth", case_content(**changes))
    assert refusal(read_case_file, path) == expected.format(path)


def test_features_that_are_not_finite_are_counted(tmp_path: Path) -> None:
    content = case_content()
    content["synth_tensors"]["gpt"][1:, 2] = torch.nan
    path = save(tmp_path / "case.pth", content)
    assert refusal(read_case_file, path) == (
        "case: 2 of 4 generated images have features that are not finite"
    )
    feats = torch.zeros(50_000, 100)  # more than a block
    feats[0, 3] = torch.inf
    feats[49_999, 99] = torch.nan
    path = save(tmp_path / "laion_subset.pth", {"feats": feats, "paths": ["x"] * 50_000})
    assert refusal(read_subset_file, path) == (
        f"{path}: 2 of 50000 images have features that are not finite"
    )


def test_one_kind_of_file_given_for_the_other(tmp_path: Path) -> None:
    case = save(tmp_path / "case.pth", case_content())
    subset = save(tmp_path / "subset.pth", {"feats": torch.zeros(1, 2), "paths": ["a"]})
    assert refusal(read_subset_file, case) == (
        f"{case} does not hold features of images: it lacks feats, paths (it looks like a test "
        "case file)"
    )
    assert refusal(read_case_file, subset) == (
        f"{subset} does not hold features of a test case: it lacks exemplar_tensors, "
        "exemplar_chunks, synth_tensors, synth_ids (it looks like a laion_subset file)"
    )


@pytest.mark.parametrize("read", [read_case_file, read_subset_file])
def test_code_is_refused_and_does_not_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, read: Any
) -> None:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "evil.pth"
    for save_it in (
        lambda: torch.save({"feats": Command(), **case_content()}, path),
        lambda: path.write_bytes(pickle.dumps({"feats": Command()}, protocol=2)),
    ):
        save_it()
        assert refusal(read, path) == (
            f"{path} is refused: its pickle carries code (posix.system); save the tensors as "
            "safetensors"
        )
    path.write_bytes(pickle.dumps({"feats": Command()}))  # of a protocol that torch never reads
    assert refusal(read, path).startswith(f"{path} cannot be read as a PyTorch file")
    assert not (tmp_path / "harmed").exists()


def test_damaged_files(tmp_path: Path) -> None:
    whole = save(tmp_path / "whole.pth", case_content()).read_bytes()
    path = tmp_path / "cut.pth"
    path.write_bytes(whole[: len(whole) // 2])
    assert refusal(read_case_file, path).startswith(f"{path} cannot be read as a PyTorch file")
    assert "No such file" in refusal(read_subset_file, tmp_path / "no.pth")


@pytest.mark.parametrize("zipped", [True, False])
def test_a_subset(tmp_path: Path, zipped: bool) -> None:
    feats = torch.randn(7, 3, generator=torch.Generator().manual_seed(1))
    path = tmp_path / "laion_subset.pth"
    save(
        path,
        {"feats": feats, "paths": [f"{i}.jpg" for i in range(7)]},
        _use_new_zipfile_serialization=zipped,
    )
    features, paths = read_subset_file(path)
    np.testing.assert_array_equal(features, feats)
    assert paths[6] == "6.jpg"


def test_a_subset_is_mapped_not_read(tmp_path: Path) -> None:
    feats = torch.zeros(1000, 64)
    path = save(tmp_path / "laion_subset.pth", {"feats": feats, "paths": ["x"] * 1000})
    features, _ = read_subset_file(path)
    assert str(path) in Path("/proc/self/maps").read_text()
    assert features.shape == (1000, 64)


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (
            {"feats": torch.zeros(2, 3), "paths": ["a"]},
            "{} has 2 features, but 1 paths",
        ),
        ({"feats": torch.zeros(1, 3), "paths": [4]}, "{}: paths is not a list of paths"),
        ({"feats": [[1.0]], "paths": ["a"]}, "{}: feats is a list, not a tensor"),
        ([1], "{} does not hold features of images: it lacks feats, paths"),
    ],
)
def test_subsets_that_do_not_fit(tmp_path: Path, content: Any, expected: str) -> None:
    path = save(tmp_path / "laion_subset.pth", content)
    assert refusal(read_subset_file, path) == expected.format(path)


def test_npy(tmp_path: Path) -> None:
    array = np.arange(12, dtype=np.float16).reshape(4, 3)
    np.save(tmp_path / "data_feats.npy", array)
    features = read_npy_features(tmp_path / "data_feats.npy")
    assert isinstance(features, np.memmap)
    np.testing.assert_array_equal(features, array)


def test_npy_that_does_not_fit(tmp_path: Path) -> None:
    path = tmp_path / "data_feats.npy"
    shape = "expected floating-point numbers of shape (images, dim)"
    np.save(path, np.zeros(3))
    assert refusal(read_npy_features, path) == f"{path} holds float64 (3,), {shape}"
    np.save(path, np.zeros((3, 2), dtype=np.int32))
    assert refusal(read_npy_features, path) == f"{path} holds int32 (3, 2), {shape}"
    np.save(path, np.zeros((0, 2)))
    assert refusal(read_npy_features, path) == f"{path} holds float64 (0, 2), {shape}"
    np.save(path, np.array([[0, np.nan], [1, 1], [np.inf, 0]]))
    assert refusal(read_npy_features, path) == (
        f"{path}: 2 of 3 images have features that are not finite"
    )
    np.save(path, np.array([[Command()]], dtype=object), allow_pickle=True)
    assert refusal(read_npy_features, path).startswith(f"{path} cannot be read as an .npy file: ")
    path.write_bytes(b"no array")
    assert refusal(read_npy_features, path).startswith(f"{path} cannot be read as an .npy file: ")
    with path.open("wb") as out:
        np.savez(out, a=np.zeros((1, 1)))
    assert refusal(read_npy_features, path) == (
        f"{path} is an archive of arrays, expected one array (.npy)"
    )
    assert "No such file" in refusal(read_npy_features, tmp_path / "no.npy")
