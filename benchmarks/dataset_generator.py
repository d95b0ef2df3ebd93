"""A small text-to-image pipeline and a library of images, made up: for `benchmarks.dataset`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

__all__ = ["make_generator", "make_library"]

_WORDS = ("cat", "dog", "ktn")
_PIXELS = 64


def make_generator(folder: Path) -> Path:
    """Stable Diffusion of two million random weights that draws 64 x 64 pixels; its folder."""
    import torch
    from diffusers import (
        AutoencoderKL,
        DDIMScheduler,
        StableDiffusionPipeline,
        UNet2DConditionModel,
    )
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

    torch.manual_seed(0)
    _write_tokenizer(folder / "tokenizer")
    tokenizer = CLIPTokenizer.from_pretrained(folder / "tokenizer")
    text = CLIPTextModel(
        CLIPTextConfig(
            vocab_size=len(tokenizer),
            hidden_size=128,
            intermediate_size=256,
            num_hidden_layers=2,
            num_attention_heads=4,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    )
    unet = UNet2DConditionModel(  # type: ignore[no-untyped-call]
        sample_size=_PIXELS // 4,
        block_out_channels=(64, 128),
        layers_per_block=1,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        cross_attention_dim=128,
        attention_head_dim=32,
        norm_num_groups=16,
    )
    vae = AutoencoderKL(  # type: ignore[no-untyped-call]
        block_out_channels=(16, 32, 32),
        down_block_types=("DownEncoderBlock2D",) * 3,
        up_block_types=("UpDecoderBlock2D",) * 3,
        norm_num_groups=16,
        latent_channels=4,
        sample_size=_PIXELS,
    )
    pipe: Any = StableDiffusionPipeline(  # type: ignore[no-untyped-call]
        vae=vae,
        text_encoder=text,
        tokenizer=tokenizer,
        unet=unet,
        scheduler=DDIMScheduler(  # type: ignore[no-untyped-call]
            clip_sample=False, steps_offset=1
        ),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    pipe.save_pretrained(folder / "pipeline")
    return folder / "pipeline"


def make_library(folder: Path, images: int = 40) -> Path:
    """So many blurred noises of 128 x 128 pixels in the folders ``cat`` and ``dog``."""
    from PIL import Image

    draws = np.random.default_rng(0)
    for number in range(images):
        place = folder / ("cat", "dog")[number % 2]
        place.mkdir(parents=True, exist_ok=True)
        pixels = draws.integers(256, size=(16, 16, 3), dtype=np.uint8)
        Image.fromarray(pixels).resize((128, 128)).save(place / f"{number}.png")
    return folder


def _write_tokenizer(folder: Path) -> None:
    """Bytes, and three words whole."""
    letters = [chr(code) for code in range(33, 127)]
    vocabulary = [*letters, *(f"{letter}</w>" for letter in letters)]
    merges = []
    for word in _WORDS:
        joined = word[0]
        for number, letter in enumerate(word[1:], start=2):
            piece = letter if number < len(word) else f"{letter}</w>"
            merges.append(f"{joined} {piece}")
            joined += piece
            vocabulary.append(joined)
    vocabulary += ["<|startoftext|>", "<|endoftext|>"]
    folder.mkdir(parents=True)
    (folder / "vocab.json").write_text(json.dumps({word: i for i, word in enumerate(vocabulary)}))
    (folder / "merges.txt").write_text("#version: 0.2\n" + "\n".join(merges) + "\n")
    special = {"bos": "<|startoftext|>", "eos": "<|endoftext|>", "unk": "<|endoftext|>"}
    config: dict[str, object] = {f"{name}_token": word for name, word in special.items()}
    config |= {"tokenizer_class": "CLIPTokenizer", "model_max_length": 77}
    config |= {"pad_token": "<|endoftext|>"}
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
