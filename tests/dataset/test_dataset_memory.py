"""The estimate of memory, and what is said when there is too little."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from tiny_builds import Build

from evaluation.dataset.free_memory import free_bytes, out_of_memory
from evaluation.dataset.generator import Generator, load_generator
from evaluation.dataset.memory import check_memory, measured
from evaluation.dataset.pipeline import weight_bytes
from evaluation.dataset.settings import BuildSettings, Customization, Sampling
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
    settings = Customization(method="lora", rank=2, batch_size=3, prior_images=0)
    numbers = 5 * (2 * found.weights["lora"] + found.words)
    by_hand = 1.1 * (4 * numbers + 3 * found.activations)
    assert found.needed(settings) == pytest.approx(by_hand, abs=1)
    more = found.needed(replace(settings, prior_images=9)) - found.needed(settings)
    assert more == pytest.approx(1.1 * 3 * found.activations, abs=2)
    kept = 4 * 2 * 2 * found.weights["lora"]
    sampled = 1.1 * (kept + 5 * max(2 * found.denoising, found.decoding))
    assert found.needed_to_sample(settings, 5, 2) == pytest.approx(sampled, abs=1)


def test_too_little_memory_says_what_would_fit(generator: Generator) -> None:
    found = measured(generator)
    full = Customization(method="full", batch_size=4)

    def free_for(**others: object) -> int:
        return found.needed(replace(full, **others))  # type: ignore[arg-type]

    def check(free: int, images: int = 1) -> None:
        settings = BuildSettings(customization=full, sampling=Sampling(batch_size=images))
        check_memory(generator, settings, free=free)

    check(free_for())
    saving = {"gradient_checkpointing": True, "batch_size": 2}
    for free, fits in (
        (free_for() - 1, "--method lora would fit"),
        (free_for(**saving), "--gradient-checkpointing --batch-size 2 would fit"),
        (
            free_for(method="lora", **saving),
            "--method lora --gradient-checkpointing --batch-size 2 would fit",
        ),
        (1000, "nothing here would fit: take a smaller generator"),
    ):
        with pytest.raises(RunError) as caught:
            check(free)
        assert str(caught.value).startswith(f"customizing {generator.name} needs about ")
        assert str(caught.value).endswith(f" free; {fits}")


def test_too_many_images_at_once_are_refused(generator: Generator) -> None:
    found = measured(generator)
    light = Customization(method="lora", batch_size=1, prior_images=0)
    settings = BuildSettings(customization=light, sampling=Sampling(batch_size=1000))
    free = max(found.needed(light), found.needed_to_sample(light, 130, 2))
    with pytest.raises(RunError) as caught:
        check_memory(generator, settings, free=free)
    assert str(caught.value).startswith(f"making 1000 images at once with {generator.name} needs")
    assert str(caught.value).endswith(" free; --sampling-batch 125 would fit")
    # Without guidance the denoiser sees an image once.
    assert generator.passes(1.0) == 1
    assert generator.passes(6.0) == 2


def test_weights_that_do_not_fit_are_refused_before_they_are_loaded(
    pipeline_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the headers of their files: of those that are loaded."""
    generator = load_generator(str(pipeline_folder), device="cpu")
    pipe = generator.pipe
    parts = (pipe.unet, pipe.vae, pipe.text_encoder)
    words = generator.embeddings()[0].weight.shape[1]  # of the new word, which no file has
    numbers = sum(weight.numel() for part in parts for weight in part.parameters()) - words
    buffers = sum(buffer.numel() for part in parts for buffer in part.buffers())
    needed = weight_bytes(pipeline_folder)
    assert 4 * numbers <= needed <= 4 * (numbers + buffers)
    monkeypatch.setattr("evaluation.dataset.free_memory.free_bytes", lambda device: needed - 1)
    with pytest.raises(RunError) as caught:
        load_generator(str(pipeline_folder), device="cpu")
    assert str(caught.value).startswith(f"the weights of {pipeline_folder} take 0.")
    assert str(caught.value).endswith(" free: take a smaller generator, or a larger machine")


def test_what_torch_says_when_memory_runs_out_is_one_line() -> None:
    with (
        pytest.raises(RunError, match=r"^memory ran out; lower --sampling-batch$"),
        out_of_memory("lower --sampling-batch"),
    ):
        torch.empty(1 << 56, dtype=torch.uint8)
    with pytest.raises(RuntimeError, match="size"), out_of_memory("lower it"):
        torch.zeros(2) @ torch.zeros(3)


def test_a_model_whose_images_do_not_fit(
    build: Build, generator: Generator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Images of a million pixels a side, of which no machine has the memory."""
    monkeypatch.setattr(generator, "size", 1 << 24)
    with pytest.raises(RunError, match=r"^memory ran out; lower --sampling-batch, with another --"):
        build(tmp_path / "set")


def test_free_memory_is_what_the_machine_says() -> None:
    free = free_bytes(torch.device("cpu"))
    assert free is not None
    assert 1 << 20 < free < 1 << 50
    assert free_bytes(torch.device("meta")) is None
