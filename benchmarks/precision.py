"""Speed and faithfulness of precisions and memory formats for one backbone.

    python benchmarks/precision.py [FOLDER] [--model NAME] [--threads N] [--images N]

Every row embeds the same images; `cosine` is the lowest to plain fp32 and `top-k` the mean
overlap of the nearest neighbours within the folder. Ratios within one run are comparable, rates
between machines are not.
"""

from __future__ import annotations

import argparse
import copy
import time
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from embed.backbones import DEFAULT_BACKBONE, resolve
from embed.families import load_module
from embed.mapper import normalised

Embed = Callable[[torch.Tensor], torch.Tensor]


def variants(module: torch.nn.Module, device: str) -> dict[str, Embed]:
    """Name -> function from normalised images (n, 3, h, w) to features (n, d)."""

    def run(network: torch.nn.Module, dtype: torch.dtype | None, last: bool) -> Embed:
        layout = torch.channels_last if last else torch.contiguous_format
        network = copy.deepcopy(network).to(device, memory_format=layout)  # type: ignore[call-overload]

        def embed(images: torch.Tensor) -> torch.Tensor:
            images = images.to(device).contiguous(memory_format=layout)
            context = torch.autocast(device, dtype=dtype) if dtype else nullcontext()
            with torch.inference_mode(), context:
                features: torch.Tensor = network(images).float().cpu()
            return features

        return embed

    chosen = {
        "fp32": run(module, None, False),
        "fp32 channels_last": run(module, None, True),
        "bf16 channels_last": run(module, torch.bfloat16, True),
    }
    if device != "cpu":
        chosen["fp16 channels_last"] = run(module, torch.float16, True)
    fused = folded(module)
    chosen["fp32 fused"] = run(fused, None, False)
    chosen["fp32 fused channels_last"] = run(fused, None, True)
    return chosen


def folded(module: torch.nn.Module) -> torch.nn.Module:
    """A copy with each batch norm folded into the convolution before it.

    torch.fx cannot trace TensorFlow's "same" padding, so the neighbours are found by their order
    in the network, as timm registers them.
    """
    module = copy.deepcopy(module)
    for parent in list(module.modules()):
        before: torch.nn.Module | None = None
        for name, child in list(parent.named_children()):
            if isinstance(child, torch.nn.BatchNorm2d) and isinstance(before, torch.nn.Conv2d):
                fuse_conv_bn = torch.nn.utils.fusion.fuse_conv_bn_eval
                plain = fuse_conv_bn(before, child)
                before.weight, before.bias = plain.weight, plain.bias
                setattr(parent, name, getattr(child, "act", torch.nn.Identity()))
            before = child
    return module


def rate(embed: Embed, images: torch.Tensor, batch: int) -> float:
    """Images a second, the best of three passes over at most two batches."""
    parts = [images[i : i + batch] for i in range(0, min(len(images), 2 * batch), batch)]
    embed(parts[0])
    best = float("inf")
    for _ in range(3):
        start = time.perf_counter()
        for part in parts:
            embed(part)
        best = min(best, time.perf_counter() - start)
    return sum(len(part) for part in parts) / best


def nearest(features: np.ndarray, k: int) -> np.ndarray:
    """Positions of each row's k most similar other rows: (n, k)."""
    unit = normalised(features)
    scores = unit @ unit.T
    np.fill_diagonal(scores, -2)
    return np.argsort(-scores, axis=1)[:, :k]


def main() -> None:
    """Parse the arguments, measure, print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", nargs="?", type=Path, default=Path("examples"))
    parser.add_argument("--model", default=DEFAULT_BACKBONE)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--images", type=int, default=128)
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 16, 32, 64])
    parser.add_argument("--top", type=int, default=50)
    args = parser.parse_args()

    torch.set_num_threads(args.threads)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    backbone = resolve(args.model)
    files = sorted(p for p in args.folder.rglob("*") if p.suffix in (".jpg", ".jpeg", ".png"))
    if len(files) < 2:
        raise SystemExit(f"{args.folder} holds fewer than two images")
    files = files[:: max(1, len(files) // args.images)][: args.images]
    pixels = np.stack([backbone.preprocessing.apply(Image.open(f)) for f in files])
    mean, std = (
        torch.tensor(v).view(1, 3, 1, 1)
        for v in (backbone.preprocessing.mean, backbone.preprocessing.std)
    )
    images = (torch.from_numpy(pixels).permute(0, 3, 1, 2).contiguous() / 255 - mean) / std

    module, _ = load_module(backbone)
    k = min(args.top, len(files) - 1)
    columns = "".join(f"  b={batch:<6}" for batch in args.batches)
    print(f"{backbone.name}, {len(files)} images, {device}, {args.threads} threads; images/s")
    print(f"{'':26}{columns}  cosine     top-{k}")
    exact: np.ndarray | None = None
    for name, embed in variants(module, device).items():
        features = np.concatenate([embed(part).numpy() for part in images.split(32)])
        rates = "".join(f"  {rate(embed, images, batch):<8.1f}" for batch in args.batches)
        if exact is None:
            exact = features
        cosine = (normalised(features) * normalised(exact)).sum(axis=1).min()
        pairs = zip(nearest(features, k), nearest(exact, k), strict=True)
        overlap = np.mean([len(np.intersect1d(a, b)) / k for a, b in pairs])
        print(f"{name:26}{rates}  {cosine:.6f}  {overlap:.4f}", flush=True)


if __name__ == "__main__":
    main()
