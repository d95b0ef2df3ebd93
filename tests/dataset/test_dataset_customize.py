"""Customization moves what it says it moves, toward the exemplar, and puts everything back."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from PIL import Image

from evaluation.dataset.customize import Prior, customized
from evaluation.dataset.generator import TOKEN, Generator, load_generator
from evaluation.dataset.settings import Customization, Method
from evaluation.dataset.trained import cross_attention
from ingest.errors import ModelError, RunError, UsageError


def weights_of(generator: Generator) -> dict[str, torch.Tensor]:
    modules = {"unet": generator.denoiser, "vae": generator.pipe.vae, "text": generator.text[0][1]}
    return {
        f"{name}.{key}": value.detach().clone()
        for name, module in modules.items()
        for key, value in module.state_dict().items()
    }


def exemplar() -> Image.Image:
    return Image.radial_gradient("L").convert("RGB").resize((40, 40))


def settings(method: Method, steps: int = 3, **others: object) -> Customization:
    return Customization(
        method=method,
        steps=steps,
        learning_rate=1e-3,
        batch_size=2,
        **others,  # type: ignore[arg-type]
    )


@pytest.mark.parametrize("method", ["custom-diffusion", "lora", "full"])
def test_only_the_weights_of_the_method_move_and_all_are_put_back(
    generator: Generator, method: Method
) -> None:
    before = weights_of(generator)
    generator.reset_token()
    word = generator.token_ids()[0]
    with customized(generator, [exemplar()], f"{TOKEN} cat", [], settings(method), seed=5) as done:
        inside = weights_of(generator)
    assert done.moved > 0
    moved = {
        name for name, value in before.items() if not torch.equal(inside.get(name, value), value)
    }
    table = next(name for name in before if name.endswith("token_embedding.weight"))
    if method == "custom-diffusion":
        cross = {f"unet.{name}" for name in cross_attention(generator)}
        assert moved == cross | {table}
        assert len(cross) == 2 * 4  # keys and values of four cross-attentions
    elif method == "full":
        assert moved >= {n for n in before if n.startswith("unet.") and n.endswith("conv1.weight")}
        assert not any(name.startswith("vae.") for name in moved)
    else:
        added = set(inside) - set(before)
        assert {name for name in added if "lora_A" in name}
    changed = (inside[table] != before[table]).any(dim=1).nonzero().flatten().tolist()
    assert changed == [word]
    after = weights_of(generator)
    assert set(after) == set(before)
    assert all(torch.equal(after[n], before[n]) for n in before if n != table)


@pytest.mark.parametrize("method", ["custom-diffusion", "lora", "full"])
def test_moved_is_how_far_what_the_denoiser_computes_with_moved(
    generator: Generator, method: Method
) -> None:
    """By hand: LoRA is merged into the layers first, so that it is in the same weights."""
    generator.reset_token()
    before = weights_of(generator)
    chosen = settings(method, rank=3)
    with customized(generator, [exemplar()], f"{TOKEN} cat", [], chosen, seed=5) as done:
        if method == "lora":
            generator.denoiser.fuse_lora()
        inside = {name.replace("base_layer.", ""): w for name, w in weights_of(generator).items()}
        if method == "lora":
            generator.denoiser.unfuse_lora()
    squares = {n: float((inside[n] - was).double().square().sum()) for n, was in before.items()}
    denoiser = sum(square for name, square in squares.items() if name.startswith("unet."))
    word = sum(square for name, square in squares.items() if name.startswith("text."))
    assert denoiser > 0
    assert word > 0
    assert done.moved == pytest.approx((denoiser + word) ** 0.5, rel=1e-4)


def test_the_new_word_begins_as_the_rarest_one(generator: Generator) -> None:
    table, place = generator.embeddings()[0], generator.token_ids()[0]
    generator.reset_token()
    known = generator.text[0][0].convert_tokens_to_ids("ktn</w>")
    assert torch.equal(table.weight[place], table.weight[known])


def test_training_draws_the_loss_down(generator: Generator) -> None:
    chosen = settings("full", steps=80, augment=False)
    with customized(generator, [exemplar()], f"{TOKEN} cat", [], chosen, seed=1) as done:
        pass
    assert len(done.losses) == 80
    assert done.prior_losses == ()
    assert sum(done.losses[-20:]) < 0.8 * sum(done.losses[:20])


def test_priors_count(generator: Generator) -> None:
    """With prior images the same seeds lead elsewhere, and their loss is told of."""
    ends = []
    for weight in (0.0, 1.0):
        chosen = settings("custom-diffusion", prior_weight=weight)
        priors = [Prior(Image.new("RGB", (16, 16), "red"), "red cat")]
        with customized(generator, [exemplar()], f"{TOKEN} cat", priors, chosen, seed=2) as done:
            ends.append(weights_of(generator))
        assert len(done.prior_losses) == 3
    names = [f"unet.{name}" for name in cross_attention(generator)]
    assert any(not torch.equal(ends[0][name], ends[1][name]) for name in names)


def test_the_same_seed_gives_the_same_weights(generator: Generator) -> None:
    ends = []
    for seed in (7, 7, 8):
        with customized(generator, [exemplar()], f"{TOKEN} cat", [], settings("lora"), seed=seed):
            ends.append(weights_of(generator))
    names = [name for name in ends[0] if "lora_" in name]
    assert all(torch.equal(ends[0][name], ends[1][name]) for name in names)
    assert any(not torch.equal(ends[0][name], ends[2][name]) for name in names)


def test_a_loss_that_is_no_number_ends_in_one_line(generator: Generator) -> None:
    chosen = Customization(method="full", steps=60, learning_rate=0.9, batch_size=4)
    with (
        pytest.raises(RunError, match=r"diverged at step \d+; lower --learning-rate"),
        customized(generator, [exemplar()], f"{TOKEN} cat", [], chosen, seed=1),
    ):
        pass


def test_words(generator: Generator) -> None:
    assert generator.size == 16
    assert generator.is_known("cat")
    assert generator.is_known("red cat")
    assert not generator.is_known("xylophone")
    assert not generator.is_known("")


def test_a_new_word_behind_what_the_text_encoder_takes(generator: Generator) -> None:
    limit = generator.text[0][0].model_max_length
    room = limit - 3  # between the first mark and the last one, less the word itself
    assert generator.reads_token("a " * room + TOKEN)
    assert generator.reads_token("a " * room + TOKEN + " cat" * limit)
    assert not generator.reads_token("a " * (room + 1) + TOKEN)


def test_a_folder_without_a_pipeline_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="is no diffusers pipeline: it has no model_index"):
        load_generator(str(tmp_path))
    (tmp_path / "model_index.json").write_text("{")
    with pytest.raises(ModelError, match="as a pipeline"):
        load_generator(str(tmp_path))


def test_a_denoiser_without_cross_attention_is_refused(
    make_unet: Callable[..., Path], tmp_path: Path
) -> None:
    """Convolutions alone."""
    plain = load_generator(str(make_unet(tmp_path, attends=False)), device="cpu")
    assert not any("attn" in name for name, _ in plain.denoiser.named_parameters())
    with pytest.raises(UsageError, match="has no cross-attention under known names"):
        cross_attention(plain)
