from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from embed.official import read_calibrator, read_mappers
from ingest.errors import ModelError


class Command:
    """What a hostile checkpoint looks like: unpickling it calls os.system."""

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, ("touch harmed",)


def linear(d: int, f: int) -> dict[str, torch.Tensor]:
    return dict(nn.Linear(d, f).state_dict())


def test_mapper_file(tmp_path: Path) -> None:
    real, synth = linear(6, 4), linear(6, 4)
    torch.save({"real_mapper": real, "synth_mapper": synth}, tmp_path / "m.pth")
    pair = read_mappers(tmp_path / "m.pth")
    assert (pair.in_dim, pair.out_dim) == (6, 4)
    np.testing.assert_array_equal(pair.real_mapper.arrays["weight"], real["weight"].numpy())
    np.testing.assert_array_equal(pair.synth_mapper.arrays["weight"], synth["weight"].numpy())


def test_channel_and_half_precision(tmp_path: Path) -> None:
    state = {"weights": torch.tensor([[1.5, -2.0]], dtype=torch.float16)}
    torch.save({"real_mapper": state, "synth_mapper": state}, tmp_path / "m.pth")
    assert read_mappers(tmp_path / "m.pth").real_mapper([[1, 1]]).tolist() == [[1.5, -2]]


def test_calibrator_file(tmp_path: Path) -> None:
    torch.save({"inv_tau": torch.tensor(25.0), "bias": torch.tensor(-40.0)}, tmp_path / "c.pth")
    calibrator = read_calibrator(tmp_path / "c.pth")
    assert calibrator.tau == pytest.approx(0.04)
    assert calibrator.b == pytest.approx(-0.04)
    assert calibrator.fitted_on == "c.pth"


def test_kinds_are_not_mistaken(tmp_path: Path) -> None:
    mapper, calibrator = tmp_path / "m.pth", tmp_path / "c.pth"
    torch.save({"real_mapper": linear(2, 2), "synth_mapper": linear(2, 2)}, mapper)
    torch.save({"inv_tau": torch.tensor(1.0), "bias": torch.tensor(0.0)}, calibrator)
    with pytest.raises(ModelError) as caught:
        read_mappers(calibrator)
    assert str(caught.value) == (
        f"{calibrator} is not a mapper file: it lacks real_mapper and synth_mapper "
        "(it looks like a calibrator)"
    )
    with pytest.raises(ModelError) as caught:
        read_calibrator(mapper)
    assert str(caught.value) == (
        f"{mapper} is not a calibrator file: it lacks inv_tau and bias (it looks like a mapper)"
    )


@pytest.mark.parametrize(
    ("content", "text"),
    [
        ([1, 2], " is not a mapper file: it lacks real_mapper and synth_mapper"),
        ({"real_mapper": {}, "synth_mapper": {}}, ": real_mapper: not a mapper: its entries are "),
        ({"real_mapper": 3, "synth_mapper": {}}, ": real_mapper is not a state of tensors"),
        (
            {"real_mapper": linear(2, 3), "synth_mapper": linear(3, 3)},
            ": the real mapper is 2 -> 3, the synth mapper 3 -> 3; they must agree",
        ),
    ],
)
def test_other_contents(tmp_path: Path, content: object, text: str) -> None:
    torch.save(content, tmp_path / "m.pth")
    with pytest.raises(ModelError) as caught:
        read_mappers(tmp_path / "m.pth")
    assert str(caught.value) == f"{tmp_path / 'm.pth'}{text}"


@pytest.mark.parametrize(
    ("inv_tau", "bias", "text"),
    [
        (-1.0, 0.0, "calibrator: inv_tau must be a number above 0, not -1.0"),
        (1.0, -2000.0, "calibrator: b must be a number above -1, not -2.0"),
        (torch.ones(2), 0.0, "inv_tau and bias must be single numbers"),
    ],
)
def test_impossible_calibrators(tmp_path: Path, inv_tau: Any, bias: Any, text: str) -> None:
    torch.save({"inv_tau": inv_tau, "bias": bias}, tmp_path / "c.pth")
    with pytest.raises(ModelError) as caught:
        read_calibrator(tmp_path / "c.pth")
    assert str(caught.value) == f"{tmp_path / 'c.pth'}: {text}"


def test_code_is_refused_and_not_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "evil.pth"
    torch.save({"real_mapper": Command(), "synth_mapper": {}}, path)
    with pytest.raises(ModelError) as caught:
        read_mappers(path)
    assert str(caught.value) == (
        f"{path} is refused: its pickle carries code (posix.system); "
        "save the tensors as safetensors"
    )
    assert not (tmp_path / "harmed").exists()


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(ModelError) as caught:
        read_calibrator(tmp_path / "none.pth")
    assert str(caught.value) == (
        f"{tmp_path / 'none.pth'} cannot be read as a PyTorch file: "
        f"[Errno 2] No such file or directory: '{tmp_path / 'none.pth'}'"
    )
