"""How much memory customization and sampling take, estimated before they begin."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, NamedTuple

from evaluation.dataset.free_memory import free_bytes, in_gib, out_of_memory
from evaluation.dataset.generator import Generator
from evaluation.dataset.settings import BuildSettings, Customization, Method
from evaluation.dataset.trained import adapted, cross_attention
from ingest.errors import RunError, UsageError

__all__ = ["Measured", "check_memory", "measured"]

_FLOAT = 4
_COPIES = 5
"""Of what is trained: gradient, two moments of AdamW, and the weights as they were, twice."""
_KEPT = 2
"""Of them while images are made: gradient, and the weights as they were."""
_AT_ONCE = 3
"""What a layer takes beside what goes in and comes out: results of its neighbours, workspaces."""
_OVERHEAD = 1.1


@dataclass(frozen=True)
class Measured:
    """What a generator needs beyond its own weights.

    Attributes:
        weights: numbers that each method trains in the denoiser; of LoRA for rank 1.
        words: numbers in the tables of word embeddings.
        activations: bytes that one image leaves in the denoiser for the way back.
        checkpoints: the same with gradient checkpointing.
        denoising: bytes of one image in the denoiser where there is no way back.
        decoding: bytes of one image while it is made of its latents.
    """

    weights: dict[Method, int]
    words: int
    activations: int
    checkpoints: int
    denoising: int
    decoding: int

    def needed(self, settings: Customization) -> int:
        """Bytes, roughly: of gradients, optimizer, kept weights and activations."""
        images = settings.batch_size * (2 if settings.prior_images else 1)
        each = self.checkpoints if settings.gradient_checkpointing else self.activations
        numbers = _COPIES * (self._trained(settings) + self.words)
        return int(_OVERHEAD * (_FLOAT * numbers + images * each))

    def needed_to_sample(self, settings: Customization, images: int, passes: int) -> int:
        """Bytes, roughly, of so many images at once, with a customized denoiser.

        `passes`: how many the denoiser is given for one.
        """
        numbers = _KEPT * self._trained(settings)
        each = max(passes * self.denoising, self.decoding)
        return int(_OVERHEAD * (_FLOAT * numbers + images * each))

    def _trained(self, settings: Customization) -> int:
        trained = self.weights[settings.method]
        return trained * settings.rank if settings.method == "lora" else trained


def measured(generator: Generator) -> Measured:
    """Look at the generator's weights, and at what one image leaves in its layers."""
    denoiser = generator.denoiser
    full = sum(weight.numel() for weight in denoiser.parameters())
    try:
        cross = sum(weight.numel() for weight in cross_attention(generator).values())
    except UsageError:
        cross = full
    lora = sum(layer.in_features + layer.out_features for layer in adapted(denoiser))
    words = sum(table.weight.numel() for table in generator.embeddings())
    found = _activations(generator)
    return Measured(
        {"custom-diffusion": cross, "lora": lora, "full": full},
        words,
        activations=found.kept,
        checkpoints=found.between + found.largest_block,
        denoising=found.between + _AT_ONCE * found.largest_layer,
        decoding=_AT_ONCE * _largest_of_decoder(generator),
    )


def check_memory(generator: Generator, settings: BuildSettings, *, free: int | None = None) -> None:
    """Refuse what will not fit, before hours are spent.

    Args:
        generator: loaded; its weights are in memory already.
        settings: of the whole dataset.
        free: bytes; None for what the device says. Where it says nothing, nothing is refused.

    Raises:
        RunError: it needs more than is free; it says what would fit.
    """
    free = free_bytes(generator.device) if free is None else free
    if free is None:
        return
    with out_of_memory("take a smaller generator, or a larger machine"):
        found = measured(generator)
    custom, batch = settings.customization, settings.sampling.batch_size
    passes = generator.passes(settings.sampling.guidance)
    training, sampling = found.needed(custom), found.needed_to_sample(custom, batch, passes)
    if max(training, sampling) <= free:
        return
    what = f"customizing {generator.name}"
    if training <= free:
        what = f"making {batch} images at once with {generator.name}"
    fits = (
        [*words, *([f"--sampling-batch {size}"] if size != batch else [])]
        for words, other in [([], custom), *_smaller(custom)]
        if found.needed(other) <= free
        for size in _halves(batch)
        if found.needed_to_sample(other, size, passes) <= free
    )
    fitting = " ".join(next(fits, []))
    remedy = (
        f"{fitting} would fit" if fitting else "nothing here would fit: take a smaller generator"
    )
    raise RunError(
        f"{what} needs about {in_gib(training if training > free else sampling)} beyond its "
        f"weights, {generator.device} has {in_gib(free)} free; " + remedy
    )


def _smaller(settings: Customization) -> list[tuple[list[str], Customization]]:
    """What to try instead, the least change first."""
    saving = replace(settings, gradient_checkpointing=True)
    tries = [(["--gradient-checkpointing"], saving)]
    tries += [
        (["--gradient-checkpointing", f"--batch-size {size}"], replace(saving, batch_size=size))
        for size in _halves(settings.batch_size)[1:]
    ]
    if settings.method == "full":
        tries += [(["--method lora", *w], replace(one, method="lora")) for w, one in tries]
        tries.insert(0, (["--method lora"], replace(settings, method="lora")))
    return [(words, one) for words, one in tries if one != settings]


def _halves(size: int) -> list[int]:
    """So many, half of it, and so on to 1."""
    return [size >> turn for turn in range(size.bit_length())]


class _Activations(NamedTuple):
    """Bytes of one image in the denoiser: of all layers, of what leaves blocks, of the largest
    block, and of what goes into the largest layer and comes out.
    """

    kept: int
    between: int
    largest_block: int
    largest_layer: int


def _activations(generator: Generator) -> _Activations:
    import torch

    denoiser = generator.denoiser
    blocks: dict[str, int] = {}
    between = largest = 0
    now = ""

    def leaf(name: str) -> Any:  # noqa: ANN401 (a hook)
        block = ".".join(name.split(".")[:2])

        def hook(_module: Any, inputs: Any, output: Any) -> None:  # noqa: ANN401
            nonlocal between, largest, now
            blocks[block] = blocks.get(block, 0) + _size(output)
            largest = max(largest, _size(inputs) + _size(output))
            if block != now:
                now, between = block, between + _size(output)

        return hook

    handles = [
        module.register_forward_hook(leaf(name))
        for name, module in denoiser.named_modules()
        if not list(module.children())
    ]
    try:
        with torch.no_grad():
            prompt = generator.encode([""])
            shape = (1, generator.latent_channels, *[generator.latent_size] * 2)
            latents = torch.zeros(shape, device=generator.device)
            plain = torch.Generator().manual_seed(0)
            generator.loss(latents, prompt, plain, torch.ones_like(latents[:, :1]))
    finally:
        for handle in handles:
            handle.remove()
    return _Activations(sum(blocks.values()), between, max(blocks.values(), default=0), largest)


def _largest_of_decoder(generator: Generator) -> int:
    """Bytes of one image that go into the largest layer of the decoder, and come out."""
    import torch

    vae = generator.pipe.vae
    largest = 0

    def hook(_module: Any, inputs: Any, output: Any) -> None:  # noqa: ANN401 (of a layer)
        nonlocal largest
        largest = max(largest, _size(inputs) + _size(output))

    handles = [
        module.register_forward_hook(hook)
        for module in vae.modules()
        if not list(module.children())
    ]
    try:
        with torch.no_grad():
            shape = (1, generator.latent_channels, *[generator.latent_size] * 2)
            vae.decode(torch.zeros(shape, device=generator.device, dtype=vae.dtype))
    finally:
        for handle in handles:
            handle.remove()
    return largest


def _size(values: Any) -> int:  # noqa: ANN401 (whatever a layer is given, or gives)
    import torch

    if isinstance(values, torch.Tensor):
        return values.numel() * values.element_size()
    if isinstance(values, tuple | list):
        return sum(_size(part) for part in values)
    return 0
