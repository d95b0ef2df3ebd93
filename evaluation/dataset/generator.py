"""A text-to-image pipeline of diffusers, as customization and sampling need it."""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from evaluation.dataset.free_memory import check_weights, out_of_memory
from evaluation.dataset.half import compute_in_half
from evaluation.dataset.pipeline import check_kind, weight_bytes
from evaluation.dataset.settings import METHODS, Method
from ingest.errors import AttribError, ModelError, RunError, UsageError

if TYPE_CHECKING:
    import torch

__all__ = ["TOKEN", "Condition", "Generator", "default_device", "load_generator"]

TOKEN = "<new1>"
"""The word that comes to mean the exemplars, as in the paper's prompts."""

_PIECES = 2
_PREDICTIONS = ("epsilon", "v_prediction")
_EXTRA = "diffusers is not installed: pip install 'attrib[dataset]'"


@dataclass(frozen=True)
class Condition:
    """What the denoiser is told of prompts.

    Attributes:
        hidden: (prompts, tokens, width) of the text encoders.
        pooled: (prompts, width) of SDXL's second one, or of the CLIP encoders of Flux and SD3; None
            for SD 1.x and 2.x.
    """

    hidden: torch.Tensor
    pooled: torch.Tensor | None


class Generator:
    """A pipeline whose weights can be trained and put back.

    Use `load_generator`. Everything is float32; on a GPU the denoiser computes in bfloat16, in
    training and in sampling alike, and has its weights in it where they are not trained.

    Attributes:
        pipe: the pipeline.
        name: as the caller gave it.
        size: width and height of its images in pixels.
        latent_size: width and height of its latents.
        latent_channels: of them.
    """

    def __init__(
        self,
        pipe: Any,  # noqa: ANN401 (diffusers)
        name: str,
        device: str,
        *,
        half: bool = False,
        adapters_only: bool = False,
    ) -> None:
        import torch

        self.pipe = pipe
        self.name = name
        self.device = torch.device(device)
        names = ("", "_2", "_3")
        self.text: list[tuple[Any, Any]] = [
            (getattr(pipe, f"tokenizer{name}"), getattr(pipe, f"text_encoder{name}"))
            for name in names
            if getattr(pipe, f"text_encoder{name}", None) is not None
        ]
        self.denoiser = self._denoiser()
        self.latent_channels = int(pipe.vae.config.latent_channels)
        self.latent_size = self._latent_size()
        self.size = self.latent_size * int(pipe.vae_scale_factor)
        self._token_ids: list[int] = []
        self._add_token()
        if half:
            compute_in_half(self.denoiser, self.device.type, weights=adapters_only)
        pipe.to(self.device)
        pipe.set_progress_bar_config(disable=True)
        for module in (pipe.vae, self.denoiser, *(encoder for _, encoder in self.text)):
            module.requires_grad_(False)
            module.eval()

    def _denoiser(self) -> Any:  # noqa: ANN401 (diffusers)
        return self.pipe.unet

    def _latent_size(self) -> int:
        return int(self.pipe.unet.config.sample_size)

    @property
    def methods(self) -> tuple[Method, ...]:
        """How it can be customized."""
        return METHODS

    # -- the new word --------------------------------------------------------------------------

    def _add_token(self) -> None:
        for tokenizer, encoder in self.text:
            if tokenizer.add_tokens([TOKEN]) != 1:
                raise ModelError(f"the tokenizer of {self.name} knows {TOKEN} already")
            # T5 has more rows than words: the new one may be among them already.
            if len(tokenizer) > encoder.get_input_embeddings().num_embeddings:
                encoder.resize_token_embeddings(len(tokenizer), mean_resizing=False)
            self._token_ids.append(int(tokenizer.convert_tokens_to_ids(TOKEN)))

    def embeddings(self) -> list[torch.nn.Embedding]:
        """The tables of word embeddings, one a text encoder."""
        return [encoder.get_input_embeddings() for _, encoder in self.text]

    def token_ids(self) -> list[int]:
        """Where the new word stands in each of `embeddings`."""
        return list(self._token_ids)

    def reset_token(self) -> None:
        """Let the new word begin as the rarest word, as published.

        The last merge of a byte-pair vocabulary is its rarest word that was worth one.
        """
        import torch

        with torch.no_grad():
            for (tokenizer, _), table, place in zip(
                self.text, self.embeddings(), self._token_ids, strict=True
            ):
                special = {*tokenizer.all_special_ids, place}
                rare = max(i for i in tokenizer.get_vocab().values() if i not in special)
                known = tokenizer.convert_tokens_to_ids("ktn</w>")
                rare = rare if known in (None, tokenizer.unk_token_id) else int(known)
                table.weight[place] = table.weight[rare]

    def is_known(self, word: str) -> bool:
        """Whether the tokenizer has each part of a class word whole, or in two pieces.

        Each part by itself: one that falls into letters says nothing, however well the others are
        known.
        """
        tokenizer = self.text[0][0]
        parts = re.findall(r"\w+", word)
        for part in parts:
            ids = tokenizer(part, add_special_tokens=False)["input_ids"]
            if tokenizer.unk_token_id in ids or not 1 <= len(ids) <= _PIECES:
                return False
        return bool(parts)

    def reads_token(self, prompt: str) -> bool:
        """Whether the new word is among those of a prompt that all text encoders take.

        What is behind a tokenizer's limit is cut off, without an error, when images are made.
        """
        return all(
            token in self._ids(tokenizer, [prompt])[0]
            for (tokenizer, _), token in zip(self.text, self._token_ids, strict=True)
        )

    def reads_all(self, prompt: str) -> bool:
        """Whether one of the text encoders takes a prompt to its end."""
        return any(
            len(tokenizer(prompt)["input_ids"]) <= tokenizer.model_max_length
            for tokenizer, _ in self.text
        )

    def passes(self, guidance: float) -> int:
        """How many images the denoiser is given for one that is made."""
        return 2 if guidance > 1 else 1

    # -- prompts, images, noise ----------------------------------------------------------------

    def encode(self, prompts: Sequence[str]) -> Condition:
        """What the denoiser is told; gradients reach the embeddings of words."""
        import torch

        hidden: list[torch.Tensor] = []
        pooled: torch.Tensor | None = None
        for tokenizer, encoder in self.text:
            ids = self._ids(tokenizer, prompts).to(self.device)
            if len(self.text) == 1:
                hidden.append(encoder(ids)[0])
            else:  # SDXL: the last layer but one of both, and the second one's pooled output
                output = encoder(ids, output_hidden_states=True)
                hidden.append(output.hidden_states[-2])
                pooled = output[0]
        return Condition(torch.cat(hidden, dim=-1), pooled)

    def _ids(self, tokenizer: Any, prompts: Sequence[str]) -> torch.Tensor:  # noqa: ANN401
        ids: torch.Tensor = tokenizer(
            list(prompts),
            padding="max_length",
            truncation=True,
            max_length=tokenizer.model_max_length,
            return_tensors="pt",
        ).input_ids
        return ids

    def latents(self, pixels: torch.Tensor, noise: torch.Generator) -> torch.Tensor:
        """(images, channels, height, width) latents of pixels (images, 3, size, size) in -1..1."""
        import torch

        vae = self.pipe.vae
        with torch.no_grad():
            moments = vae.encode(pixels.to(self.device, vae.dtype)).latent_dist
            drawn = torch.randn(moments.mean.shape, generator=noise).to(self.device, vae.dtype)
            latents = moments.mean + moments.std * drawn
        shift = float(getattr(vae.config, "shift_factor", None) or 0.0)
        scaled: torch.Tensor = ((latents - shift) * vae.config.scaling_factor).float()
        return scaled

    def loss(
        self,
        latents: torch.Tensor,
        condition: Condition,
        noise: torch.Generator,
        seen: torch.Tensor,
    ) -> torch.Tensor:
        """(images,) mean squared error of the denoiser at one random time step an image.

        `seen`: (images, 1, height, width) of latents, 1 where the error counts, else 0.
        """
        import torch

        schedule = self._schedule()
        count = len(latents)
        eps = torch.randn(latents.shape, generator=noise).to(self.device)
        times = torch.randint(schedule.config.num_train_timesteps, (count,), generator=noise)
        times = times.to(self.device)
        noisy = schedule.add_noise(latents, eps, times)
        extra: dict[str, Any] = {}
        if condition.pooled is not None:
            whole = torch.tensor([[self.size, self.size, 0, 0, self.size, self.size]])
            extra["added_cond_kwargs"] = {
                "text_embeds": condition.pooled,
                "time_ids": whole.repeat(count, 1).to(self.device),
            }
        predicted = self.denoiser(
            noisy, times, encoder_hidden_states=condition.hidden, **extra
        ).sample
        kind = schedule.config.prediction_type
        # Of `_PREDICTIONS`: another one was not loaded.
        target = eps if kind == "epsilon" else schedule.get_velocity(latents, eps, times)
        errors = ((predicted - target) ** 2).mean(dim=1, keepdim=True) * seen
        mean: torch.Tensor = errors.sum(dim=(1, 2, 3)) / seen.sum(dim=(1, 2, 3))
        return mean

    def _schedule(self) -> Any:  # noqa: ANN401 (diffusers)
        from diffusers import DDPMScheduler

        if not hasattr(self, "_noise_schedule"):
            self._noise_schedule = DDPMScheduler.from_config(  # type: ignore[no-untyped-call]
                self.pipe.scheduler.config
            )
        return self._noise_schedule


def default_device() -> str:
    """``cuda`` where there is a GPU, else ``cpu``."""
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


def load_generator(
    name: str,
    *,
    device: str | None = None,
    revision: str | None = None,
    adapters_only: bool = False,
    half: bool | None = None,
) -> Generator:
    """Load a text-to-image pipeline: Stable Diffusion 1.x, 2.x, XL or 3.x, or Flux.1.

    Args:
        name: a folder that `save_pretrained` wrote, or a repository of the hub.
        device: ``cpu``, ``cuda`` ...; None for a GPU where there is one.
        revision: of the repository.
        adapters_only: it will be customized by LoRA alone: then bfloat16 is enough for the
            denoiser's own weights, too, and takes half of the room.
        half: whether the denoiser computes in bfloat16; None for on a GPU.

    Raises:
        UsageError: diffusers is missing, or the device.
        ModelError: no such pipeline, a damaged one, or one of another family.
        RunError: its weights do not fit into memory.
    """
    import torch

    try:
        from diffusers import DiffusionPipeline
        from diffusers.utils import logging as diffusers_logging
        from transformers.utils import logging as transformers_logging
    except ImportError as exc:
        raise UsageError(_EXTRA) from exc
    device = device or default_device()
    if device.startswith("cuda") and not torch.cuda.is_available():
        raise UsageError("no CUDA device here; leave --device out, or give cpu")
    diffusers_logging.disable_progress_bar()
    transformers_logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    # Prompts that are cut off are told of once by a build, not at every image.
    diffusers_logging.set_verbosity_error()
    transformers_logging.set_verbosity_error()  # type: ignore[no-untyped-call]
    folder = Path(name)
    if folder.is_dir() and not (folder / "model_index.json").is_file():
        raise ModelError(f"{name} is no diffusers pipeline: it has no model_index.json")
    if not folder.exists() and (
        folder.is_absolute() or name.startswith(".") or name.count("/") > 1
    ):
        raise ModelError(f"no such folder: {name}")
    parts = {"safety_checker": None, "use_safetensors": True}
    try:
        with _quiet_hub():
            index = DiffusionPipeline.load_config(name, revision=revision)
        check_kind(index, name)
        if not folder.is_dir():
            with _quiet_hub():
                folder = Path(DiffusionPipeline.download(name, revision=revision, **parts))
        check_weights(name, weight_bytes(folder), torch.device(device))
        with out_of_memory("take a smaller generator"):
            pipe = DiffusionPipeline.from_pretrained(  # type: ignore[no-untyped-call]
                folder, dtype=torch.float32, requires_safety_checker=False, **parts
            )
    except AttribError:
        raise
    except Exception as exc:
        raise ModelError(f"cannot load {name} as a pipeline: {_first_line(exc)}") from exc
    from evaluation.dataset.flow import FlowGenerator, is_flow

    made: type[Generator] = FlowGenerator if is_flow(pipe) else Generator
    if made is Generator:
        unet = getattr(pipe, "unet", None)
        latent = int(pipe.vae.config.latent_channels)
        if unet is None or int(unet.config.in_channels) != latent:
            raise ModelError(
                f"{name} is a {type(pipe).__name__} whose denoiser needs more than a text; known "
                "are Stable Diffusion 1.x, 2.x, XL and 3.x, and Flux.1"
            )
        kind = pipe.scheduler.config.get("prediction_type", "epsilon")
        if kind not in _PREDICTIONS:
            raise ModelError(f"{name} predicts {kind!r}; {' and '.join(_PREDICTIONS)} are known")
    try:
        half = device.startswith("cuda") if half is None else half
        with out_of_memory("take a smaller generator"):
            return made(pipe, name, device, half=half, adapters_only=adapters_only)
    except RuntimeError as exc:
        raise RunError(f"cannot put {name} on {device}: {_first_line(exc)}") from exc


@contextmanager
def _quiet_hub() -> Iterator[None]:
    """Without the warning of how diffusers itself calls the hub: no user can change that."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "The `local_dir_use_symlinks` argument")
        yield


def _first_line(exc: BaseException) -> str:
    return str(exc).strip().partition("\n")[0] or type(exc).__name__
