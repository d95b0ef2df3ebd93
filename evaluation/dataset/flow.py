"""Transformers that match flows: Flux.1 and Stable Diffusion 3, as customization needs them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from evaluation.dataset.generator import Condition, Generator
from evaluation.dataset.settings import Method

if TYPE_CHECKING:
    import torch

__all__ = ["FlowGenerator", "is_flow"]

_PACKED = 4
"""Channels of Flux for one of a latent: two by two of them are one token."""


def is_flow(pipe: Any) -> bool:  # noqa: ANN401 (diffusers)
    """Whether it is one of these two, made for text alone (no fill, control or edit)."""
    transformer = getattr(pipe, "transformer", None)
    if transformer is None:
        return False
    latent = int(pipe.vae.config.latent_channels)
    channels = {"FluxPipeline": _PACKED * latent, "StableDiffusion3Pipeline": latent}
    return channels.get(type(pipe).__name__) == int(transformer.config.in_channels)


class FlowGenerator(Generator):
    """Flux.1 or Stable Diffusion 3; only LoRA is known to them.

    The loss is that of rectified flows with time steps of the logit-normal density (Esser et al.,
    ICML 2024, sections 3 and 3.1), unweighted, as in the training scripts of diffusers.
    """

    def _denoiser(self) -> Any:  # noqa: ANN401 (diffusers)
        return self.pipe.transformer

    def _latent_size(self) -> int:
        if self._is_flux:
            # Its transformer is of any size: the autoencoder says for what it was made.
            return int(self.pipe.vae.config.sample_size) // int(self.pipe.vae_scale_factor)
        return int(self.pipe.transformer.config.sample_size)

    @property
    def methods(self) -> tuple[Method, ...]:
        """How it can be customized."""
        return ("lora",)

    def passes(self, guidance: float) -> int:
        """How many images the denoiser is given for one that is made; Flux is told the guidance."""
        return 1 if self._is_flux else super().passes(guidance)

    @property
    def _is_flux(self) -> bool:
        return type(self.pipe).__name__ == "FluxPipeline"

    def encode(self, prompts: Sequence[str]) -> Condition:
        """What the denoiser is told; gradients reach the embeddings of words."""
        if self._is_flux:
            hidden, pooled, _ = self.pipe.encode_prompt(list(prompts), None, device=self.device)
        else:
            hidden, _, pooled, _ = self.pipe.encode_prompt(
                list(prompts), None, None, device=self.device, do_classifier_free_guidance=False
            )
        return Condition(hidden, pooled)

    def loss(
        self,
        latents: torch.Tensor,
        condition: Condition,
        noise: torch.Generator,
        seen: torch.Tensor,
    ) -> torch.Tensor:
        """(images,) mean squared error of the velocity at one random time an image.

        `seen`: (images, 1, height, width) of latents, 1 where the error counts, else 0.
        """
        import torch

        schedule = self._schedule()
        steps = int(schedule.config.num_train_timesteps)
        eps = torch.randn(latents.shape, generator=noise).to(self.device)
        density = torch.sigmoid(torch.randn((len(latents),), generator=noise))
        places = (density * steps).long().clamp(max=steps - 1)
        share = schedule.sigmas[places].to(self.device)[:, None, None, None]
        times = schedule.timesteps[places].to(self.device)
        noisy = (1 - share) * latents + share * eps
        predicted = self._velocity(noisy, times / steps, times, condition)
        target = eps - latents
        errors = ((predicted - target) ** 2).mean(dim=1, keepdim=True) * seen
        mean: torch.Tensor = errors.sum(dim=(1, 2, 3)) / seen.sum(dim=(1, 2, 3))
        return mean

    def _velocity(
        self,
        noisy: torch.Tensor,
        shares: torch.Tensor,
        times: torch.Tensor,
        condition: Condition,
    ) -> torch.Tensor:
        """(images, channels, height, width), as predicted."""
        import torch

        told = {
            "encoder_hidden_states": condition.hidden,
            "pooled_projections": condition.pooled,
            "return_dict": False,
        }
        if not self._is_flux:
            predicted: torch.Tensor = self.denoiser(hidden_states=noisy, timestep=times, **told)[0]
            return predicted
        pipe, count = self.pipe, len(noisy)
        half = self.latent_size // 2
        if self.denoiser.config.guidance_embeds:
            told["guidance"] = torch.ones((count,), device=self.device)
        packed = self.denoiser(
            hidden_states=pipe._pack_latents(noisy, *noisy.shape),
            timestep=shares,
            img_ids=pipe._prepare_latent_image_ids(count, half, half, self.device, noisy.dtype),
            txt_ids=torch.zeros((condition.hidden.shape[1], 3), device=self.device),
            **told,
        )[0]
        scale = int(pipe.vae_scale_factor)
        whole: torch.Tensor = pipe._unpack_latents(packed, self.size, self.size, scale)
        return whole

    def _schedule(self) -> Any:  # noqa: ANN401 (diffusers)
        from diffusers import FlowMatchEulerDiscreteScheduler

        if not hasattr(self, "_noise_schedule"):
            # One of its own: sampling changes the pipeline's.
            self._noise_schedule = FlowMatchEulerDiscreteScheduler.from_config(  # type: ignore[no-untyped-call]
                self.pipe.scheduler.config
            )
        return self._noise_schedule
