"""A tiny text-to-image pipeline made from a config, and a small library of images."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

sys.path.append(str(Path(__file__).parent))

from tiny_builds import Build, builder

from evaluation.dataset.generator import Generator, load_generator

WORDS = ("cat", "dog", "boat", "red", "two", "style", "picture", "ktn")


def make_tokenizer(folder: Path) -> None:
    """Bytes, and the words above whole; whatever else falls into letters."""
    letters = [chr(c) for c in range(33, 127)]
    vocabulary = [*letters, *(f"{letter}</w>" for letter in letters)]
    merges: list[str] = []
    for word in WORDS:
        pieces = [*word[:-1], f"{word[-1]}</w>"]
        while len(pieces) > 1:
            pair = f"{pieces[0]} {pieces[1]}"
            joined = pieces[0] + pieces[1]
            if pair not in merges:
                merges.append(pair)
            if joined not in vocabulary:
                vocabulary.append(joined)
            pieces = [joined, *pieces[2:]]
    vocabulary += ["<|startoftext|>", "<|endoftext|>"]
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "vocab.json").write_text(json.dumps({word: i for i, word in enumerate(vocabulary)}))
    (folder / "merges.txt").write_text("#version: 0.2\n" + "\n".join(merges) + "\n")
    (folder / "tokenizer_config.json").write_text(
        json.dumps(
            {
                "tokenizer_class": "CLIPTokenizer",
                "model_max_length": 16,
                "bos_token": "<|startoftext|>",
                "eos_token": "<|endoftext|>",
                "unk_token": "<|endoftext|>",
                "pad_token": "<|endoftext|>",
            }
        )
    )


def clip_of(folder: Path, **more: int) -> tuple[Any, Any]:
    """A tokenizer of a few words, and the configuration of a text encoder of its size."""
    from transformers import CLIPTextConfig, CLIPTokenizer

    make_tokenizer(folder / "words")
    tokenizer = CLIPTokenizer.from_pretrained(folder / "words")
    config = CLIPTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=16,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        **more,
    )
    return tokenizer, config


def vae_of(**more: object) -> Any:
    """An autoencoder between 16 x 16 images and latents of 8 x 8."""
    from diffusers import AutoencoderKL

    made: Any = AutoencoderKL  # its call is not typed
    return made(
        block_out_channels=(8, 8),
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        norm_num_groups=4,
        sample_size=16,
        **{"latent_channels": 4, **more},
    )


def make_pipeline(
    folder: Path, *, seed: int = 0, predicts: str = "epsilon", attends: bool = True
) -> Path:
    """A Stable Diffusion pipeline of a few thousand weights that draws 16 x 16 images.

    Without attention, its U-Net is of convolutions alone.
    """
    from diffusers import (
        DDIMScheduler,
        StableDiffusionPipeline,
        UNet2DConditionModel,
    )
    from transformers import CLIPTextModel

    torch.manual_seed(seed)
    tokenizer, config = clip_of(folder)
    text = CLIPTextModel(config)
    unet = UNet2DConditionModel(  # type: ignore[no-untyped-call]
        sample_size=8,
        block_out_channels=(8, 16),
        layers_per_block=1,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D" if attends else "DownBlock2D"),
        mid_block_type="UNetMidBlock2DCrossAttn" if attends else None,
        up_block_types=("CrossAttnUpBlock2D" if attends else "UpBlock2D", "UpBlock2D"),
        cross_attention_dim=16,
        attention_head_dim=8,
        norm_num_groups=4,
    )
    vae = vae_of()
    pipe: Any = StableDiffusionPipeline(  # type: ignore[no-untyped-call]
        vae=vae,
        text_encoder=text,
        tokenizer=tokenizer,
        unet=unet,
        scheduler=DDIMScheduler(  # type: ignore[no-untyped-call]
            clip_sample=False, steps_offset=1, prediction_type=predicts
        ),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    pipe.save_pretrained(folder / "pipeline")
    return folder / "pipeline"


def make_xl(folder: Path, *, seed: int = 0) -> Path:
    """A pipeline of Stable Diffusion XL, with two text encoders, that draws 16 x 16 images."""
    import diffusers
    from transformers import (
        CLIPTextModel,
        CLIPTextModelWithProjection,
        CLIPTokenizer,
    )

    torch.manual_seed(seed)
    tokenizer, config = clip_of(folder, projection_dim=24)
    unet = diffusers.UNet2DConditionModel(  # type: ignore[no-untyped-call]
        sample_size=8,
        block_out_channels=(8, 16),
        layers_per_block=1,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        cross_attention_dim=32,
        attention_head_dim=8,
        norm_num_groups=4,
        addition_embed_type="text_time",
        addition_time_embed_dim=8,
        projection_class_embeddings_input_dim=24 + 6 * 8,
    )
    vae = vae_of()
    pipe: Any = diffusers.StableDiffusionXLPipeline(  # type: ignore[no-untyped-call]
        vae=vae,
        text_encoder=CLIPTextModel(config),
        text_encoder_2=CLIPTextModelWithProjection(config),
        tokenizer=tokenizer,
        tokenizer_2=CLIPTokenizer.from_pretrained(folder / "words"),
        unet=unet,
        scheduler=diffusers.DDIMScheduler(  # type: ignore[no-untyped-call]
            clip_sample=False, steps_offset=1
        ),
        add_watermarker=False,
    )
    pipe.save_pretrained(folder / "pipeline")
    return folder / "pipeline"


def make_t5_tokenizer() -> Any:
    """Letters, and a few words whole; 400 rows of embeddings are more than it needs."""
    import transformers
    from tokenizers import Tokenizer
    from tokenizers.models import Unigram
    from tokenizers.pre_tokenizers import Metaspace
    from tokenizers.processors import TemplateProcessing

    pieces = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", -9.0)]
    pieces += [(f"\u2581{word}", -2.0) for word in WORDS]
    pieces += [("\u2581", -3.0), *((chr(c), -5.0) for c in range(33, 127))]
    made = Tokenizer(Unigram(pieces, unk_id=2))
    made.pre_tokenizer = Metaspace()
    made.post_processor = TemplateProcessing(
        single="$A </s>", pair="$A </s> $B </s>", special_tokens=[("</s>", 1)]
    )
    # Not among the names that transformers declares.
    return transformers.T5TokenizerFast(  # type: ignore[attr-defined]
        tokenizer_object=made, extra_ids=0, model_max_length=16
    )


def make_flow(folder: Path, family: str, *, seed: int = 0) -> Path:
    """A pipeline of ``flux`` or ``sd3`` of a few thousand weights that draws 16 x 16 images."""
    import diffusers
    from transformers import (
        CLIPTextModel,
        CLIPTextModelWithProjection,
        CLIPTokenizer,
        T5Config,
        T5EncoderModel,
    )

    torch.manual_seed(seed)
    tokenizer, config = clip_of(folder, projection_dim=16)
    t5 = T5EncoderModel(
        T5Config(vocab_size=400, d_model=32, d_kv=8, d_ff=32, num_layers=1, num_heads=2)
    )
    vae = vae_of(shift_factor=0.1, use_quant_conv=False, use_post_quant_conv=False)
    pipe: Any
    if family == "flux":
        pipe = diffusers.FluxPipeline(  # type: ignore[no-untyped-call]
            scheduler=diffusers.FlowMatchEulerDiscreteScheduler(),  # type: ignore[no-untyped-call]
            vae=vae,
            text_encoder=CLIPTextModel(config),
            tokenizer=tokenizer,
            text_encoder_2=t5,
            tokenizer_2=make_t5_tokenizer(),
            transformer=diffusers.FluxTransformer2DModel(  # type: ignore[no-untyped-call]
                in_channels=16,
                num_layers=1,
                num_single_layers=1,
                attention_head_dim=16,
                num_attention_heads=2,
                joint_attention_dim=32,
                pooled_projection_dim=16,
                axes_dims_rope=(4, 4, 8),
                guidance_embeds=True,
            ),
        )
    else:
        pipe = diffusers.StableDiffusion3Pipeline(  # type: ignore[no-untyped-call]
            scheduler=diffusers.FlowMatchEulerDiscreteScheduler(shift=3.0),  # type: ignore[no-untyped-call]
            vae=vae,
            text_encoder=CLIPTextModelWithProjection(config),
            tokenizer=tokenizer,
            text_encoder_2=CLIPTextModelWithProjection(config),
            tokenizer_2=CLIPTokenizer.from_pretrained(folder / "words"),
            text_encoder_3=t5,
            tokenizer_3=make_t5_tokenizer(),
            transformer=diffusers.SD3Transformer2DModel(  # type: ignore[no-untyped-call]
                sample_size=8,
                patch_size=1,
                in_channels=4,
                out_channels=4,
                num_layers=2,
                attention_head_dim=8,
                num_attention_heads=2,
                joint_attention_dim=32,
                caption_projection_dim=16,
                pooled_projection_dim=32,
                pos_embed_max_size=16,
            ),
        )
    pipe.save_pretrained(folder / "pipeline")
    return folder / "pipeline"


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> Iterator[None]:
    """Threads that wait for each other at every tiny operator cost more than all the work."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def pipeline_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_pipeline(tmp_path_factory.mktemp("generator"))


@pytest.fixture(scope="session")
def images_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Nine images in folders cat, dog and boat; creators Ann and Bob alternate."""
    folder = tmp_path_factory.mktemp("library")
    draws = np.random.default_rng(3)
    for number in range(9):
        place = folder / ("cat", "dog", "boat")[number % 3]
        place.mkdir(exist_ok=True)
        pixels = draws.integers(256, size=(20, 24, 3), dtype=np.uint8)
        Image.fromarray(pixels).resize((48, 40)).save(place / f"{number}.png")
        (place / f"{number}.json").write_text(
            json.dumps({"caption": f"red {place.name}", "creator": ("Ann", "Bob")[number % 2]})
        )
    return folder


@pytest.fixture(scope="session")
def flow() -> Callable[[Path, str], Path]:
    return make_flow


@pytest.fixture(scope="session")
def make_unet() -> Callable[..., Path]:
    return make_pipeline


@pytest.fixture(scope="session")
def xl_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_xl(tmp_path_factory.mktemp("xl"))


@pytest.fixture(scope="module")
def generator(pipeline_folder: Path) -> Generator:
    return load_generator(str(pipeline_folder), device="cpu")


@pytest.fixture(scope="module")
def build(generator: Generator, images_folder: Path) -> Build:
    return builder(generator, images_folder)
