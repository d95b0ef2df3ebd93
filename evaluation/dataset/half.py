"""A denoiser that computes in bfloat16 and takes and gives float32, as all around it expects."""

from __future__ import annotations

from functools import wraps
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

__all__ = ["compute_in_half"]


def compute_in_half(denoiser: torch.nn.Module, device: str, *, weights: bool) -> None:
    """Let a denoiser run under bfloat16 autocast wherever it is called: by training or a pipeline.

    Text encoders and the autoencoder stay in float32: they cost little, and the rounding of an
    autoencoder is seen in its images.

    Args:
        denoiser: to be changed.
        device: ``cuda``, or ``cpu``.
        weights: whether its own weights become bfloat16, which makes training them worse than
            training adapters beside them.
    """
    import torch

    if weights:
        denoiser.to(torch.bfloat16)
    plain = denoiser.forward

    @wraps(plain)  # pipelines look at the names of its arguments
    def forward(*args: Any, **named: Any) -> Any:  # noqa: ANN401 (diffusers)
        with torch.autocast(device, torch.bfloat16):
            return _single(plain(*args, **named))

    denoiser.forward = forward


def _single(output: Any) -> Any:  # noqa: ANN401 (what a denoiser gives)
    """In float32: schedulers go on in the precision of what they get."""
    if isinstance(output, tuple):
        return (output[0].float(), *output[1:])
    output.sample = output.sample.float()
    return output
