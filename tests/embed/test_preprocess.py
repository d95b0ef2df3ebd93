from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision import transforms
from torchvision.transforms import InterpolationMode

from embed.backbones import BACKBONES, resolve
from embed.preprocess import MAX_ASPECT, Preprocessing

HALF = (0.5, 0.5, 0.5)
FILTERS = {"bicubic": InterpolationMode.BICUBIC, "bilinear": InterpolationMode.BILINEAR}
SIZES = [
    (224, 224),
    (256, 256),
    (1, 1),
    (3, 7),
    (225, 223),
    (301, 1001),
    (1001, 301),
    (640, 427),
    (99, 98),
    (37, 2000),
    (2000, 37),
]


def image(width: int, height: int) -> Image.Image:
    rng = np.random.default_rng(width * 10_007 + height)
    return Image.fromarray(rng.integers(0, 256, (height, width, 3), dtype=np.uint8))


def torchvision_of(p: Preprocessing) -> transforms.Compose:
    size = (p.resize, p.resize) if p.squash else p.resize
    return transforms.Compose(
        [
            transforms.Resize(size, interpolation=FILTERS[p.interpolation]),
            transforms.CenterCrop(p.crop),
        ]
    )


@pytest.mark.parametrize("size", SIZES, ids=lambda s: f"{s[0]}x{s[1]}")
@pytest.mark.parametrize(
    "preprocessing",
    [
        Preprocessing(256, 224, "bicubic", HALF, HALF),
        Preprocessing(256, 224, "bilinear", HALF, HALF),
        Preprocessing(61, 61, "bilinear", HALF, HALF),
        Preprocessing(50, 33, "bicubic", HALF, HALF),
        Preprocessing(40, 63, "bicubic", HALF, HALF),  # a crop larger than the image
        Preprocessing(57, 57, "bicubic", HALF, HALF, squash=True),
    ],
    ids=str,
)
def test_pixels_equal_torchvision(preprocessing: Preprocessing, size: tuple[int, int]) -> None:
    source = image(*size)
    expected = np.asarray(torchvision_of(preprocessing)(source))
    found = preprocessing.apply(source)
    assert found.shape == (preprocessing.crop, preprocessing.crop, 3)
    assert found.dtype == np.uint8
    assert found.flags.c_contiguous
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize(
    "architecture",
    ["tf_efficientnet_lite0", "vit_base_patch16_384.augreg_in21k_ft_in1k", "resnet18.a1_in1k"],
)
def test_pixels_equal_timm(architecture: str) -> None:
    import timm

    backbone = resolve(f"timm:{architecture}")
    config = timm.data.resolve_data_config(pretrained_cfg=_timm_config(architecture))
    reference = timm.data.create_transform(**config)
    for size in ((301, 447), (447, 301), (50, 60)):
        source = image(*size)
        assert_normalised_equal(backbone.preprocessing, source, reference(source))


def _timm_config(architecture: str) -> dict[str, object]:
    import timm

    config = timm.models.get_pretrained_cfg(architecture)
    return dict(config.to_dict())


@pytest.mark.parametrize("name", ["clip-vitb32", "siglip2-b16"])
def test_pixels_equal_open_clip(name: str) -> None:
    import open_clip
    from open_clip.transform import PreprocessCfg, image_transform_v2

    backbone = BACKBONES[name]
    config = open_clip.get_pretrained_cfg(backbone.architecture, backbone.revision)
    keys = ("mean", "std", "interpolation", "resize_mode")
    chosen = {key: config[key] for key in keys}
    reference = image_transform_v2(PreprocessCfg(size=224, **chosen), is_train=False)
    for size in ((301, 447), (447, 301), (50, 60)):
        source = image(*size)
        assert_normalised_equal(backbone.preprocessing, source, reference(source))


def assert_normalised_equal(p: Preprocessing, source: Image.Image, expected: torch.Tensor) -> None:
    pixels = torch.from_numpy(p.apply(source)).permute(2, 0, 1).float()
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (p.mean, p.std))
    torch.testing.assert_close((pixels / 255 - mean) / std, expected, rtol=0, atol=1e-6)


def test_other_modes_become_rgb() -> None:
    p = Preprocessing(8, 8, "bicubic", HALF, HALF)
    grey = Image.new("L", (9, 11), 77)
    np.testing.assert_array_equal(p.apply(grey), np.full((8, 8, 3), 77))
    assert p.apply(Image.new("RGBA", (9, 11), (1, 2, 3, 0)))[0, 0].tolist() == [1, 2, 3]


@pytest.mark.parametrize("size", [(1, 60_001), (60_001, 1), (2, 9_999)])
def test_extreme_aspect_costs_no_memory(size: tuple[int, int]) -> None:
    source = Image.new("RGB", size, (9, 9, 9))
    centre = (size[0] // 2, size[1] // 2)
    source.putpixel(centre, (255, 255, 255))
    found = Preprocessing(256, 224, "bicubic", HALF, HALF).apply(source)
    assert found.shape == (224, 224, 3)
    assert found[112, 112, 0] > 9  # the centre stayed in the middle


def test_aspect_limit_changes_nothing_below_it() -> None:
    p = Preprocessing(16, 16, "bicubic", HALF, HALF)
    source = image(3, 3 * MAX_ASPECT)
    np.testing.assert_array_equal(p.apply(source), np.asarray(torchvision_of(p)(source)))


def test_round_trip() -> None:
    p = Preprocessing(256, 224, "bilinear", (0.1, 0.2, 0.3), (0.4, 0.5, 0.6), squash=True)
    assert Preprocessing.from_dict(p.to_dict()) == p


def test_impossible_values_are_refused() -> None:
    with pytest.raises(ValueError, match=r"^resize and crop must be above 0, not 0, 4$"):
        Preprocessing(0, 4, "bicubic", HALF, HALF)
    with pytest.raises(ValueError, match=r"^interpolation must be bicubic or bilinear: 'box'$"):
        Preprocessing(4, 4, "box", HALF, HALF)  # type: ignore[arg-type]
