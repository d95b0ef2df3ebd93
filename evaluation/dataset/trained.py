"""Which weights a customization trains, and how they are put back afterwards."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np

from evaluation.dataset.generator import Generator
from evaluation.dataset.settings import METHODS, Method
from ingest.errors import UsageError

if TYPE_CHECKING:
    import torch

__all__ = ["adapted", "change", "check_method", "cross_attention", "trained_weights"]

_ADAPTER = "attrib"
_ATTENTION = (
    *("to_k", "to_q", "to_v", "to_out.0"),
    *("add_k_proj", "add_q_proj", "add_v_proj", "to_add_out"),
)
"""The second four are of the text, where it is attended to together with the image (Flux, SD3)."""


def cross_attention(generator: Generator) -> dict[str, torch.nn.Parameter]:
    """Keys and values of cross-attention by name (Custom Diffusion, section 3.1).

    Raises:
        UsageError: the denoiser has none under the names that diffusers gives them.
    """
    found = {
        name: weight
        for name, weight in generator.denoiser.named_parameters()
        if name.endswith(("attn2.to_k.weight", "attn2.to_v.weight"))
    }
    if not found:
        ways = " or ".join(f"--method {way}" for way in METHODS[1:] if _can(generator, way))
        raise UsageError(
            f"{generator.name} has no cross-attention under known names (attn2.to_k, attn2.to_v); "
            f"customize it with {ways}"
        )
    return found


def check_method(generator: Generator, method: Method) -> None:
    """Refuse what a generator cannot be customized by, before all work.

    Raises:
        UsageError: an attention layout that the method does not know, or peft is missing for LoRA.
    """
    if method not in generator.methods:
        raise UsageError(
            f"{generator.name} is a {type(generator.pipe).__name__}, whose {method} is not known; "
            f"customize it with --method {generator.methods[0]}"
        )
    if method == "custom-diffusion":
        cross_attention(generator)
    if method == "lora":
        if not adapted(generator.denoiser):
            others = [way for way in generator.methods if way == "full"]
            raise UsageError(
                f"{generator.name} has no attention under known names that lora could adapt"
                + (f"; customize it with --method {others[0]}" if others else "")
            )
        _lora_config()


def _can(generator: Generator, method: Method) -> bool:
    try:
        check_method(generator, method)
    except UsageError:
        return False
    return True


def _lora_config() -> Any:  # noqa: ANN401 (a class of peft)
    try:
        from peft import LoraConfig
    except ImportError as exc:
        raise UsageError("peft is not installed: pip install 'attrib[dataset]'") from exc
    return LoraConfig


def adapted(denoiser: torch.nn.Module) -> list[torch.nn.Linear]:
    """The layers of all attention that LoRA adapts."""
    import torch

    return [
        module
        for name, module in denoiser.named_modules()
        if isinstance(module, torch.nn.Linear) and name.endswith(_ATTENTION)
    ]


def change(generator: Generator) -> Callable[[], float]:
    """Measures how far training moves a generator: call it inside of `trained_weights`.

    It is the L2 norm of the change of the weights that the denoiser computes with, and of the new
    word in all text encoders. LoRA's factors are no such weights: what changes is their product,
    scale * B @ A, which is what other methods' changes can be compared with.

    Args:
        generator: before it is trained, inside of `trained_weights`.

    Returns:
        The norm so far, whenever it is called.
    """
    layers = [m for m in generator.denoiser.modules() if _ADAPTER in getattr(m, "lora_A", ())]
    weights = [] if layers else [w for w in generator.denoiser.parameters() if w.requires_grad]
    before = [weight.detach().clone() for weight in weights]
    places = list(zip(generator.embeddings(), generator.token_ids(), strict=True))
    words = [table.weight[place].detach().clone() for table, place in places]

    def moved() -> float:
        squares = [
            float((weight.detach() - was).double().square().sum())
            for weight, was in zip(weights, before, strict=True)
        ]
        for layer in layers:
            down = layer.lora_A[_ADAPTER].weight.detach().double()  # (rank, inputs)
            up = layer.lora_B[_ADAPTER].weight.detach().double()  # (outputs, rank)
            # |B A|^2 without the product, which is as large as the layer.
            product = float(((up.T @ up) * (down @ down.T)).sum())
            squares.append(layer.scaling[_ADAPTER] ** 2 * product)
        for (table, place), was in zip(places, words, strict=True):
            squares.append(float((table.weight[place].detach() - was).double().square().sum()))
        return float(np.sqrt(sum(squares)))

    return moved


@contextmanager
def trained_weights(
    generator: Generator, method: Method, rank: int, *, seed: int
) -> Iterator[dict[str, torch.nn.Parameter]]:
    """The denoiser's weights to train by name; on leaving, the denoiser is what it was before.

    Raises:
        UsageError: peft is missing for LoRA, or an unknown layout of attention.
    """
    import torch

    denoiser = generator.denoiser
    if method == "lora":
        config = _lora_config()(r=rank, lora_alpha=rank, target_modules=list(_ATTENTION))
        # LoRA begins at random: of its own seed, not of whatever was drawn before.
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            denoiser.add_adapter(config, _ADAPTER)
        chosen = {n: w for n, w in denoiser.named_parameters() if w.requires_grad}
        for weight in chosen.values():
            # Made like the layers that they adapt: in bfloat16 small steps would be lost.
            weight.data = weight.data.float()
        try:
            yield chosen
        finally:
            denoiser.unload_lora()
            denoiser.requires_grad_(False)
        return
    is_full = method == "full"
    chosen = dict(denoiser.named_parameters()) if is_full else cross_attention(generator)
    before = {name: weight.detach().clone() for name, weight in chosen.items()}
    for weight in chosen.values():
        weight.requires_grad_(True)
    try:
        yield chosen
    finally:
        with torch.no_grad():
            for name, weight in chosen.items():
                weight.requires_grad_(False)
                weight.grad = None
                weight.copy_(before[name])
