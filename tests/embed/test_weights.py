from __future__ import annotations

import argparse
import os
import pickle
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from embed import weights
from embed.backbones import BACKBONES, resolve
from embed.hub import fetch
from embed.weights import find_local, load_strict, local_path, read_state, tensor_hash
from ingest.errors import WeightsError

DINO = BACKBONES["dino-vitb16"]


class Command:
    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, ("touch harmed",)


def two_layers() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2))


def test_folder_and_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert weights.weights_folder() == tmp_path / "weights"
    assert local_path(DINO) == tmp_path / "weights" / "dino-vitb16.safetensors"
    moco = local_path(BACKBONES["mocov3-vitb16"])
    assert moco == tmp_path / "weights" / "mocov3-vitb16.pth"  # a .pth.tar is a .pth
    monkeypatch.delenv("ATTRIB_WEIGHTS")
    assert weights.weights_folder().parts[-2:] == ("attrib", "weights")


def test_safetensors_are_preferred(tmp_path: Path) -> None:
    assert find_local(DINO) is None
    for suffix in (".bin", ".pth", ".safetensors"):
        path = tmp_path / "weights" / f"dino-vitb16{suffix}"
        path.touch()
        assert find_local(DINO) == path


def test_names_with_separators_stay_in_the_folder(tmp_path: Path) -> None:
    path = local_path(resolve("open_clip:ViT-B-32/laion2b_s34b_b79k"))
    assert path == tmp_path / "weights" / "open_clip--ViT-B-32--laion2b_s34b_b79k.safetensors"


@pytest.mark.parametrize("wrapper", [None, "state_dict", "model_state_dict", "model"])
def test_states_are_unwrapped(tmp_path: Path, wrapper: str | None) -> None:
    state = two_layers().state_dict()
    content: Any = state if wrapper is None else {wrapper: state, "epoch": 3}
    torch.save(content, tmp_path / "w.pth")
    assert set(read_state(tmp_path / "w.pth")) == set(state)


def test_a_training_scripts_arguments_do_no_harm(tmp_path: Path) -> None:
    state = two_layers().state_dict()
    torch.save({"state_dict": state, "args": argparse.Namespace(lr=1e-3)}, tmp_path / "w.pth")
    assert set(read_state(tmp_path / "w.pth")) == set(state)


def test_same_hash_from_either_format(tmp_path: Path) -> None:
    module = two_layers()
    torch.save(module.state_dict(), tmp_path / "w.pth")
    save_file(module.state_dict(), tmp_path / "w.safetensors")
    hashes = set()
    for file in ("w.pth", "w.safetensors"):
        fresh = nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2))
        load_strict(fresh, read_state(tmp_path / file), file)
        hashes.add(tensor_hash(fresh))
    assert hashes == {tensor_hash(module)}
    before = tensor_hash(module)
    with torch.no_grad():
        module[0].bias[1] += 1e-3
    assert tensor_hash(module) != before


def test_hash_is_pinned() -> None:
    module = nn.Linear(2, 1)
    with torch.no_grad():
        module.weight.copy_(torch.tensor([[1.0, 2.0]]))
        module.bias.fill_(3)
    # sha256 of "bias <f4 (1,)\n" 3f "weight <f4 (1, 2)\n" 1f 2f
    assert tensor_hash(module) == PINNED


PINNED = "e29ae27599916922fac31ce014545acd506e471bdf1ea77901000f38df6eda2f"


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_numbers_that_are_not_finite(tmp_path: Path, bad: float) -> None:
    path = tmp_path / "w.safetensors"
    save_file({"a": torch.ones(2), "b": torch.tensor([1.0, bad])}, path)
    with pytest.raises(WeightsError) as caught:
        read_state(path)
    assert str(caught.value) == f"{path}: b holds numbers that are not finite"


def test_code_is_refused_and_not_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "w.pth"
    torch.save({"a": Command()}, path)
    plain = tmp_path / "plain.pth"  # no zip around it, and a newer protocol
    plain.write_bytes(pickle.dumps({"a": Command()}, protocol=4))
    with pytest.raises(WeightsError) as caught:
        read_state(path)
    assert str(caught.value) == (
        f"{path} is refused: its pickle carries code (posix.system); "
        "save the tensors as safetensors"
    )
    with pytest.raises(WeightsError) as caught:
        read_state(plain)
    assert str(caught.value) == (
        f"{plain} cannot be read as a PyTorch file: Unsupported operand 149"
    )
    assert not (tmp_path / "harmed").exists()


def test_torchscript_is_no_state(tmp_path: Path) -> None:
    path = tmp_path / "w.pt"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the end of TorchScript is announced at every use
        torch.jit.script(nn.Linear(2, 2)).save(str(path))
    with pytest.raises(WeightsError) as caught:
        read_state(path)
    assert str(caught.value) == (
        f"{path} is a TorchScript program, not weights; save its state_dict as safetensors"
    )


@pytest.mark.parametrize("content", [[1], {}, 3])
def test_files_without_tensors(tmp_path: Path, content: object) -> None:
    torch.save(content, tmp_path / "w.pth")
    with pytest.raises(WeightsError) as caught:
        read_state(tmp_path / "w.pth")
    assert str(caught.value) == f"{tmp_path / 'w.pth'} holds no tensors by name"


def test_entries_that_are_no_tensors(tmp_path: Path) -> None:
    torch.save({"a": torch.ones(1), "b": "text"}, tmp_path / "w.pth")
    with pytest.raises(WeightsError) as caught:
        read_state(tmp_path / "w.pth")
    assert str(caught.value) == f"{tmp_path / 'w.pth'}: b is a str, not a tensor"


@pytest.mark.parametrize("name", ["w.pth", "w.safetensors"])
@pytest.mark.parametrize("content", [b"", b"garbage, not weights", b"PK\x03\x04cut off"])
def test_garbage_is_one_line(tmp_path: Path, name: str, content: bytes) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(WeightsError) as caught:
        read_state(path)
    assert str(caught.value).startswith(f"{path} cannot be read as ")
    assert "\n" not in str(caught.value)


def test_states_that_do_not_fit() -> None:
    state = dict(two_layers().state_dict())
    state["0.weight"] = torch.ones(2, 4)
    for name in ("0.bias", "1.weight", "1.bias", "1.running_var"):
        del state[name]
    state["head.bias"] = torch.ones(1)
    with pytest.raises(WeightsError) as caught:
        load_strict(two_layers(), state, "w.pth")
    assert str(caught.value) == (
        "w.pth does not fit the network: 4 entries missing (0.bias, 1.weight, 1.bias, ...); "
        "1 unexpected (head.bias); 1 of another shape (0.weight is (2, 4) instead of (2, 3))"
    )


def test_offline_says_which_file_to_put_where(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("embed.hub._reachable", lambda: False)
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "cache"))
    with pytest.raises(WeightsError) as caught:
        fetch(DINO, "timm/no-such-repository-at-all", ("model.safetensors",))
    assert str(caught.value) == (
        "weights of dino-vitb16 could not be fetched (huggingface.co is not reachable); "
        "put timm/vit_base_patch16_224.dino's model.safetensors at "
        f"{tmp_path / 'weights' / 'dino-vitb16.safetensors'}"
    )
    assert capfd.readouterr() == ("", "")
