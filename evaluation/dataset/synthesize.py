"""Images of a (customized) generator, each with noise of its own seed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from evaluation.dataset.generator import Generator
from evaluation.dataset.settings import Sampling
from ingest.errors import RunError

if TYPE_CHECKING:
    from PIL import Image

__all__ = ["synthesized"]


def synthesized(
    generator: Generator, prompts: Sequence[str], seeds: Sequence[int], settings: Sampling
) -> Iterator[Image.Image]:
    """One image a prompt, in order, `settings.batch_size` at a time.

    `seeds`: (prompts,) of the initial noise, drawn on the CPU, so that they mean the same anywhere.

    Raises:
        RunError: memory ran out.
    """
    import torch

    for start in range(0, len(prompts), settings.batch_size):
        some = slice(start, start + settings.batch_size)
        noises = [torch.Generator().manual_seed(seed) for seed in seeds[some]]
        try:
            with torch.no_grad():
                made = generator.pipe(
                    prompt=list(prompts[some]),
                    num_inference_steps=settings.steps,
                    guidance_scale=settings.guidance,
                    height=generator.size,
                    width=generator.size,
                    generator=noises,
                    output_type="pil",
                ).images
        except torch.OutOfMemoryError as exc:
            raise RunError(
                f"the device ran out of memory while {generator.name} made images; lower "
                "--sampling-batch, or take a larger device"
            ) from exc
        yield from made
