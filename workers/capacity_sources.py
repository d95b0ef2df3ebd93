"""What `attrib plan` reckons with: every coefficient with where it comes from.

A figure is *measured* (by a command of this repository, on the machine named), *published* (by
others, with a link) or *assumed* (with the reason). What nobody has measured or published has no
figure here, and a plan that needs it asks for it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

__all__ = [
    "CODE_BITS",
    "COEFFICIENTS",
    "GPUS",
    "NETWORKS",
    "UNPUBLISHED_GPUS",
    "Basis",
    "Coefficient",
    "gpu_rate",
]

Basis = Literal["measured", "published", "assumed", "given"]

MACHINE = "2 cores (AMD EPYC, AVX2)"
_LAION_RUN = "https://qdrant.tech/documentation/tutorials-operations/large-scale-search/"
_CHECKLIST = "https://qdrant.tech/documentation/cloud/production-checklist/"
_QUANTIZATION = "https://qdrant.tech/documentation/manage-data/quantization/"
_TIMM = "https://github.com/huggingface/pytorch-image-models/blob/main/results/"
_AITEMPLATE = "https://github.com/facebookincubator/AITemplate/tree/main/examples/04_vit"
_OPTIMIZERS = "https://github.com/qdrant/qdrant/blob/master/lib/shard/src/optimizers/config.rs"
_SCALE = f"`python -m benchmarks.scale`, {MACHINE}"


@dataclass(frozen=True)
class Coefficient:
    """A number that a formula uses.

    Attributes:
        name: as formulas write it.
        value: in `unit`.
        unit: bytes are bytes, never kilobytes; GiB are 2**30 of them.
        basis: how it is known.
        source: the command and the machine, a link, or the reason.
    """

    name: str
    value: float
    unit: str
    basis: Basis
    source: str


CODE_BITS = {"none": 0.0, "int8": 8.0, "turbo4": 4.0, "turbo2": 2.0, "turbo1": 1.0, "binary": 1.0}
"""Bits that a quantized code spends on one number of a vector."""

_CODE_EXTRA = {"int8": 4.0, "turbo4": 8.0, "turbo2": 8.0, "turbo1": 8.0, "binary": 0.0}


def _coefficients() -> dict[str, Coefficient]:
    all_ = (
        *(
            Coefficient(
                f"code_{name}",
                extra,
                "bytes a vector",
                "measured",
                f"beside the code itself, whose bits are published ({_QUANTIZATION}); {_SCALE}",
            )
            for name, extra in _CODE_EXTRA.items()
        ),
        Coefficient(
            "link",
            4,
            "bytes",
            "published",
            f"a link of the graph is a 4-byte number, a point has 2 m of them ({_LAION_RUN}); they "
            "are packed: 61 bytes instead of 128 were found at 72,000 points, m 16",
        ),
        Coefficient(
            "id",
            40,
            "bytes a point",
            "published",
            f"version 4, id by number 16, number by id 16 + 4: the tables at {_LAION_RUN} with "
            "UUIDs, which attrib's ids are",
        ),
        Coefficient(
            "number_id",
            32,
            "bytes a point",
            "published",
            f"the same with whole numbers as ids: 4 + 16 + 8 + 4 ({_LAION_RUN})",
        ),
        Coefficient(
            "field_index",
            325,
            "bytes a point",
            "measured",
            f"on disk, those of creator, licence, dataset, sha256 and key; {_SCALE}",
        ),
        Coefficient(
            "system",
            8.34e9,
            "bytes a node",
            "published",
            f"what the system and the server kept besides the data ({_LAION_RUN})",
        ),
        Coefficient(
            "list_payload",
            500,
            "bytes a point",
            "published",
            f"200 GB for 400 M points: url, caption, licence, ... of LAION-400M ({_LAION_RUN})",
        ),
        Coefficient(
            "own_payload",
            167,
            "bytes a point",
            "measured",
            f"key, dataset, path, sha256 and shard as JSON; {_SCALE}",
        ),
        Coefficient(
            "merging",
            1,
            "segment a node",
            "assumed",
            "a segment is written anew while the old one still answers; one at a time",
        ),
        Coefficient(
            "metadata",
            323,
            "bytes an image",
            "measured",
            f"Parquet, examples/training; {_SCALE}",
        ),
        Coefficient(
            "thumbnail",
            5463,
            "bytes an image",
            "measured",
            f"at most 256 px, examples/training (clip art; photographs take more); {_SCALE}",
        ),
        Coefficient(
            "ledger",
            239,
            "bytes an image",
            "measured",
            f"examples/training; {_SCALE}",
        ),
        Coefficient(
            "segment",
            256_000 * 1024,
            "bytes of vectors a core",
            "published",
            f"the server's default for the largest segment ({_OPTIMIZERS})",
        ),
        Coefficient(
            "shards",
            2,
            "shards a node",
            "published",
            f"at least, so that a cluster can grow ({_CHECKLIST})",
        ),
        Coefficient(
            "upload",
            625,
            "points/s a core",
            "published",
            f"5,000/s on 8 cores, 512 numbers, float16 ({_LAION_RUN}); more cores in proportion: "
            "assumed",
        ),
        Coefficient(
            "indexing",
            500,
            "points/s a core",
            "published",
            f"4,000/s on 8 cores, 512 numbers, m 6, during the upload ({_LAION_RUN}); the slower "
            "one: here 1,000,000 points, m 16, took 352 s on 2 cores, 1,420 (benchmarks/README.md)",
        ),
        Coefficient(
            "run_dim",
            512,
            "numbers a vector",
            "assumed",
            "those two rates are for so many; a longer vector takes as much longer",
        ),
        Coefficient(
            "run_m",
            6,
            "links",
            "assumed",
            "that rate is for this m; more take as much longer (from 6 to 16 it was 2.2 times, not "
            f"2.7, at 72,000 points; {_SCALE})",
        ),
        Coefficient(
            "overlap",
            0.90,
            "of the bare device",
            "measured",
            "what a whole ingest keeps of embedding alone; `python -m benchmarks.ingest`, "
            f"{MACHINE}; on a GPU with enough decoding cores: assumed",
        ),
        Coefficient(
            "decoding",
            140,
            "images/s a core",
            "measured",
            f"512 x 512 JPEG to pixels and thumbnail, the machine shared; {_SCALE}",
        ),
        Coefficient(
            "support",
            128,
            "points asked for",
            "measured",
            "the first request of a complete answer (search/support.py)",
        ),
        Coefficient(
            "graph_ms",
            1.25,
            "ms a graph and core",
            "measured",
            "a search of 128 in a graph of 36,000 points in memory, turbo4; larger ones take "
            f"longer; {_SCALE}",
        ),
        Coefficient(
            "graph_disk_ms",
            32.5,
            "ms a graph and core",
            "published",
            f"0.7 s with 1,000 vectors read from disk, 2.2 s with 5,000: 0.325 s are left without "
            f"any, at 10 graphs a core ({_LAION_RUN})",
        ),
        Coefficient(
            "read_ms",
            0.375,
            "ms a vector read",
            "published",
            f"the same two times: 1.5 s for 4,000 more vectors, asynchronous reads ({_LAION_RUN})",
        ),
    )
    return {coefficient.name: coefficient for coefficient in all_}


COEFFICIENTS = _coefficients()
"""By name."""

NETWORKS = {
    "efficientnet-lite0": "tf_efficientnet_lite0@224",
    "dino-vitb16": "vit_base_patch16_224@224",
    "clip-vitb32": "vit_base_patch32_clip_quickgelu_224@224",
    "vit-b16-384": "vit_base_patch16_384@384",
    "mocov3-vitb16": "vit_base_patch16_224@224",
    "sscd-disc-mixup": "resnet50@288",
    "csd-vitl14": "vit_large_patch14_clip_quickgelu_224@224",
    "dinov3-vitb16": "vit_base_patch16_dinov3@256",
    "siglip2-b16": "vit_base_patch16_siglip_224@224",
}
"""Backbone to the network and input size under which benchmarks name it."""


@dataclass(frozen=True)
class Gpu:
    """A device and the images/s that were published for it, forward pass alone.

    Attributes:
        source: link and circumstances.
        basis: how the rates are known.
        rates: by network and input size.
    """

    source: str
    basis: Basis
    rates: dict[str, float]


def _timm(file: str, about: str, *rates: float) -> Gpu:
    """`rates` in the order of `_TIMM_NETWORKS`."""
    source = f"{about}, eager, AMP, batches of 1,024 and more, data on the device ({_TIMM}{file})"
    return Gpu(source, "published", dict(zip(_TIMM_NETWORKS, rates, strict=False)))


_TIMM_NETWORKS = (
    "tf_efficientnet_lite0@224",
    "vit_base_patch32_clip_quickgelu_224@224",
    "vit_base_patch16_224@224",
    "resnet50@288",
    "vit_base_patch16_siglip_224@224",
    "vit_base_patch16_384@384",
    "vit_large_patch14_clip_quickgelu_224@224",
    "vit_base_patch16_dinov3@256",
)

GPUS: dict[str, Gpu] = {
    "a100": Gpu(
        f"A100 40 GB, PyTorch 1.12 eager, fp16, batches of 256 ({_AITEMPLATE})",
        "published",
        {"vit_base_patch16_224@224": 2226.10},
    ),
    "rtx3090": _timm(
        "benchmark-infer-amp-nchw-pt240-cu124-rtx3090.csv",
        "RTX 3090, PyTorch 2.4",
        *(7042.0, 4601.51, 1570.66, 1939.79, 1434.62, 509.98, 325.86),
    ),
    "rtx4090": _timm(
        "benchmark-infer-amp-nchw-pt291-cu128-4090.csv",
        "RTX 4090, PyTorch 2.9",
        *(8813.06, 9834.05, 2992.79, 2631.02, 2602.48, 966.77, 656.97, 1340.21),
    ),
    "rtx5090": _timm(
        "benchmark-infer-amp-nchw-pt291-cu130-5090.csv",
        "RTX 5090, PyTorch 2.9",
        *(12723.97, 12176.16, 3915.56, 3849.63, 3322.98, 1177.68, 743.06, 1920.96),
    ),
    "rtxpro6000-maxq": _timm(
        "benchmark-infer-amp-nchw-pt291-cu130-pro6000maxq.csv",
        "RTX PRO 6000 Max-Q, PyTorch 2.9",
        *(11617.5, 14060.69, 4189.64, 3666.34, 3477.63, 1369.26, 941.53, 1929.71),
    ),
    "cpu": Gpu(
        f"no GPU: {MACHINE}, fp32, embedding alone; `python -m benchmarks.ingest`",
        "measured",
        {"tf_efficientnet_lite0@224": 81.5},
    ),
}
"""Devices with known rates, by the name that --gpu takes."""

_NVIDIA = "https://www.nvidia.com/en-us/data-center/"
_SHEETS = {
    "a100": (312, 1555),
    "h100": (989, 3350),
    "h200": (989, 4800),
    "b200": (2250, 8000),
    "a10": (125, 600),
    "l4": (121, 300),
    "l40s": (362, 864),
    "t4": (65, 320),
    "v100": (125, 900),
}
"""Dense fp16 TFLOP/s and GB/s of memory, by the data sheets (SXM where there are several)."""

UNPUBLISHED_GPUS = tuple(name for name in _SHEETS if name not in GPUS)
"""Devices that people have, and for which no rate of these networks was found."""


def gpu_rate(gpu: str, backbone: str) -> Coefficient | None:
    """Images/s of one device with that backbone, None where nothing is known.

    Where nobody published it for this device, but somebody did for an A100, the A100's grown by
    what the data sheets promise, by the lesser of arithmetic and memory: assumed, and said so.
    """
    network = NETWORKS.get(backbone, "")
    known = GPUS.get(gpu)
    rate = known.rates.get(network) if known else None
    if known is not None and rate is not None:
        return Coefficient("images_per_s", rate, "images/s a device", known.basis, known.source)
    base = GPUS["a100"].rates.get(network)
    if known is not None or gpu not in _SHEETS or base is None:
        return None
    growth = min(new / old for new, old in zip(_SHEETS[gpu], _SHEETS["a100"], strict=True))
    return Coefficient(
        "images_per_s",
        round(base * growth, 1),
        "images/s a device",
        "assumed",
        f"the A100's published {base} x {growth:.3g}, the lesser of what the data sheets promise "
        f"in fp16 arithmetic and in memory ({_NVIDIA}); nobody published this device's: measure "
        "yours and give --images-per-second",
    )
