"""What U-Nets are told and what they learn from: by hand, of Stable Diffusion 1, 2 and XL."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from evaluation.dataset.customize import Prior, customized
from evaluation.dataset.generator import TOKEN, Condition, Generator, load_generator
from evaluation.dataset.settings import Customization, Method, Sampling
from evaluation.dataset.synthesize import synthesized
from evaluation.dataset.trained import cross_attention
from ingest.errors import ModelError


@pytest.fixture(scope="module")
def xl(xl_folder: Path) -> Generator:
    return load_generator(str(xl_folder), device="cpu")


class Says:
    """A denoiser that says what it is given, and remembers what it was told."""

    def __init__(self, predicted: torch.Tensor) -> None:
        self.predicted = predicted

    def __call__(self, noisy: torch.Tensor, times: torch.Tensor, **told: Any) -> Any:
        self.noisy, self.times, self.told = noisy, times, told
        return SimpleNamespace(sample=self.predicted)


LATENTS = torch.randn((3, 4, 8, 8), generator=torch.Generator().manual_seed(1))
NOISE = torch.randn(LATENTS.shape, generator=torch.Generator().manual_seed(2))
SEEN = torch.ones((3, 1, 8, 8))
SEEN[1, :, 4:] = 0
SEEN[2, :, :, :6] = 0


def loss_of(generator: Generator, predicted: torch.Tensor) -> tuple[torch.Tensor, Says]:
    says = Says(predicted)
    told = Condition(torch.zeros((3, 16, 16)), None)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(generator, "denoiser", says)
        found = generator.loss(LATENTS, told, torch.Generator().manual_seed(2), SEEN)
    assert says.told.keys() == {"encoder_hidden_states"}
    assert says.told["encoder_hidden_states"] is told.hidden
    return found, says


def kept(times: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """How much of the latents and of the noise is there: of betas that grow evenly."""
    left = np.cumprod(1 - np.linspace(1e-4, 0.02, 1000))[times.numpy()]
    parts = torch.from_numpy(np.sqrt(np.stack([left, 1 - left]))).float()[..., None, None, None]
    return parts[0], parts[1]


@pytest.mark.parametrize("predicts", ["epsilon", "v_prediction"])
def test_the_loss_is_that_of_what_the_denoiser_predicts(
    predicts: str, make_unet: Callable[..., Path], tmp_path: Path
) -> None:
    """By hand: of the truth it is none, of nothing the truth's square where the image is seen."""
    generator = load_generator(str(make_unet(tmp_path, predicts=predicts)), device="cpu")
    nothing, says = loss_of(generator, torch.zeros_like(LATENTS))
    signal, noise = kept(says.times)
    assert torch.allclose(says.noisy, signal * LATENTS + noise * NOISE, atol=1e-5)
    assert len(set(says.times.tolist())) == 3
    truth = NOISE if predicts == "epsilon" else signal * NOISE - noise * LATENTS
    square = truth.square()
    expected = [square[0].mean(), square[1, :, :4].mean(), square[2, :, :, 6:].mean()]
    assert torch.allclose(nothing, torch.stack(expected), atol=1e-5)
    found, again = loss_of(generator, truth)
    assert torch.equal(again.times, says.times)
    assert torch.allclose(found, torch.zeros(3), atol=1e-9)


def test_another_prediction_is_refused(make_unet: Callable[..., Path], tmp_path: Path) -> None:
    folder = make_unet(tmp_path, predicts="sample")
    with pytest.raises(ModelError) as caught:
        load_generator(str(folder), device="cpu")
    assert str(caught.value) == (f"{folder} predicts 'sample'; epsilon and v_prediction are known")


def test_xl_is_told_what_its_pipeline_tells_it(xl: Generator) -> None:
    assert len(xl.text) == 2
    prompts = [f"a {TOKEN} cat", "dog"]
    xl.reset_token()
    with torch.no_grad():
        found = xl.encode(prompts)
        hidden, _, pooled, _ = xl.pipe.encode_prompt(
            prompts, device="cpu", do_classifier_free_guidance=False
        )
    assert found.hidden.shape == (2, 16, 32)
    assert found.pooled is not None
    assert found.pooled.shape == (2, 24)
    assert torch.allclose(found.hidden, hidden, atol=1e-6)
    assert torch.allclose(found.pooled, pooled, atol=1e-6)
    assert not torch.equal(found.pooled[0], found.pooled[1])
    # And so is its U-Net in training: with the size of its images, not cut.
    says = Says(torch.zeros((2, 4, 8, 8)))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(xl, "denoiser", says)
        xl.loss(LATENTS[:2], found, torch.Generator(), SEEN[:2])
    assert says.told.keys() == {"encoder_hidden_states", "added_cond_kwargs"}
    added = says.told["added_cond_kwargs"]
    assert added["text_embeds"] is found.pooled
    assert added["time_ids"].tolist() == [[16, 16, 0, 0, 16, 16]] * 2


@pytest.mark.parametrize("method", ["custom-diffusion", "lora", "full"])
def test_xl_is_customized_and_put_back(xl: Generator, method: Method) -> None:
    plain = Sampling(steps=2, guidance=2.0)
    before = {name: weight.clone() for name, weight in xl.denoiser.state_dict().items()}
    xl.reset_token()
    tables = [table.weight.clone() for table in xl.embeddings()]
    (first,) = synthesized(xl, [f"{TOKEN} cat"], [3], plain)
    chosen = Customization(method, steps=3, learning_rate=1e-2, batch_size=2)
    image = Image.radial_gradient("L").convert("RGB")
    priors = [Prior(Image.new("RGB", (16, 16), "red"), "red cat")]
    with customized(xl, [image], f"{TOKEN} cat", priors, chosen, seed=5) as done:
        now = xl.denoiser.state_dict()
        moved = {n for n, was in before.items() if not torch.equal(now.get(n, was), was)}
        if method == "custom-diffusion":
            assert moved == set(cross_attention(xl))
        # The new word learns in both text encoders, and no other does.
        for table, place, was in zip(xl.embeddings(), xl.token_ids(), tables, strict=True):
            changed = (table.weight != was).any(dim=1).nonzero().flatten().tolist()
            assert changed == [place]
        (inside,) = synthesized(xl, [f"{TOKEN} cat"], [3], plain)
    assert done.moved > 0
    assert inside.size == (16, 16)
    assert inside.tobytes() != first.tobytes()
    after = xl.denoiser.state_dict()
    assert set(after) == set(before)
    assert all(torch.equal(after[name], before[name]) for name in before)
