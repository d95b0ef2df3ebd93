"""Images varied as a generator would vary them: what self-calibration takes for generated ones.

A generated image that owes most to one training image shows its content in another frame, other
colours and other sharpness, never its pixels. Here: another crop, mirrored or not, other colours,
some blur, a small size and back up, noise where it is asked for, and the traces of a JPEG.
"""

from __future__ import annotations

from dataclasses import dataclass
from io import BytesIO
from typing import TYPE_CHECKING

import numpy as np

from ingest.decode import decode

if TYPE_CHECKING:
    from PIL import Image

__all__ = ["GENERATED", "SIDE", "STRONG", "Variation", "augmented"]

SIDE = 256
"""Pixels of an augmented image's sides."""


@dataclass(frozen=True)
class Variation:
    """How far from its original a variation may be.

    Attributes:
        smallest, largest: pixels of the sides that it was scaled down to.
        crop: least share of the area that is kept, 0..1.
        colour: up to how much brightness and contrast are changed, 0..1; saturation a third more,
            hue by up to two fifteenths of it.
        blurred: share of the images that are blurred.
        noise: standard deviation of what is added to each pixel of the small image, of 255.
    """

    smallest: int
    largest: int
    crop: float
    colour: float
    blurred: float
    noise: float


GENERATED = Variation(smallest=24, largest=32, crop=0.2, colour=0.5, blurred=1, noise=12)
"""What self-calibration asks with: by the calibrators that come of it, as far from its original as
a generated image is from its exemplar (docs/attribution-quality.md). Milder ones make it too sure.
"""

STRONG = Variation(smallest=64, largest=64, crop=0.2, colour=0.5, blurred=1, noise=12)
"""Hard enough to tell good attribution models apart."""


def augmented(image: Image.Image, seed: int, variation: Variation = GENERATED) -> Image.Image:
    """A variation of an image, the same for the same seed whatever was drawn before.

    Args:
        image: mode RGB.
        seed: 0 .. 2**63 - 1.
        variation: how strong.

    Returns:
        Mode RGB, `SIDE` x `SIDE` pixels.
    """
    import torch
    from torchvision.transforms import InterpolationMode, v2

    colour = variation.colour
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        side = int(torch.randint(variation.smallest, variation.largest + 1, ()))
        quality = int(torch.randint(50, 96, ()))
        vary = v2.Compose(
            [
                v2.RandomResizedCrop(
                    2 * side, scale=(variation.crop, 1.0), interpolation=InterpolationMode.BICUBIC
                ),
                v2.RandomHorizontalFlip(),
                v2.ColorJitter(
                    brightness=colour, contrast=colour, saturation=4 * colour / 3, hue=colour / 7.5
                ),
                v2.RandomApply([v2.GaussianBlur(5, sigma=(0.1, 2.0))], p=variation.blurred),
                v2.Resize((side, side), InterpolationMode.BICUBIC),
            ]
        )
        small = vary(image)
        if variation.noise:
            small = _noisy(small, variation.noise, seed)
        buffer = BytesIO()
        small.save(buffer, "JPEG", quality=quality)
        large = v2.functional.resize(
            decode(buffer.getvalue()).image, [SIDE, SIDE], InterpolationMode.BICUBIC
        )
    result: Image.Image = large
    return result


def _noisy(image: Image.Image, deviation: float, seed: int) -> Image.Image:
    from PIL import Image

    pixels = np.asarray(image, np.float32)
    noise = np.random.default_rng(seed).normal(0, deviation, pixels.shape)
    return Image.fromarray(np.clip(np.rint(pixels + noise), 0, 255).astype(np.uint8))
