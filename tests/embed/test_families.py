"""Each family against the reference implementation, on the same weights and the same pixels."""

from __future__ import annotations

import json
import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from embed.backbones import BACKBONES, Backbone
from embed.embedder import Embedder
from embed.families import load_module
from embed.preprocess import Preprocessing
from ingest.errors import WeightsError

from .conftest import random_pixels

MEAN, STD = (0.1, 0.5, 0.9), (0.2, 0.4, 0.8)


def tiny(name: str, architecture: str, dim: int, side: int = 32, **options: int | str) -> Backbone:
    """The named backbone with a network that is quick to build and asymmetric statistics."""
    return replace(
        BACKBONES[name],
        architecture=architecture,
        dim=dim,
        preprocessing=Preprocessing(side, side, "bicubic", MEAN, STD),
        options=tuple(sorted(options.items())),
    )


def normalised(pixels: np.ndarray) -> torch.Tensor:
    images = torch.from_numpy(pixels).permute(0, 3, 1, 2).float().contiguous() / 255
    return (images - torch.tensor(MEAN).view(3, 1, 1)) / torch.tensor(STD).view(3, 1, 1)


def shaken(module: nn.Module, seed: int = 0) -> nn.Module:
    """Random weights everywhere: fresh norms and biases are ones and zeros, which hide errors."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for tensor in module.state_dict().values():
            if tensor.is_floating_point():
                tensor.add_(torch.rand(tensor.shape, generator=generator) * 0.1 - 0.05)
    return module.eval()


def assert_same(backbone: Backbone, reference: nn.Module, images: int = 3) -> None:
    pixels = random_pixels(images, backbone.preprocessing.crop)
    with torch.inference_mode():
        expected = reference(normalised(pixels)).numpy()
    found = Embedder(backbone, device="cpu").embed(pixels)
    assert found.shape == (images, backbone.dim)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)


TINY_TIMM = [
    ("dino-vitb16", "vit_tiny_patch16_224", 192, {"img_size": 32, "depth": 2}),
    ("vit-b16-384", "vit_tiny_patch16_384", 192, {"img_size": 48, "depth": 2}),
    ("dinov2-vitb14", "vit_small_patch14_reg4_dinov2", 384, {"img_size": 28, "depth": 2}),
    (
        "dinov3-vitb16",
        "vit_small_patch16_dinov3",
        384,
        {"img_size": 32, "depth": 2, "global_pool": "token"},
    ),
    ("dino-vitb16", "resnet10t", 512, {}),
]


@pytest.mark.parametrize(("name", "architecture", "dim", "options"), TINY_TIMM)
@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
def test_timm(
    weights: Path, name: str, architecture: str, dim: int, options: dict[str, int], suffix: str
) -> None:
    import timm

    reference = shaken(timm.create_model(architecture, num_classes=0, **options))
    path = weights / f"{name}{suffix}"
    if suffix == ".pth":
        torch.save({"model": reference.state_dict()}, path)
    else:
        save_file(reference.state_dict(), path)
    side = options.get("img_size", 32)
    assert_same(tiny(name, architecture, dim, side, **options), reference)


def test_timm_drops_the_classifier(weights: Path) -> None:
    import timm

    reference = shaken(timm.create_model("resnet10t"))
    save_file(reference.state_dict(), weights / "dino-vitb16.safetensors")
    reference.reset_classifier(0)
    assert_same(tiny("dino-vitb16", "resnet10t", 512), reference)


def test_timm_class_token_is_the_dinov3_feature(weights: Path) -> None:
    import timm

    options = {"img_size": 32, "depth": 2}
    mean_pooled = shaken(timm.create_model("vit_small_patch16_dinov3", num_classes=0, **options))
    save_file(mean_pooled.state_dict(), weights / "dinov3-vitb16.safetensors")
    assert dict(BACKBONES["dinov3-vitb16"].options) == {"global_pool": "token"}
    backbone = tiny("dinov3-vitb16", "vit_small_patch16_dinov3", 384, 32, **options)
    pixels = random_pixels(2, 32)
    with torch.inference_mode():
        token = mean_pooled.forward_features(normalised(pixels))[:, 0].numpy()
    found = Embedder(replace(backbone, options=(*backbone.options, ("global_pool", "token"))))
    np.testing.assert_allclose(found.embed(pixels), token, rtol=1e-5, atol=1e-5)


def test_timm_missing_entries_are_never_random(weights: Path) -> None:
    import timm

    state = timm.create_model("resnet10t", num_classes=0).state_dict()
    del state["layer1.0.conv1.weight"]
    state["extra"] = torch.ones(1)
    path = weights / "dino-vitb16.safetensors"
    save_file(state, path)
    with pytest.raises(WeightsError) as caught:
        load_module(tiny("dino-vitb16", "resnet10t", 512))
    assert str(caught.value) == (
        f"{path} does not fit the network: 1 entries missing (layer1.0.conv1.weight); "
        "1 unexpected (extra)"
    )


@pytest.fixture(scope="module")
def tiny_clip(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A small CLIP architecture, registered with open_clip."""
    import open_clip

    folder = tmp_path_factory.mktemp("configs")
    config = {
        "embed_dim": 24,
        "quick_gelu": True,
        "vision_cfg": {"image_size": 32, "layers": 2, "width": 64, "patch_size": 16},
        "text_cfg": {"context_length": 8, "vocab_size": 50, "width": 32, "heads": 2, "layers": 1},
    }
    (folder / "tiny-clip.json").write_text(json.dumps(config))
    open_clip.add_model_config(folder / "tiny-clip.json")
    return "tiny-clip"


def reference_clip(architecture: str) -> nn.Module:
    import open_clip

    return shaken(open_clip.create_model(architecture, pretrained=None, load_weights=False))


def test_open_clip(weights: Path, tiny_clip: str) -> None:
    reference = reference_clip(tiny_clip)
    save_file(reference.state_dict(), weights / "clip-vitb32.safetensors")

    class Encode(nn.Module):
        def forward(self, images: torch.Tensor) -> torch.Tensor:
            encoded: torch.Tensor = reference.encode_image(images)  # type: ignore[operator]
            return encoded

    assert_same(tiny("clip-vitb32", tiny_clip, 24), Encode())


def test_open_clip_needs_an_image_tower(weights: Path, tiny_clip: str) -> None:
    path = weights / "clip-vitb32.safetensors"
    save_file({"a": torch.ones(1), "b": torch.ones(1)}, path)
    with pytest.raises(WeightsError) as caught:
        load_module(tiny("clip-vitb32", tiny_clip, 24))
    assert str(caught.value) == f"{path} has no entry that begins with 'visual.'; it has a, b"


def test_csd(weights: Path, tiny_clip: str) -> None:
    tower = reference_clip(tiny_clip).visual
    tower.proj = None  # as CSD does before training
    torch.manual_seed(0)
    style = torch.randn(64, 24)
    state = {f"module.backbone.{name}": t for name, t in tower.state_dict().items()}
    state |= {"module.last_layer_style": style, "module.last_layer_content": torch.randn(64, 24)}
    torch.save({"model_state_dict": state, "iter": 3}, weights / "csd-vitl14.pth")

    class Style(nn.Module):
        def forward(self, images: torch.Tensor) -> torch.Tensor:
            features: torch.Tensor = tower(images) @ style
            return features

    assert_same(tiny("csd-vitl14", tiny_clip, 24), Style())


def test_csd_without_its_projection(weights: Path, tiny_clip: str) -> None:
    path = weights / "csd-vitl14.pth"
    torch.save({"model_state_dict": {"module.backbone.proj": torch.ones(1)}}, path)
    with pytest.raises(WeightsError) as caught:
        load_module(tiny("csd-vitl14", tiny_clip, 24))
    assert str(caught.value) == f"{path} has no last_layer_style: not a checkpoint of CSD"


def test_mocov3(weights: Path) -> None:
    import timm

    options = {"img_size": 32, "depth": 2}
    reference = shaken(timm.create_model("vit_tiny_patch16_224", num_classes=0, **options))
    encoder = dict(reference.state_dict()) | {"head.0.weight": torch.ones(2, 2)}
    state = {f"module.base_encoder.{name}": t for name, t in encoder.items()}
    state |= {f"module.momentum_encoder.{name}": t * 0 for name, t in encoder.items()}
    state["module.predictor.0.weight"] = torch.ones(2, 2)
    torch.save(
        {"state_dict": state, "epoch": 300, "arch": "vit_base"}, weights / "mocov3-vitb16.pth"
    )
    assert_same(tiny("mocov3-vitb16", "vit_tiny_patch16_224", 192, 32, **options), reference)


def test_torchscript(weights: Path) -> None:
    torch.manual_seed(0)
    reference = nn.Sequential(
        nn.Conv2d(3, 8, 3, stride=2),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(8, 6),
    )
    shaken(reference)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the end of TorchScript is announced at every use
        torch.jit.script(reference).save(str(weights / "sscd-disc-mixup.pt"))
    assert_same(tiny("sscd-disc-mixup", "", 6), reference)


@pytest.mark.parametrize(
    ("name", "where", "file", "suffix"),
    [
        (
            "mocov3-vitb16",
            "https://github.com/facebookresearch/moco-v3",
            "vit-b-300ep.pth.tar",
            ".pth",
        ),
        (
            "sscd-disc-mixup",
            "https://github.com/facebookresearch/sscd-copy-detection",
            "sscd_disc_mixup.torchscript.pt",
            ".pt",
        ),
        ("csd-vitl14", "https://github.com/learn2phoenix/CSD", "checkpoint.pth", ".pth"),
    ],
)
def test_weights_on_no_hub(weights: Path, name: str, where: str, file: str, suffix: str) -> None:
    with pytest.raises(WeightsError) as caught:
        load_module(BACKBONES[name])
    assert str(caught.value) == (
        f"weights of {name} could not be fetched (it is on no hub); "
        f"put {where}'s {file} at {weights / (name + suffix)}"
    )


def test_pinned_weights_are_checked(weights: Path) -> None:
    import timm

    reference = timm.create_model("resnet10t", num_classes=0)
    save_file(reference.state_dict(), weights / "dino-vitb16.safetensors")
    backbone = tiny("dino-vitb16", "resnet10t", 512)
    found = load_module(backbone)[1]
    assert load_module(replace(backbone, weights_hash=found))[1] == found
    with pytest.raises(WeightsError) as caught:
        load_module(replace(backbone, weights_hash="ab" * 32))
    assert str(caught.value) == (
        f"weights of dino-vitb16 are not the known ones: sha256 {found[:16]}, "
        "expected abababababababab"
    )
