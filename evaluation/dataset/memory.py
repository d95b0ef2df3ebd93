"""How much memory a customization takes, estimated before it begins."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from evaluation.dataset.generator import Generator
from evaluation.dataset.settings import Customization, Method
from evaluation.dataset.trained import adapted, cross_attention
from ingest.errors import RunError, UsageError

if TYPE_CHECKING:
    import torch

__all__ = ["Measured", "check_memory", "free_bytes", "measured"]

_FLOAT = 4
_COPIES = 5
"""Of what is trained: gradient, two moments of AdamW, and the weights as they were, twice."""
_OVERHEAD = 1.1
_GIB = 1 << 30


@dataclass(frozen=True)
class Measured:
    """What a generator needs beyond its own weights.

    Attributes:
        weights: numbers that each method trains in the denoiser; of LoRA for rank 1.
        words: numbers in the tables of word embeddings.
        activations: bytes that one image leaves in the denoiser for the way back.
        checkpoints: the same with gradient checkpointing.
    """

    weights: dict[Method, int]
    words: int
    activations: int
    checkpoints: int

    def needed(self, settings: Customization, *, priors: bool) -> int:
        """Bytes, roughly: of gradients, optimizer, kept weights and activations."""
        trained = self.weights[settings.method]
        if settings.method == "lora":
            trained *= settings.rank
        images = settings.batch_size * (2 if priors else 1)
        each = self.checkpoints if settings.gradient_checkpointing else self.activations
        numbers = _COPIES * (trained + self.words)
        return int(_OVERHEAD * (_FLOAT * numbers + images * each))


def measured(generator: Generator) -> Measured:
    """Look at the generator's weights, and at what one image leaves in its denoiser."""
    denoiser = generator.denoiser
    full = sum(weight.numel() for weight in denoiser.parameters())
    try:
        cross = sum(weight.numel() for weight in cross_attention(generator).values())
    except UsageError:
        cross = full
    lora = sum(layer.in_features + layer.out_features for layer in adapted(denoiser))
    words = sum(table.weight.numel() for table in generator.embeddings())
    kept, blocks, largest = _activations(generator)
    return Measured(
        {"custom-diffusion": cross, "lora": lora, "full": full}, words, kept, blocks + largest
    )


def check_memory(
    generator: Generator, settings: Customization, *, priors: bool, free: int | None = None
) -> None:
    """Refuse what will not fit, before hours are spent.

    Args:
        generator: loaded; its weights are in memory already.
        settings: of the customization.
        priors: whether prior images come with the exemplars.
        free: bytes; None for what the device says. Where it says nothing, nothing is refused.

    Raises:
        RunError: it needs more than is free; it says what would fit.
    """
    free = free_bytes(generator.device) if free is None else free
    if free is None:
        return
    found = measured(generator)
    needed = found.needed(settings, priors=priors)
    if needed <= free:
        return
    fits = next(
        (
            words
            for words, other in _smaller(settings)
            if found.needed(other, priors=priors) <= free
        ),
        "",
    )
    raise RunError(
        f"customizing {generator.name} needs about {_gib(needed)} beyond its weights, "
        f"{generator.device} has {_gib(free)} free; "
        + (f"{fits} would fit" if fits else "nothing here would fit: take a smaller generator")
    )


def free_bytes(device: torch.device) -> int | None:
    """Memory that is free on a device, in bytes; None where it cannot be told."""
    import torch

    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    if device.type != "cpu":
        return None
    known = [value for value in (_available(), _left_of_group()) if value is not None]
    return min(known, default=None)


def _smaller(settings: Customization) -> list[tuple[str, Customization]]:
    """What to try instead, the least change first."""
    saving = replace(settings, gradient_checkpointing=True)
    tries = [("--gradient-checkpointing", saving)]
    size = settings.batch_size // 2
    while size >= 1:
        tries.append(
            (f"--gradient-checkpointing --batch-size {size}", replace(saving, batch_size=size))
        )
        size //= 2
    if settings.method == "full":
        tries += [(f"--method lora {words}", replace(one, method="lora")) for words, one in tries]
        tries.insert(0, ("--method lora", replace(settings, method="lora")))
    return [(words, one) for words, one in tries if one != settings]


def _activations(generator: Generator) -> tuple[int, int, int]:
    """Bytes of one image in the denoiser: of all layers, of what leaves blocks, of the largest."""
    import torch

    denoiser = generator.denoiser
    blocks: dict[str, int] = {}
    between = 0
    now = ""

    def size(output: Any) -> int:  # noqa: ANN401 (whatever a layer gives)
        if isinstance(output, torch.Tensor):
            return output.numel() * output.element_size()
        if isinstance(output, tuple | list):
            return sum(size(part) for part in output)
        return 0

    def leaf(name: str) -> Any:  # noqa: ANN401 (a hook)
        block = ".".join(name.split(".")[:2])

        def hook(_module: Any, _inputs: Any, output: Any) -> None:  # noqa: ANN401
            nonlocal between, now
            blocks[block] = blocks.get(block, 0) + size(output)
            if block != now:
                now, between = block, between + size(output)

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
    return sum(blocks.values()), between, max(blocks.values(), default=0)


def _available() -> int | None:
    try:
        for line in Path("/proc/meminfo").read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    except (OSError, ValueError, IndexError):
        pass
    return None


def _left_of_group() -> int | None:
    """What the limit of a container (cgroup v2) leaves; files that it only caches count as free."""
    group = Path("/sys/fs/cgroup")
    try:
        limit = int((group / "memory.max").read_text())
        used = int((group / "memory.current").read_text())
        rows = (line.split() for line in (group / "memory.stat").read_text().splitlines())
        cached = next((int(value) for name, value in rows if name == "inactive_file"), 0)
    except (OSError, ValueError):
        return None
    return max(0, limit - used + cached)


def _gib(count: int) -> str:
    return f"{count / _GIB:.1f} GiB" if count >= _GIB // 10 else f"{count / (1 << 20):.1f} MiB"
