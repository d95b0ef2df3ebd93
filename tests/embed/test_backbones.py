from __future__ import annotations

import json
import subprocess
import sys

import pytest

from embed.backbones import BACKBONES, DEFAULT_BACKBONE, Backbone, resolve
from ingest.errors import ModelError, UnknownModelError

DIMS = {
    "efficientnet-lite0": 1280,
    "efficientnet-lite0-stages": 1904,
    "efficientnet-lite0-stages-48px": 1904,
    "dino-vitb16": 768,
    "clip-vitb32": 512,
    "vit-b16-384": 768,
    "mocov3-vitb16": 768,
    "sscd-disc-mixup": 512,
    "csd-vitl14": 768,
    "dinov2-vitb14": 768,
    "dinov3-vitb16": 768,
    "siglip2-b16": 768,
}


def test_the_named_backbones() -> None:
    assert {name: backbone.dim for name, backbone in BACKBONES.items()} == DIMS
    assert next(iter(BACKBONES)) == DEFAULT_BACKBONE
    for name, backbone in BACKBONES.items():
        assert resolve(name) is backbone
        assert backbone.licence
        assert backbone.about
        assert backbone.weights_source
        assert backbone.weights_file


@pytest.mark.parametrize(
    ("typed", "text"),
    [
        (
            "clip-vitb23",
            "unknown model 'clip-vitb23'; did you mean 'clip-vitb32'? "
            "`attrib models list` shows all",
        ),
        ("zzz", "unknown model 'zzz'; `attrib models list` shows all"),
        ("timm:", "unknown model 'timm:'; `attrib models list` shows all"),
        (
            "timm:vit_base_patch16_224.dina",
            "unknown model 'timm:vit_base_patch16_224.dina'; did you mean "
            "'timm:vit_base_patch16_224.dino'? `attrib models list` shows all",
        ),
        (
            "open_clip:ViT-B-32/openia",
            "unknown model 'open_clip:ViT-B-32/openia'; did you mean "
            "'open_clip:ViT-B-32/openai'? `attrib models list` shows all",
        ),
        (
            "open_clip:ViT-B-32",
            "unknown model 'open_clip:ViT-B-32'; did you mean "
            "'open_clip:ViT-B-32/openai'? `attrib models list` shows all",
        ),
    ],
)
def test_typos(typed: str, text: str) -> None:
    with pytest.raises(UnknownModelError) as caught:
        resolve(typed)
    assert str(caught.value) == text


@pytest.mark.parametrize(
    ("name", "dim", "resize", "crop"),
    [
        ("timm:resnet18.a1_in1k", 512, 235, 224),
        ("timm:mobilenetv3_small_100", 1024, 256, 224),
        ("open_clip:ViT-B-16/laion2b_s34b_b88k", 512, 224, 224),
    ],
)
def test_others_by_their_own_configuration(name: str, dim: int, resize: int, crop: int) -> None:
    backbone = resolve(name)
    assert (backbone.name, backbone.dim) == (name, dim)
    assert (backbone.preprocessing.resize, backbone.preprocessing.crop) == (resize, crop)
    assert Backbone.from_dict(json.loads(json.dumps(backbone.to_dict()))) == backbone


@pytest.mark.parametrize("backbone", BACKBONES.values(), ids=lambda b: b.name)
def test_round_trip(backbone: Backbone) -> None:
    assert Backbone.from_dict(json.loads(json.dumps(backbone.to_dict()))) == backbone


@pytest.mark.parametrize("named", ["clip-vitb32", "siglip2-b16"])
def test_named_ones_agree_with_open_clips_configuration(named: str) -> None:
    backbone = BACKBONES[named]
    own = resolve(f"open_clip:{backbone.architecture}/{backbone.revision}")
    assert own.preprocessing == backbone.preprocessing
    assert own.dim == backbone.dim
    assert own.weights_source == backbone.weights_source


def test_descriptions_of_nothing() -> None:
    values = BACKBONES["dino-vitb16"].to_dict()
    for change in ({"family": "caffe"}, {"dim": 0}, {"preprocessing": 3}, {"options": None}):
        with pytest.raises(ModelError, match=r"^not the description of a backbone: "):
            Backbone.from_dict({**values, **change})


def test_describing_needs_no_torch() -> None:
    code = (
        "import sys, embed.backbones, embed.model, embed.mapper, embed.registry;"
        "print(sorted({'torch', 'timm', 'open_clip', 'torchvision'} & set(sys.modules)))"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout == "[]\n"
