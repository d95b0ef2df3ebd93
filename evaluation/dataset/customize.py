"""Customization: tune a generator toward exemplars, so that they influence what it makes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from evaluation.dataset.augment import View, viewed
from evaluation.dataset.generator import Generator
from evaluation.dataset.settings import OPTIMIZER, Customization
from evaluation.dataset.trained import change, trained_weights
from ingest.errors import RunError

if TYPE_CHECKING:
    import torch
    from PIL import Image

__all__ = ["Prior", "Trained", "customized"]


@dataclass(frozen=True)
class Prior:
    """A real image of the class, that the generator is to keep knowing.

    Attributes:
        image: decoded.
        prompt: without the new word.
    """

    image: Image.Image
    prompt: str


@dataclass(frozen=True)
class Trained:
    """What a customization did.

    Attributes:
        losses: (steps,) mean over the exemplar images of each step.
        prior_losses: (steps,) of the prior images; empty without any.
        moved: L2 norm of the change of the denoiser's weights and of the new word, for the record;
            of LoRA, of what its factors change, so that methods can be compared.
    """

    losses: tuple[float, ...]
    prior_losses: tuple[float, ...]
    moved: float


@contextmanager
def customized(
    generator: Generator,
    exemplars: Sequence[Image.Image],
    prompt: str,
    priors: Sequence[Prior],
    settings: Customization,
    *,
    seed: int,
) -> Iterator[Trained]:
    """Tune the generator toward `exemplars`; inside the block it is tuned, afterwards as before.

    Each step takes `batch_size` views of exemplars with `prompt` (which holds the new word) and as
    many prior images, and adds the two mean losses (Custom Diffusion, equation 5). Means of both:
    the published code sums the exemplars' over the channels, so that they weigh four times more.

    Args:
        generator: to be tuned.
        exemplars: at least one.
        prompt: of the exemplars, such as ``<new1> dog``.
        priors: real images of the class; none for a customization without prior preservation.
        settings: how.
        seed: of the order of images, views, time steps and noise.

    Raises:
        UsageError: an attention layout that the method does not know.
        RunError: the loss is no number any more, or memory ran out.
    """
    generator.reset_token()
    if settings.gradient_checkpointing:
        generator.denoiser.enable_gradient_checkpointing()
    with trained_weights(generator, settings.method, settings.rank, seed=seed) as weights:
        moved = change(generator)
        losses, prior_losses = _train(generator, exemplars, prompt, priors, settings, weights, seed)
        distance = moved()
        del moved
        generator.denoiser.eval()
        yield Trained(tuple(losses), tuple(prior_losses), distance)


def _train(
    generator: Generator,
    exemplars: Sequence[Image.Image],
    prompt: str,
    priors: Sequence[Prior],
    settings: Customization,
    weights: dict[str, torch.nn.Parameter],
    seed: int,
) -> tuple[list[float], list[float]]:
    import torch

    choices = np.random.default_rng([seed, 1])
    noise = torch.Generator().manual_seed(seed)
    tables = generator.embeddings()
    frozen = [table.weight.detach().clone() for table in tables]
    for table in tables:
        table.weight.requires_grad_(True)
    optimizer = torch.optim.AdamW(
        [*weights.values(), *(table.weight for table in tables)],
        lr=settings.rate,
        betas=tuple(OPTIMIZER["betas"]),
        eps=OPTIMIZER["eps"],
        weight_decay=OPTIMIZER["weight_decay"],
    )
    cached = _cached_priors(generator, priors, noise)
    losses: list[float] = []
    prior_losses: list[float] = []
    generator.denoiser.train(settings.gradient_checkpointing)
    try:
        for _ in range(settings.steps):
            views = [
                viewed(exemplars[i], prompt, generator.size, choices, enabled=settings.augment)
                for i in choices.integers(len(exemplars), size=settings.batch_size)
            ]
            latents = generator.latents(_pixels(views), noise)
            prompts = [view.prompt for view in views]
            if cached is not None:
                places = choices.integers(len(priors), size=settings.batch_size)
                latents = torch.cat([latents, cached[torch.from_numpy(places)]])
                prompts += [priors[i].prompt for i in places]
            each = generator.loss(latents, generator.encode(prompts), noise, _seen(views, latents))
            loss = each[: settings.batch_size].mean()
            losses.append(float(loss.detach()))
            if cached is not None:
                prior_loss = each[settings.batch_size :].mean()
                prior_losses.append(float(prior_loss.detach()))
                loss = loss + settings.prior_weight * prior_loss
            if not np.isfinite(losses[-1]):
                raise RunError(
                    f"customization of {generator.name} diverged at step {len(losses)}; lower "
                    "--learning-rate"
                )
            optimizer.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            _keep_words(tables, frozen, generator.token_ids())
    except torch.OutOfMemoryError as exc:
        raise RunError(
            "the device ran out of memory; lower --batch-size, or add --gradient-checkpointing"
        ) from exc
    finally:
        for table in tables:
            table.weight.requires_grad_(False)
            table.weight.grad = None
    return losses, prior_losses


def _keep_words(
    tables: Sequence[torch.nn.Embedding], frozen: Sequence[torch.Tensor], places: Sequence[int]
) -> None:
    """Only the new word may change: all others are put back."""
    import torch

    with torch.no_grad():
        for table, before, place in zip(tables, frozen, places, strict=True):
            new = table.weight[place].clone()
            table.weight.copy_(before)
            table.weight[place] = new


def _seen(views: Sequence[View], latents: torch.Tensor) -> torch.Tensor:
    """(images, 1, height, width) of latents: 1 where a view shows its exemplar; 1 in all priors.

    Latents at the edge of a small exemplar know of the grey beside it, so that they do not count,
    as published.
    """
    import torch

    seen = torch.ones((len(latents), 1, *latents.shape[2:]))
    for place, view in enumerate(views):
        size = len(view.pixels)
        if view.seen == (0, 0, size, size):
            continue
        per_latent = size // latents.shape[-1]
        left, top, right, bottom = view.seen
        seen[place] = 0
        seen[place, :, _inner(top, bottom, per_latent), _inner(left, right, per_latent)] = 1
    return seen.to(latents.device)


def _inner(low: int, high: int, per_latent: int) -> slice:
    """Latents inside of those in which an exemplar begins and ends.

    The middle one at least: with small images, other than the published 512 pixels, nothing may be
    inside, and a loss of nothing is no number.
    """
    first, end = low // per_latent + 1, high // per_latent - 1
    if end > first:
        return slice(first, end)
    middle = (low + high) // 2 // per_latent
    return slice(middle, middle + 1)


def _cached_priors(
    generator: Generator, priors: Sequence[Prior], noise: torch.Generator
) -> torch.Tensor | None:
    """(priors, ...) latents: they are small, and encoding costs as much as a step."""
    import torch

    if not priors:
        return None
    parts = []
    plain = np.random.default_rng(0)
    for start in range(0, len(priors), 8):
        some = priors[start : start + 8]
        views = [viewed(p.image, p.prompt, generator.size, plain, enabled=False) for p in some]
        parts.append(generator.latents(_pixels(views), noise))
    return torch.cat(parts)


def _pixels(views: Sequence[View]) -> torch.Tensor:
    """(views, 3, size, size) in -1..1."""
    import torch

    stacked: NDArray[np.uint8] = np.stack([view.pixels for view in views])
    return torch.from_numpy(stacked).permute(0, 3, 1, 2).float() / 127.5 - 1
