"""From pixels to base features on a device."""

from __future__ import annotations

import contextlib
import os
from concurrent.futures import ThreadPoolExecutor
from math import ceil
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np

from embed.allocator import keep_memory
from embed.families import load_module
from ingest.errors import UsageError, WeightsError

if TYPE_CHECKING:
    import torch
    from numpy.typing import NDArray

    from embed.backbones import Backbone

__all__ = ["Embedder", "Precision"]

Precision = Literal["auto", "fp32", "bf16", "fp16"]

_CPU_PART = 4
"""Images that a core embeds at once: more do not fit its caches (see benchmarks/README.md)."""


class Embedder:
    """A backbone on a device, ready to embed batches.

    Attributes:
        backbone: what it is.
        device: `cpu`, `cuda:0`, ...
        precision: what `auto` became: fp32, bf16 or fp16.
        weights_hash: sha256 over the loaded tensors (`embed.weights.tensor_hash`).
    """

    def __init__(
        self,
        backbone: Backbone,
        *,
        device: str | None = None,
        precision: Precision = "auto",
        threads: int | None = None,
    ) -> None:
        """Load the weights onto the device.

        Args:
            backbone: from `embed.backbones.resolve`.
            device: a device of PyTorch; the first GPU, or else the CPU, when None.
            precision: `auto` is fp16 on CUDA and fp32 elsewhere.
            threads: parts of a batch that are embedded at once on a CPU; as many as there are
                cores when None. PyTorch itself is set to one thread, for the whole process.

        Raises:
            UsageError: a device or precision that is not there.
            WeightsError: weights that are missing, damaged or of another network.
        """
        import torch

        if threads is not None and threads < 1:
            raise UsageError(f"threads must be 1 or more, not {threads}")
        self.backbone = backbone
        self._device = _device(device)
        self._pool: ThreadPoolExecutor | None = None
        if self._device.type == "cpu":
            # One thread an operator, and as many parts of the batch at once as there are cores:
            # cores that meet at the end of every operator wait for each other, by spinning, and
            # whatever else runs (decoding, the index) makes all of them wait.
            torch.set_num_threads(1)
            keep_memory()
            self._pool = ThreadPoolExecutor(
                threads or os.cpu_count() or 1,
                thread_name_prefix="attrib-embed",
                initializer=torch.set_num_threads,
                initargs=(1,),
            )
        self.device = str(self._device)
        self.precision = _precision(precision, self._device)
        module, self.weights_hash = load_module(backbone)
        # Convolutions run faster with the channels innermost, on both kinds of device.
        self._format = torch.channels_last if _is_convolutional(module) else torch.contiguous_format
        module = module.to(self._device)
        self._module = module.to(memory_format=self._format)
        statistics = (backbone.preprocessing.mean, backbone.preprocessing.std)
        self._mean, self._std = (
            torch.tensor(values, device=self._device).view(1, 3, 1, 1) for values in statistics
        )

    @property
    def dim(self) -> int:
        """Length of a base feature."""
        return self.backbone.dim

    def embed(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Base features of a batch, not normalised.

        A GPU gets the whole batch at once, a CPU parts of it side by side. The feature of an
        image does not depend on what else is in its batch, but for the last bits of rounding.

        Args:
            pixels: uint8 (n, crop, crop, 3), from `Preprocessing.apply`.

        Returns:
            float32 (n, dim).

        Raises:
            ValueError: pixels of another type or shape.
            WeightsError: features that are not finite, or of another length than `dim`.
        """
        crop = self.backbone.preprocessing.crop
        if pixels.dtype != np.uint8 or pixels.ndim != 4 or pixels.shape[1:] != (crop, crop, 3):
            raise ValueError(
                f"pixels must be uint8 (n, {crop}, {crop}, 3), not {pixels.dtype} {pixels.shape}"
            )
        if not len(pixels):
            return np.zeros((0, self.dim), dtype=np.float32)
        if min(pixels.strides) < 0:  # torch takes no reversed array, not even one of one image
            pixels = pixels.copy()
        if self._pool is None or len(pixels) == 1:
            result = self._forward(pixels)
        else:
            parts = np.array_split(pixels, _cpu_parts(len(pixels)))
            result = np.concatenate(list(self._pool.map(self._forward, parts)))
        if result.shape != (len(pixels), self.dim):
            raise WeightsError(
                f"{self.backbone.name} gave features {result.shape[1:]}, not ({self.dim},)"
            )
        if not np.isfinite(result).all():
            raise WeightsError(
                f"{self.backbone.name} gave features that are not finite at {self.precision}"
                + ("" if self.precision == "fp32" else "; use --precision fp32")
            )
        return result

    def _forward(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        import torch

        with torch.inference_mode(), self._autocast():  # both are a thread's own
            features = self._module(self._images(pixels))
            if isinstance(features, tuple):
                features = features[0]
            result: NDArray[np.float32] = features.float().cpu().numpy()
        return result

    def _images(self, pixels: NDArray[np.uint8]) -> torch.Tensor:
        """Normalised images (n, 3, crop, crop) on the device: ToTensor and Normalize."""
        import torch

        # torch takes no read-only memory (a memory map, a slice of a PIL image).
        batch = torch.from_numpy(np.require(pixels, requirements=["C", "W"]))
        if self._device.type == "cuda":
            # From pinned memory the one copy of the batch runs beside the CPU's next work.
            batch = batch.pin_memory()
        batch = batch.to(self._device, non_blocking=True)
        # (n, h, w, 3) seen as (n, 3, h, w) is channels_last as it stands.
        images = batch.permute(0, 3, 1, 2).float().div_(255).sub_(self._mean).div_(self._std)
        return images.contiguous(memory_format=self._format)

    def _autocast(self) -> Any:  # noqa: ANN401
        import torch

        if self.precision == "fp32":
            return contextlib.nullcontext()
        dtype = torch.bfloat16 if self.precision == "bf16" else torch.float16
        return torch.autocast(self._device.type, dtype=dtype)


def _cpu_parts(n: int) -> int:
    """How many parts a batch of n is embedded in: an even number, as alike as can be.

    By n alone: on another number of cores the features are the same, to the last bit.
    """
    return min(n, 2 * ceil(n / (2 * _CPU_PART)))


def _device(name: str | None) -> torch.device:
    import torch

    if name is None:
        return torch.device("cuda:0" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as exc:
        raise UsageError(f"device '{name}' is not available; `--device cpu` always is") from exc
    return device


def _precision(wanted: str, device: torch.device) -> str:
    if wanted not in get_args(Precision):
        raise UsageError(f"unknown precision '{wanted}'; one of {', '.join(get_args(Precision))}")
    if wanted == "auto":
        return "fp16" if device.type == "cuda" else "fp32"
    return wanted


def _is_convolutional(module: torch.nn.Module) -> bool:
    from torch import nn

    convolutions = sum(isinstance(part, nn.Conv2d) for part in module.modules())
    return convolutions > 1  # a vision transformer has one: its patch embedding
