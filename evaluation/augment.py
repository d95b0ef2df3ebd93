"""Images varied as a generator would vary them: what self-calibration takes for generated ones.

A generated image that owes most to one training image shows its content in another frame, other
colours and other sharpness, never its pixels. Here: another crop, mirrored or not, other colours,
some blur, a size between 64 and 128 pixels and back up, and the traces of a JPEG.
"""

from __future__ import annotations

from io import BytesIO
from typing import TYPE_CHECKING

from ingest.decode import decode

if TYPE_CHECKING:
    from PIL import Image

__all__ = ["augmented"]

SIDE = 256
"""Pixels of an augmented image's sides."""

SMALLEST, LARGEST = 64, 128
"""Pixels of the sides that it was scaled down to."""


def augmented(image: Image.Image, seed: int) -> Image.Image:
    """A variation of an image, the same for the same seed whatever was drawn before.

    Args:
        image: mode RGB.
        seed: 0 .. 2**63 - 1.

    Returns:
        Mode RGB, `SIDE` x `SIDE` pixels.
    """
    import torch
    from torchvision.transforms import InterpolationMode, v2

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        side = int(torch.randint(SMALLEST, LARGEST + 1, ()))
        quality = int(torch.randint(50, 96, ()))
        vary = v2.Compose(
            [
                v2.RandomResizedCrop(
                    2 * side, scale=(0.5, 1.0), interpolation=InterpolationMode.BICUBIC
                ),
                v2.RandomHorizontalFlip(),
                v2.ColorJitter(brightness=0.3, contrast=0.3, saturation=0.4, hue=0.04),
                v2.RandomApply([v2.GaussianBlur(5, sigma=(0.1, 2.0))], p=0.5),
                v2.Resize((side, side), InterpolationMode.BICUBIC),
            ]
        )
        small = vary(image)
        buffer = BytesIO()
        small.save(buffer, "JPEG", quality=quality)
        large = v2.functional.resize(
            decode(buffer.getvalue()).image, [SIDE, SIDE], InterpolationMode.BICUBIC
        )
    result: Image.Image = large
    return result
