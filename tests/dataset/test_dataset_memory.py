"""The estimate of memory, and what is said when there is too little."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from evaluation.dataset.generator import Generator
from evaluation.dataset.memory import check_memory, free_bytes, measured
from evaluation.dataset.settings import Customization
from evaluation.dataset.trained import cross_attention, trained_weights
from ingest.errors import RunError


def test_what_is_trained_is_counted(generator: Generator) -> None:
    found = measured(generator)
    assert found.weights["full"] == sum(w.numel() for w in generator.denoiser.parameters())
    cross = cross_attention(generator).values()
    assert found.weights["custom-diffusion"] == sum(w.numel() for w in cross)
    with trained_weights(generator, "lora", 3, seed=0) as weights:
        assert 3 * found.weights["lora"] == sum(w.numel() for w in weights.values())
    assert found.words == generator.embeddings()[0].weight.numel()


def test_activations_are_about_what_autograd_keeps(generator: Generator) -> None:
    """The estimate beside the bytes that a real step saves for its way back."""
    kept: dict[int, int] = {}

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    weights = {w.untyped_storage().data_ptr() for w in generator.denoiser.parameters()}
    latents = torch.zeros(1, 4, 8, 8)
    prompt = generator.encode(["cat"])
    with (
        trained_weights(generator, "full", 1, seed=0),
        torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor),
    ):
        loss = generator.loss(latents, prompt, torch.Generator(), torch.ones(1, 1, 8, 8))
    assert loss.requires_grad
    real = sum(size for place, size in kept.items() if place not in weights)
    found = measured(generator)
    assert 0.5 * real < found.activations < 2 * real
    assert found.checkpoints < found.activations


def test_the_bytes_by_hand(generator: Generator) -> None:
    found = measured(generator)
    settings = Customization(method="lora", rank=2, batch_size=3)
    numbers = 5 * (2 * found.weights["lora"] + found.words)
    by_hand = 1.1 * (4 * numbers + 3 * found.activations)
    assert found.needed(settings, priors=False) == pytest.approx(by_hand, abs=1)
    more = found.needed(settings, priors=True) - found.needed(settings, priors=False)
    assert more == pytest.approx(1.1 * 3 * found.activations, abs=2)


def test_too_little_memory_says_what_would_fit(generator: Generator) -> None:
    found = measured(generator)
    full = Customization(method="full", batch_size=4)

    def free_for(**others: object) -> int:
        return found.needed(replace(full, **others), priors=True)  # type: ignore[arg-type]

    check_memory(generator, full, priors=True, free=free_for())
    for free, fits in (
        (free_for() - 1, "--method lora would fit"),
        (
            free_for(gradient_checkpointing=True, batch_size=2),
            "--gradient-checkpointing --batch-size 2 would fit",
        ),
        (
            free_for(method="lora", gradient_checkpointing=True, batch_size=2),
            "--method lora --gradient-checkpointing --batch-size 2 would fit",
        ),
        (1000, "nothing here would fit: take a smaller generator"),
    ):
        with pytest.raises(RunError) as caught:
            check_memory(generator, full, priors=True, free=free)
        assert str(caught.value).startswith(f"customizing {generator.name} needs about ")
        assert str(caught.value).endswith(f" free; {fits}")


def test_free_memory_is_what_the_machine_says() -> None:
    free = free_bytes(torch.device("cpu"))
    assert free is not None
    assert 1 << 20 < free < 1 << 50
    assert free_bytes(torch.device("meta")) is None
