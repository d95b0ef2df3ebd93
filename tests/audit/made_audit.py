"""A finished audit that was made up: tables that agree with each other, and a summary.

What a real run adds on top (manifest.json, report.html, manifest.sig) is not written here.
"""

from __future__ import annotations

import hashlib
import io
import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from made_records import HOSTILE, WORDS, gallery_keys, training_records
from PIL import Image

from ingest.record import point_id
from search.audit.tables import (
    ATTRIBUTIONS,
    CREATORS,
    IMAGES,
    REJECTS,
    SCHEMA,
    SUMMARY,
    attributions_schema,
    creators_schema,
    images_schema,
    rejects_schema,
)

TAU, B = 0.05, -0.02
NEAR_COPY, DOMINATED, NOTHING_CLOSE = 0.9, 0.5, 0.45
RESAMPLES = 1000

FLAGS = {
    "near-copy": ("Near-copy", "Looks like a copy of one training image.", f"score >= {NEAR_COPY}"),
    "one-source": ("One source", "One training image has most influence.", f">= {DOMINATED:.0%}"),
    "one-creator": ("One creator", "One creator has most of the influence.", f">= {DOMINATED:.0%}"),
    "nothing-close": ("Nothing close", "No training image is similar.", f"< {NOTHING_CLOSE}"),
    "duplicate": ("Duplicate", "An earlier image of the gallery is alike.", "distance <= 4"),
}


@dataclass
class Shares:
    """Influence by value of one field, image by image."""

    name: str
    shares: dict[str, dict[int, float]] = field(default_factory=dict)
    records: dict[str, set[str]] = field(default_factory=dict)
    top_of: dict[str, int] = field(default_factory=dict)

    def add(self, image: int, line: Mapping[str, Any]) -> None:
        value = line[self.name]
        of_image = self.shares.setdefault(value, {})
        of_image[image] = of_image.get(image, 0.0) + line["influence"]
        self.records.setdefault(value, set()).add(line["training_id"])

    def lines(self, remaining: Sequence[float], counts: np.ndarray) -> list[dict[str, Any]]:
        """``counts``: (resamples, images), how often each image is in a resample."""
        images = len(remaining)
        made = []
        values = [("known" if value else "unknown", value) for value in sorted(self.shares)]
        for kind, value in [*values, ("remaining", "")]:
            of_image = self.shares.get(value, {})
            if kind == "remaining":
                of_image = dict(enumerate(remaining))
            shares = np.array([*of_image.values()])
            means = counts[:, [*of_image]] @ shares / max(images, 1)
            low, high = np.quantile(means, [0.025, 0.975])
            known = kind != "remaining"
            made.append(
                {
                    "field": self.name,
                    "kind": kind,
                    "value": value,
                    "share": math.fsum(shares) / max(images, 1),
                    "share_low": float(low),
                    "share_high": float(high),
                    "images": int(np.count_nonzero(shares)),
                    "top_of": self.top_of.get(value, 0) if known else 0,
                    "training_images": len(self.records[value]) if known else 0,
                }
            )
        return sorted(made, key=lambda line: (-line["share"], line["kind"], line["value"]))


def make_audit(
    out: Path,
    images: int = 24,
    seed: int = 0,
    *,
    training: int = 300,
    most: int = 40,
    creators: int = 25,
    keys: Sequence[str] | None = None,
    prompts: Mapping[str, str] | None = None,
    records: Sequence[Mapping[str, str]] | None = None,
    hostile: bool = False,
    unanswered: int = 0,
    rejected: int = 2,
) -> Path:
    """Write the tables and the summary of an audit of ``images`` into the new folder ``out``.

    Args:
        images: generated images; ``len(keys)`` where those are given.
        training: records that the collection holds; every twelfth is a copy of another one.
        most: similar training images at most, for one generated image.
        creators: different ones; about a twentieth of the records have none.
        keys: of the generated images.
        records: of the training set (key, dataset, creator, licence, url, path, caption, sha256).
        hostile: captions, names, prompts and keys that mean harm among the others.
        unanswered: images at the end of the gallery with no line at all: all influence remains.
        rejected: images that could not be used, besides.
    """
    rng = np.random.default_rng(seed)
    out.mkdir(parents=True)
    names = list(keys) if keys is not None else gallery_keys(images, hostile)
    pool = (
        list(records) if records is not None else training_records(rng, training, creators, hostile)
    )
    twins: dict[str, list[int]] = {}
    for place, record in enumerate(pool):
        twins.setdefault(record["sha256"], []).append(place)
    different = list(twins.values())
    shares = [Shares(name) for name in ("creator", "licence", "dataset")]
    table: list[dict[str, Any]] = []
    with pq.ParquetWriter(out / ATTRIBUTIONS, attributions_schema()) as writer:
        waiting: list[dict[str, Any]] = []
        for number, name in enumerate(names):
            method = str(rng.choice(["complete", "exact", "estimated"], p=[0.7, 0.1, 0.2]))
            empty = number >= len(names) - unanswered
            lines = [] if empty else list(_lines(rng, name, pool, different, most, method))
            waiting += lines
            table.append(_image(rng, number, name, lines, method, table, prompts, hostile))
            for share in shares:
                for line in lines:
                    share.add(number, line)
                if lines:
                    top = lines[0][share.name]
                    share.top_of[top] = share.top_of.get(top, 0) + 1
            if len(waiting) > 20_000:
                writer.write_table(pa.Table.from_pylist(waiting, attributions_schema()))
                waiting = []
        writer.write_table(pa.Table.from_pylist(waiting, attributions_schema()))
    pq.write_table(pa.Table.from_pylist(table, images_schema()), out / IMAGES)
    counts = np.zeros((RESAMPLES, 0))
    if names:
        counts = rng.multinomial(len(names), np.full(len(names), 1 / len(names)), RESAMPLES)
    remaining = [line["remaining"] for line in table]
    totals = [line for share in shares for line in share.lines(remaining, counts)]
    pq.write_table(pa.Table.from_pylist(totals, creators_schema()), out / CREATORS)
    refused = [
        {"image": f"bad-{n}.png", "path": f"bad-{n}.png", "reason": "not an image", "detail": ""}
        for n in range(rejected)
    ]
    pq.write_table(pa.Table.from_pylist(refused, rejects_schema()), out / REJECTS)
    summary = _summary(table, totals, pool, rejected)
    text = json.dumps(summary, sort_keys=True, indent=2, ensure_ascii=False)
    (out / SUMMARY).write_text(text + "\n", encoding="utf-8")
    return out


@cache
def made_picture(name: str, side: int = 96, kind: str = "PNG") -> bytes:
    """An image file of ``side`` x ``side`` pixels: soft shapes, always the same for a name."""
    rng = np.random.default_rng(int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big"))
    small = rng.integers(0, 255, (4, 4, 3), dtype=np.uint8)
    picture = Image.fromarray(small).resize((side, side), Image.Resampling.BICUBIC)
    file = io.BytesIO()
    picture.save(file, kind)
    return file.getvalue()


def each(
    picture_of: Callable[[str], bytes | None],
) -> Callable[[Sequence[str]], list[bytes | None]]:
    """What gives one picture, for many names."""
    return lambda names: [picture_of(name) for name in names]


def _lines(
    rng: np.random.Generator,
    name: str,
    pool: Sequence[Mapping[str, str]],
    different: Sequence[Sequence[int]],
    most: int,
    method: str,
) -> Iterator[dict[str, Any]]:
    """Lines of one generated image, calibrated as the real ones are."""
    largest = float(rng.uniform(0.3, 0.98))
    wanted = min(1 + int(rng.exponential(most / 3)), most, len(different))
    below = np.sort(rng.exponential(TAU * float(rng.uniform(0.3, 2)), wanted))
    similarities = largest - below + below[0]
    weights = np.exp((similarities - largest) / TAU) + B
    kept = int(np.count_nonzero(weights > 0))
    remaining = float(rng.beta(1.2, 6)) if rng.random() < 0.9 else float(rng.uniform(0.4, 0.95))
    influences = weights[:kept] / weights[:kept].sum() * (1 - remaining)
    # Some are liked by every image, so that creators' shares differ.
    chosen = (len(different) * rng.power(0.6, 3 * kept)).astype(int)
    places = list(dict.fromkeys(chosen.tolist()))[:kept]
    if len(places) < kept:
        others = (place for place in range(len(different)) if place not in places)
        places += islice(others, kept - len(places))
    spread = 0.15 if method == "estimated" else 0.0
    for rank, place in enumerate(places, start=1):
        copies = different[place]
        influence = float(influences[rank - 1]) / len(copies)
        for copy in copies:
            record = pool[copy]
            yield {
                "image": name,
                "rank": rank,
                "training_id": str(point_id(record["dataset"], record["key"])),
                "training_key": record["key"],
                **{column: text for column, text in record.items() if column != "key"},
                "similarity": float(similarities[rank - 1]),
                "influence": influence,
                "influence_low": influence * (1 - spread),
                "influence_high": min(influence * (1 + spread), 1.0),
                "method": method,
            }


def _image(
    rng: np.random.Generator,
    number: int,
    name: str,
    lines: Sequence[Mapping[str, Any]],
    method: str,
    before: Sequence[Mapping[str, Any]],
    prompts: Mapping[str, str] | None,
    hostile: bool,
) -> dict[str, Any]:
    """The line of one generated image, from its lines of attributions."""
    remaining = max(1 - math.fsum(line["influence"] for line in lines), 0.0)
    by_rank: dict[int, list[float]] = {}
    by_creator: dict[str, list[float]] = {}
    for line in lines:
        by_rank.setdefault(line["rank"], []).append(line["influence"])
        if line["creator"]:
            by_creator.setdefault(line["creator"], []).append(line["influence"])
    shares = [math.fsum(of_rank) for of_rank in by_rank.values()]
    entropy = -math.fsum(p * math.log(p) for p in [*shares, remaining] if p > 0)
    best = sorted((-math.fsum(of), creator) for creator, of in by_creator.items())
    main, main_share = (best[0][1], -best[0][0]) if best else ("", 0.0)
    top = lines[0] if lines else None
    similarity = top["similarity"] if top else None
    score = max(similarity - 0.04, 0.0) if similarity is not None else None
    duplicate = before[number - 3]["image"] if number % 17 == 16 else ""
    copied = score is not None and score >= NEAR_COPY
    flags = {
        "near-copy": copied,
        "one-source": bool(shares) and shares[0] >= DOMINATED,
        "one-creator": main_share >= DOMINATED,
        "nothing-close": similarity is None or similarity < NOTHING_CLOSE,
        "duplicate": bool(duplicate),
    }
    spread = 0.15 * (1 - remaining) if method == "estimated" else 0.0
    prompt = " ".join(rng.choice(WORDS, 4))
    if prompts is not None:
        prompt = prompts.get(name, "")
    elif hostile and number % 2:
        prompt = HOSTILE[number // 2 % len(HOSTILE)]
    return {
        "image": name,
        "path": f"gallery/{name}",
        "sha256": hashlib.sha256(name.encode()).hexdigest(),
        "width": 64,
        "height": 64,
        "prompt": prompt,
        "metadata": json.dumps({"seed": number}),
        "remaining": remaining,
        "remaining_low": max(remaining - spread, 0.0),
        "remaining_high": min(remaining + spread, 1.0),
        "method": method,
        "support": None if method == "estimated" else len(lines) + int(rng.integers(0, 50)),
        "sources": len(shares),
        "entropy": entropy,
        "effective_sources": math.exp(entropy),
        "top_id": top["training_id"] if top else "",
        "top_key": top["training_key"] if top else "",
        "top_creator": top["creator"] if top else "",
        "top_influence": shares[0] if shares else 0.0,
        "top_similarity": similarity,
        "main_creator": main,
        "main_creator_share": main_share,
        "flags": sorted(flag for flag, raised in flags.items() if raised),
        "copy_of": top["training_id"] if top and copied else "",
        "copy_score": score,
        "duplicate_of": duplicate,
        "note": "",
    }


def _summary(
    table: Sequence[Mapping[str, Any]],
    totals: Sequence[Mapping[str, Any]],
    pool: Sequence[Mapping[str, str]],
    rejected: int,
) -> dict[str, Any]:
    def median(column: str) -> float:
        return float(np.median([line[column] for line in table])) if table else 0.0

    fields = list(dict.fromkeys(line["field"] for line in totals))
    methods = [line["method"] for line in table]
    digest = hashlib.sha256("".join(line["sha256"] for line in table).encode()).hexdigest()
    return {
        "schema": SCHEMA,
        "gallery": {"name": "gallery", "images": len(table)}
        | {"rejected": rejected, "inputs_sha256": digest},
        "totals": {
            "images": len(table),
            "rows": sum(line["sources"] for line in table),
            "training_images": sum(
                line["training_images"] for line in totals if line["field"] == fields[0]
            ),
            "remaining_mean": math.fsum(line["remaining"] for line in table) / max(len(table), 1),
            "effective_sources_median": median("effective_sources"),
            "top_influence_median": median("top_influence"),
            "methods": {method: methods.count(method) for method in sorted(set(methods))},
            "flags": {flag: sum(flag in line["flags"] for line in table) for flag in FLAGS},
        },
        "settings": {
            "k": 50,
            "mass": 0.99,
            "without": {},
            "by": fields,
            "exact": False,
            "thresholds": {
                "near_copy": NEAR_COPY,
                "look_from": 0.3179,
                "one_source": DOMINATED,
                "one_creator": DOMINATED,
                "nothing_close": NOTHING_CLOSE,
                "duplicate": 4,
            },
            "copy_model": "",
            "precision": "auto",
            "part_size": 256,
            "batch_size": 32,
            "max_pixels": 100_000_000,
            "max_bytes": 1 << 26,
        },
        "model": {"name": "made-up", "backbone": "made-up", "tuned_on": "made-up pairs"}
        | {"fingerprint": "f" * 16, "feature_fingerprint": "e" * 16},
        "calibrator": {"tau": TAU, "b": B, "fitted_on": "made-up pairs"},
        "collection": {
            "name": "clipart",
            "images": len(pool),
            "index": {"backend": "edge", "points": len(pool), "dim": 64, "ef": 128},
        },
        "flags": {
            name: {"title": title, "definition": definition}
            | {"threshold": threshold, "error": "not measured: made up"}
            for name, (title, definition, threshold) in FLAGS.items()
        },
        "creators": [
            {"field": name, "values": sum(line["field"] == name for line in totals)}
            for name in fields
        ],
        "versions": {"attrib": "0.1.0", "python": "3.11.2", "torch": "2.4.0", "numpy": "1.26.4"},
        "limits": "A similarity-based estimate, not a causal proof.",
    }
