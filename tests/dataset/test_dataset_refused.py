"""Generators that cannot be customized, refused in one line before anything is made."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_builds import SETTINGS, Build, builder

from evaluation.dataset.generator import Generator, load_generator
from evaluation.dataset.settings import Method
from evaluation.dataset.trained import check_method
from ingest.errors import ModelError, UsageError

KNOWN = "known are Stable Diffusion 1.x, 2.x, XL and 3.x, and Flux.1"


def renamed(pipeline: Path, folder: Path, **values: object) -> Path:
    """The same pipeline under other words of its own."""
    copied = Path(shutil.copytree(pipeline, folder))
    path = copied / "model_index.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))
    return copied


@pytest.mark.parametrize(
    "kind",
    [
        "StableDiffusionImg2ImgPipeline",
        "StableDiffusionInpaintPipeline",
        "StableDiffusionXLImg2ImgPipeline",
        "StableDiffusionControlNetPipeline",
        "IFPipeline",
        "DDPMPipeline",
        "NoSuchPipeline",
        ["my_pipeline", "MyPipeline"],
        None,
    ],
)
def test_other_pipelines_are_refused_before_their_weights_are_read(
    pipeline_folder: Path, tmp_path: Path, kind: object
) -> None:
    folder = renamed(pipeline_folder, tmp_path / "other", _class_name=kind)
    for weights in folder.rglob("*.safetensors"):
        weights.write_bytes(b"")
    with pytest.raises(ModelError) as caught:
        load_generator(str(folder), device="cpu")
    assert str(caught.value) == (
        f"{folder} is a {kind}, not a pipeline that makes images of a text alone; {KNOWN}"
    )


@pytest.mark.parametrize("part", ["unet", "vae", "text_encoder", "tokenizer", "scheduler"])
def test_a_pipeline_that_lacks_a_part(pipeline_folder: Path, tmp_path: Path, part: str) -> None:
    folder = renamed(pipeline_folder, tmp_path / "part", **{part: [None, None]})
    with pytest.raises(ModelError, match=rf"is incomplete: its model_index.json names no {part}$"):
        load_generator(str(folder), device="cpu")


def test_an_unknown_prediction(pipeline_folder: Path, tmp_path: Path) -> None:
    folder = renamed(pipeline_folder, tmp_path / "sample")
    path = folder / "scheduler" / "scheduler_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "prediction_type": "sample"}))
    with pytest.raises(ModelError) as caught:
        load_generator(str(folder), device="cpu")
    assert str(caught.value) == f"{folder} predicts 'sample'; epsilon and v_prediction are known"


@pytest.fixture(scope="module")
def without_attention(pipeline_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Generator:
    """Of convolutions alone."""
    from diffusers import StableDiffusionPipeline, UNet2DConditionModel

    torch.manual_seed(0)
    pipe: Any = StableDiffusionPipeline.from_pretrained(  # type: ignore[no-untyped-call]
        pipeline_folder, safety_checker=None
    )
    pipe.unet = UNet2DConditionModel(  # type: ignore[no-untyped-call]
        sample_size=8,
        block_out_channels=(8, 16),
        layers_per_block=1,
        down_block_types=("DownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "UpBlock2D"),
        mid_block_type=None,
        cross_attention_dim=16,
        norm_num_groups=4,
    )
    folder = tmp_path_factory.mktemp("plain") / "pipeline"
    pipe.save_pretrained(folder)
    return load_generator(str(folder), device="cpu")


@pytest.mark.parametrize(
    ("method", "said"),
    [
        (
            "custom-diffusion",
            "has no cross-attention under known names (attn2.to_k, attn2.to_v); customize it "
            "with --method full",
        ),
        (
            "lora",
            "has no attention under known names that lora could adapt; customize it with "
            "--method full",
        ),
    ],
)
def test_a_denoiser_without_attention(
    without_attention: Generator, images_folder: Path, tmp_path: Path, method: Method, said: str
) -> None:
    """What is recommended works."""
    build = builder(without_attention, images_folder)
    settings = replace(
        SETTINGS, models=1, customization=replace(SETTINGS.customization, method=method)
    )
    with pytest.raises(UsageError) as caught:
        build(tmp_path / "set", settings)
    assert str(caught.value) == f"{without_attention.name} {said}"
    assert not (tmp_path / "set").exists()
    full = replace(settings, customization=replace(settings.customization, method="full"))
    assert build(tmp_path / "set", full).made == 1


def test_without_peft_lora_is_refused_at_once(
    build: Build, generator: Generator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "peft", None)
    settings = replace(SETTINGS, customization=replace(SETTINGS.customization, method="lora"))
    with pytest.raises(UsageError) as caught:
        build(tmp_path / "set", settings)
    assert str(caught.value) == "peft is not installed: pip install 'attrib[dataset]'"
    assert not (tmp_path / "set").exists()
    check_method(generator, "full")


def test_a_generator_of_the_hub_is_known_by_its_index(
    pipeline_folder: Path, tmp_path: Path
) -> None:
    """From the hub's cache, offline, in a process of its own: variables are read on import."""
    snapshot = tmp_path / "hub" / "models--someone--tiny" / "snapshots" / ("0" * 40)
    shutil.copytree(pipeline_folder, snapshot)
    (snapshot.parents[1] / "refs").mkdir()
    (snapshot.parents[1] / "refs" / "main").write_text("0" * 40)
    program = (
        "from evaluation.dataset.generator import load_generator\n"
        "generator = load_generator('someone/tiny', device='cpu')\n"
        "print(generator.name, generator.size)\n"
    )
    environment = {"HF_HUB_CACHE": str(tmp_path / "hub"), "HF_HUB_OFFLINE": "1"}
    root = Path(__file__).resolve().parents[2]
    done = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        check=False,
        cwd=root,
        env={"PYTHONPATH": str(root), "PATH": "/usr/bin:/bin", **environment},
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "someone/tiny 16"
