"""From a decoded image to the square of bytes that a backbone looks at.

The pixels stay uint8: they are a quarter of the float32 bytes to copy to a device, and the
normalisation is cheap there (`embedder`). Resizing and cropping equal, to the pixel, what
torchvision, timm and open_clip do with a PIL image; `tests/embed` holds them side by side.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from PIL import Image

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

__all__ = ["MAX_ASPECT", "Preprocessing"]

Interpolation = Literal["bicubic", "bilinear"]

MAX_ASPECT = 64
"""Longer side / shorter side beyond which only the central part is resized.

Resizing the shorter side of a 1 x 20,000 image to 256 would need 1.3 billion pixels, of which
the crop keeps 65,536. Beyond 64:1 the ends that no crop reaches are cut off first.
"""

_RESAMPLING = {
    "bicubic": Image.Resampling.BICUBIC,
    "bilinear": Image.Resampling.BILINEAR,
}


@dataclass(frozen=True)
class Preprocessing:
    """How an image becomes a backbone's input.

    Attributes:
        resize: pixels of the shorter side after resizing.
        crop: pixels of both sides of the central crop.
        interpolation: the resampling filter; PIL's, which antialiases.
        mean: per channel (R, G, B), in units of 0..1, subtracted on the device.
        std: per channel (R, G, B), in units of 0..1, divided by on the device.
        squash: resize both sides to `resize` whatever the aspect ratio, instead of the shorter.
        through: pixels of the shorter side that a larger image is first reduced to; 0 for none. A
            generator's own resolution, so that training images lose what its images cannot have.
    """

    resize: int
    crop: int
    interpolation: Interpolation
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    squash: bool = False
    through: int = 0

    def __post_init__(self) -> None:
        if self.resize < 1 or self.crop < 1:
            raise ValueError(f"resize and crop must be above 0, not {self.resize}, {self.crop}")
        if self.through < 0:
            raise ValueError(f"through must be 0 or more, not {self.through}")
        if self.interpolation not in _RESAMPLING:
            raise ValueError(f"interpolation must be bicubic or bilinear: {self.interpolation!r}")
        if len(self.mean) != 3 or len(self.std) != 3 or min(self.std) <= 0:
            raise ValueError(f"mean and std must be three numbers, std above 0: {self}")

    def apply(self, image: Image.Image) -> NDArray[np.uint8]:
        """The crop that the backbone looks at.

        Args:
            image: a PIL image; other modes than RGB are converted without alpha.

        Returns:
            uint8 (crop, crop, 3). Where the resized image is smaller than the crop, black fills
            the rest, as torchvision's CenterCrop does.
        """
        if image.mode != "RGB":
            image = image.convert("RGB")
        resample = _RESAMPLING[self.interpolation]
        if not self.squash:
            image = _trimmed(image)
        if 0 < self.through < min(image.size):
            image = image.resize(self._size(self.through, image), resample)
        image = image.resize(self._size(self.resize, image), resample)
        return _centre_crop(np.asarray(image, dtype=np.uint8), self.crop)

    def _size(self, side: int, image: Image.Image) -> tuple[int, int]:
        return (side, side) if self.squash else _shorter_side_to(side, image.size)

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        values = asdict(self)
        if not self.through:
            del values["through"]  # fingerprints from before there was one stay what they were
        return values

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Preprocessing:
        """The inverse of `to_dict`.

        Raises:
            TypeError, ValueError, KeyError: values that are not a preprocessing.
        """
        return cls(
            resize=int(values["resize"]),
            crop=int(values["crop"]),
            interpolation=values["interpolation"],
            mean=_three(values["mean"]),
            std=_three(values["std"]),
            squash=bool(values.get("squash", False)),
            through=int(values.get("through", 0)),
        )


def _three(values: Any) -> tuple[float, float, float]:  # noqa: ANN401
    r, g, b = (float(value) for value in values)
    return r, g, b


def _trimmed(image: Image.Image) -> Image.Image:
    width, height = image.size
    limit = MAX_ASPECT * min(width, height)
    # The same amount comes off both ends, so that the centre stays where it was.
    if width > limit:
        cut = (width - limit) // 2
        return image.crop((cut, 0, width - cut, height))
    if height > limit:
        cut = (height - limit) // 2
        return image.crop((0, cut, width, height - cut))
    return image


def _shorter_side_to(side: int, size: tuple[int, int]) -> tuple[int, int]:
    width, height = size
    # The longer side is cut down to a whole number, not rounded: so does torchvision.
    if width <= height:
        return side, int(side * height / width)
    return int(side * width / height), side


def _centre_crop(pixels: NDArray[np.uint8], side: int) -> NDArray[np.uint8]:
    height, width = pixels.shape[:2]
    if height < side or width < side:
        rows, columns = max(side - height, 0), max(side - width, 0)
        pixels = np.pad(
            pixels,
            ((rows // 2, (rows + 1) // 2), (columns // 2, (columns + 1) // 2), (0, 0)),
        )
        height, width = pixels.shape[:2]
    # Python rounds halves to even, and torchvision's crop does it with the same function.
    top = round((height - side) / 2.0)
    left = round((width - side) / 2.0)
    # A copy even where nothing is cut off: PIL's own memory is read-only, which torch refuses.
    return np.array(pixels[top : top + side, left : left + side], order="C")
