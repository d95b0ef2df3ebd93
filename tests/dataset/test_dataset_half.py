"""As on a GPU: the denoiser in bfloat16, in training and in sampling. Here on a CPU, by request."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from evaluation.dataset.customize import Prior, customized
from evaluation.dataset.generator import TOKEN, Generator, load_generator
from evaluation.dataset.settings import Customization, Method, Sampling
from evaluation.dataset.synthesize import synthesized

PLAIN = Sampling(steps=3, guidance=2.0)


@pytest.fixture(scope="module", params=["sd", "xl", "flux", "sd3"])
def folder(
    request: pytest.FixtureRequest,
    pipeline_folder: Path,
    xl_folder: Path,
    flow: Callable[[Path, str], Path],
    tmp_path_factory: pytest.TempPathFactory,
) -> Path:
    known = {"sd": pipeline_folder, "xl": xl_folder}
    return known.get(request.param) or flow(tmp_path_factory.mktemp("half"), request.param)


def types(module: torch.nn.Module) -> set[torch.dtype]:
    return {weight.dtype for weight in module.parameters()}


@contextmanager
def computing(module: torch.nn.Module) -> Iterator[set[torch.dtype]]:
    """In what the module's linear layers and convolutions answer."""
    seen: set[torch.dtype] = set()
    handles = [
        part.register_forward_hook(lambda _module, _inputs, output: seen.add(output.dtype))
        for part in module.modules()
        if isinstance(part, torch.nn.Linear | torch.nn.Conv2d)
    ]
    yield seen
    for handle in handles:
        handle.remove()


def made(generator: Generator) -> Image.Image:
    (image,) = synthesized(generator, [f"{TOKEN} cat"], [3], PLAIN)
    return image


def trained(generator: Generator, method: Method) -> bool:
    """Whether training and sampling compute in bfloat16 alone; and all else as it must be."""
    before = {name: weight.clone() for name, weight in generator.denoiser.state_dict().items()}
    chosen = Customization(
        method,
        steps=3,
        learning_rate=1e-2,
        batch_size=2,
        gradient_checkpointing=method != "full",
    )
    priors = [Prior(Image.new("RGB", (16, 16), "red"), "red cat")]
    image = Image.radial_gradient("L").convert("RGB")
    generator.reset_token()
    first = made(generator)
    with (
        computing(generator.denoiser) as learning,
        customized(generator, [image], f"{TOKEN} cat", priors, chosen, seed=5) as done,
    ):
        with computing(generator.denoiser) as sampling, computing(generator.pipe.vae) as decoding:
            inside = made(generator)
        if method == "lora":
            adapters = [w for n, w in generator.denoiser.named_parameters() if "lora_" in n]
            assert {weight.dtype for weight in adapters} == {torch.float32}
    assert np.isfinite([*done.losses, *done.prior_losses]).all()
    assert done.moved > 0
    assert inside.tobytes() != first.tobytes()
    assert decoding == {torch.float32}
    after = generator.denoiser.state_dict()
    assert set(after) == set(before)
    assert all(torch.equal(after[name], weight) for name, weight in before.items())
    assert all(types(encoder) == {torch.float32} for _, encoder in generator.text)
    return learning == sampling == {torch.bfloat16}


def test_lora_beside_weights_in_half(folder: Path) -> None:
    generator = load_generator(str(folder), device="cpu", adapters_only=True, half=True)
    assert types(generator.denoiser) == {torch.bfloat16}
    assert types(generator.pipe.vae) == {torch.float32}
    assert trained(generator, "lora")
    whole = load_generator(str(folder), device="cpu")
    generator.reset_token()
    whole.reset_token()
    pictures = [np.asarray(made(one), dtype=float) for one in (generator, whole)]
    assert 0 < np.abs(pictures[0] - pictures[1]).mean() < 3


@pytest.mark.parametrize("method", ["custom-diffusion", "full"])
def test_weights_that_are_trained_stay_whole(pipeline_folder: Path, method: Method) -> None:
    generator = load_generator(str(pipeline_folder), device="cpu", half=True)
    assert types(generator.denoiser) == {torch.float32}
    assert trained(generator, method)


def test_on_a_cpu_nothing_is_in_half_unless_it_is_asked_for(pipeline_folder: Path) -> None:
    generator = load_generator(str(pipeline_folder), device="cpu", adapters_only=True)
    assert types(generator.denoiser) == {torch.float32}
    assert not trained(generator, "lora")
