"""Flux.1 and Stable Diffusion 3: tiny ones, made from configs, and what is refused of them."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from evaluation.dataset.build import build_dataset
from evaluation.dataset.check import check_dataset
from evaluation.dataset.customize import Prior, customized
from evaluation.dataset.flow import FlowGenerator
from evaluation.dataset.generator import TOKEN, Generator, load_generator
from evaluation.dataset.library import Library
from evaluation.dataset.memory import measured
from evaluation.dataset.prompts import shipped_prompts
from evaluation.dataset.settings import BuildSettings, Customization, Method, Sampling
from evaluation.dataset.synthesize import synthesized
from evaluation.dataset.trained import trained_weights
from ingest.errors import ModelError, UsageError

LORA = Customization(method="lora", steps=3, learning_rate=1e-2, batch_size=2, prior_images=2)


@pytest.fixture(scope="module", params=["flux", "sd3"])
def folder(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, flow: Any
) -> Path:
    made: Path = flow(tmp_path_factory.mktemp(request.param), request.param)
    return made


@pytest.fixture
def generator(folder: Path) -> Generator:
    return load_generator(str(folder), device="cpu")


def weights_of(generator: Generator) -> dict[str, torch.Tensor]:
    modules = {f"text{n}": encoder for n, (_, encoder) in enumerate(generator.text)}
    modules |= {"denoiser": generator.denoiser, "vae": generator.pipe.vae}
    return {
        f"{name}.{key}": value.detach().clone()
        for name, module in modules.items()
        for key, value in module.state_dict().items()
    }


def exemplar() -> Image.Image:
    return Image.radial_gradient("L").convert("RGB").resize((40, 40))


def test_it_is_known_and_its_word_is_in_every_text_encoder(generator: Generator) -> None:
    assert isinstance(generator, FlowGenerator)
    assert (generator.size, generator.latent_size, generator.latent_channels) == (16, 8, 4)
    assert len(generator.text) == (2 if generator._is_flux else 3)
    generator.reset_token()
    for (tokenizer, encoder), table, place in zip(
        generator.text, generator.embeddings(), generator.token_ids(), strict=True
    ):
        assert tokenizer.convert_ids_to_tokens(place) == TOKEN
        assert place in tokenizer(f"{TOKEN} cat").input_ids
        assert encoder.get_input_embeddings() is table
        assert place < table.num_embeddings
        # It begins as another word.
        same = (table.weight == table.weight[place]).all(dim=1).nonzero().flatten().tolist()
        assert len(same) >= 2
    # No row of T5 is taken away.
    assert generator.embeddings()[-1].num_embeddings == 400


def test_only_adapters_and_the_word_move_and_all_are_put_back(generator: Generator) -> None:
    before = weights_of(generator)
    generator.reset_token()
    places = generator.token_ids()
    priors = [Prior(Image.new("RGB", (16, 16), "red"), "red cat")]
    with customized(generator, [exemplar()], f"{TOKEN} cat", priors, LORA, seed=5) as done:
        inside = weights_of(generator)
        layers = {
            name.removesuffix(".lora_A.attrib").rpartition(".")[2]
            for name, module in generator.denoiser.named_modules()
            if name.endswith("lora_A.attrib")
        }
        adapters = {name: value for name, value in inside.items() if "lora_B" in name}
    assert done.moved > 0
    assert len(done.losses) == len(done.prior_losses) == 3
    assert layers == {"to_k", "to_q", "to_v", "0", "add_k_proj", "add_q_proj", "add_v_proj"} | (
        {"to_add_out"}
    )
    assert adapters
    # Each of them learns: LoRA's second half begins at zero.
    assert sum(bool(value.any()) for value in adapters.values()) >= 0.8 * len(adapters)
    tables = [name for name in before if name.endswith(("token_embedding.weight", "shared.weight"))]
    assert len(tables) == len(places)
    for name, place in zip(sorted(tables), places, strict=True):
        changed = (inside[name] != before[name]).any(dim=1).nonzero().flatten().tolist()
        assert changed == [place]
    after = weights_of(generator)
    assert set(after) == set(before)
    words = ("token_embedding.weight", "shared.weight", "embed_tokens.weight")
    assert all(torch.equal(after[n], before[n]) for n in before if not n.endswith(words))


def test_training_draws_the_loss_down_and_changes_the_images(generator: Generator) -> None:
    chosen = replace(LORA, steps=30, augment=False, learning_rate=1e-2, batch_size=4, rank=8)
    plain = Sampling(steps=4, guidance=1.0)
    generator.reset_token()
    (before,) = synthesized(generator, [f"{TOKEN} cat"], [3], plain)
    with customized(generator, [exemplar()], f"{TOKEN} cat", [], chosen, seed=1) as done:
        (inside,) = synthesized(generator, [f"{TOKEN} cat"], [3], plain)
    generator.reset_token()
    (after,) = synthesized(generator, [f"{TOKEN} cat"], [3], plain)
    assert before.size == (16, 16)
    assert sum(done.losses[-10:]) < sum(done.losses[:10])
    assert inside.tobytes() != before.tobytes()
    assert after.tobytes() == before.tobytes()


def test_the_loss_is_that_of_the_velocity(generator: Generator) -> None:
    """By hand: one that says the truth has none; one that says nothing has the truth's square."""
    latents = torch.randn((3, 4, 8, 8), generator=torch.Generator().manual_seed(1))
    told = generator.encode(["cat"] * 3)
    seen = torch.ones((3, 1, 8, 8))
    seen[1, :, 4:] = 0
    eps = torch.randn(latents.shape, generator=torch.Generator().manual_seed(2))
    asked: list[torch.Tensor] = []

    def says(velocity: torch.Tensor) -> torch.Tensor:
        def predicted(noisy: torch.Tensor, shares: torch.Tensor, *_: Any) -> torch.Tensor:
            share = shares[:, None, None, None]
            assert torch.allclose(noisy, (1 - share) * latents + share * eps, atol=1e-5)
            asked.append(shares)
            return velocity

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(generator, "_velocity", predicted)
            return generator.loss(latents, told, torch.Generator().manual_seed(2), seen)

    assert torch.equal(says(eps - latents), torch.zeros(3))
    square = (eps - latents).square().mean(dim=1)
    expected = torch.stack([square[0].mean(), square[1, :4].mean(), square[2].mean()])
    assert torch.allclose(says(torch.zeros_like(latents)), expected)
    assert ((asked[0] > 0) & (asked[0] <= 1)).all()
    assert len(set(asked[0].tolist())) == 3


def test_memory_is_counted(generator: Generator) -> None:
    found = measured(generator)
    with trained_weights(generator, "lora", 3, seed=0) as weights:
        assert 3 * found.weights["lora"] == sum(w.numel() for w in weights.values())
    assert found.words == sum(table.weight.numel() for table in generator.embeddings())
    kept: dict[int, int] = {}

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    own = {w.untyped_storage().data_ptr() for w in generator.denoiser.parameters()}
    prompt = generator.encode(["cat"])
    with (
        trained_weights(generator, "lora", 1, seed=0),
        torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor),
    ):
        own |= {w.untyped_storage().data_ptr() for w in generator.denoiser.parameters()}
        generator.loss(torch.zeros(1, 4, 8, 8), prompt, torch.Generator(), torch.ones(1, 1, 8, 8))
    real = sum(size for place, size in kept.items() if place not in own)
    assert 0.3 * real < found.activations < 3 * real


def test_a_whole_build(folder: Path, images_folder: Path, tmp_path: Path) -> None:
    generator = load_generator(str(folder), device="cpu")
    settings = BuildSettings(
        models=2,
        per_model=3,
        base_images=2,
        customization=replace(LORA, gradient_checkpointing=True),
        sampling=Sampling(steps=2, guidance=2.0, batch_size=2),
    )

    def build(out: Path) -> None:
        name = {"name": "tiny", "revision": "", "sha256": ""}
        lists = shipped_prompts("object")
        build_dataset(out, Library([str(images_folder)]), lambda: generator, lists, settings, name)

    build(tmp_path / "set")
    assert check_dataset(tmp_path / "set").problems == ()
    record = json.loads((tmp_path / "set" / "models" / "0001.json").read_text())
    assert record["moved"] > 0
    (tmp_path / "set" / "models" / "0001.json").unlink()
    build(tmp_path / "set")
    assert json.loads((tmp_path / "set" / "models" / "0001.json").read_text()) == record


@pytest.mark.parametrize("method", ["custom-diffusion", "full"])
def test_other_methods_are_refused_before_anything_is_made(
    folder: Path, method: Method, images_folder: Path, tmp_path: Path
) -> None:
    generator = load_generator(str(folder), device="cpu")
    settings = BuildSettings(customization=Customization(method=method))
    lists = shipped_prompts("object")
    with pytest.raises(UsageError) as caught:
        build_dataset(
            tmp_path / "set", Library([str(images_folder)]), lambda: generator, lists, settings, {}
        )
    kind = type(generator.pipe).__name__
    assert str(caught.value) == (
        f"{folder} is a {kind}, whose {method} is not known; customize it with --method lora"
    )
    assert not (tmp_path / "set").exists()


def test_a_transformer_that_needs_more_than_a_text_is_refused(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from diffusers import DiffusionPipeline

    real: Callable[..., Any] = DiffusionPipeline.from_pretrained

    def wider(*args: Any, **named: Any) -> Any:
        pipe = real(*args, **named)
        pipe.transformer.register_to_config(in_channels=48)
        return pipe

    monkeypatch.setattr(DiffusionPipeline, "from_pretrained", wider)
    with pytest.raises(ModelError, match=r"known are Stable Diffusion 1\.x, 2\.x, XL and 3\.x"):
        load_generator(str(folder), device="cpu")
