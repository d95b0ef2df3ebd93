"""Names and records for a made-up audit, some of which mean harm."""

from __future__ import annotations

import hashlib

import numpy as np

HOSTILE = [
    "</script><script>document.title='run'</script>",
    "<!--<script>",
    "<img src=x onerror=\"document.title='run'\">",
    "\"><svg onload=alert(1)>' &amp; `${1}` \\u003c \\",
    "line\nbreak\ttab\u2028separator\u2029 \u202eright to left\u202c nul\x01 \ufffe",
    "=HYPERLINK(\"https://evil.example\")",
    "javascript:alert(1)",
    "x" * 3000,
    "e\u0301\u0327\u0300\u0301" * 20 + " \U0001f600 \u4e2d\u6587 \u0627\u0644\u0639",
]  # fmt: skip

_FIRST = ["Ada", "Brett", "Chidi", "Dilnoza", "Emre", "Fatou", "Gábor", "Hana", "Ines", "Jürgen"]
_LAST = ["Roper", "Nowak", "Okafor", "Lindqvist", "Tanaka", "Moreau", "Silva", "O'Neill", "Çelik"]
WORDS = ["flag", "frog", "arrow", "house", "tree", "harbour", "lamp", "mountain", "owl", "bicycle"]
_LICENCES = ["public domain", "CC0-1.0", "CC-BY-4.0", ""]


def gallery_keys(images: int, hostile: bool) -> list[str]:
    keys = [f"{number:05d}.png" for number in range(images)]
    if hostile:
        for number, text in enumerate(HOSTILE[: len(keys)]):
            keys[number] = f"{number}/{text}"
    return keys


def training_records(
    rng: np.random.Generator, training: int, creators: int, hostile: bool
) -> list[dict[str, str]]:
    names = [
        f"{_FIRST[n % len(_FIRST)]} {_LAST[n // len(_FIRST) % len(_LAST)]}"
        + (f" {n // 90 + 1}" if n >= 90 else "")
        for n in range(creators)
    ]
    popular = 1 / np.arange(1, creators + 1)
    made: list[dict[str, str]] = []
    for number in range(training):
        key = f"{number:06x}"
        unknown = rng.random() < 0.05
        creator = "" if unknown else names[int(rng.choice(creators, p=popular / popular.sum()))]
        words = " ".join(rng.choice(WORDS, 3))
        record = {
            "key": key,
            "dataset": "clipart" if number % 7 else "photographs",
            "creator": creator,
            "licence": str(rng.choice(_LICENCES, p=[0.6, 0.2, 0.15, 0.05])),
            "url": f"https://images.example/{key}.jpg" if number % 3 else "",
            "path": f"images/{key}.jpg",
            "caption": words if number % 11 else "",
            "sha256": hashlib.sha256(key.encode()).hexdigest(),
        }
        if number % 12 == 5:
            record["sha256"] = made[int(rng.integers(number))]["sha256"]
        if hostile and number % 4 == 1:
            text = HOSTILE[number // 4 % len(HOSTILE)]
            record |= {"caption": text, "creator": text if number % 8 == 1 else creator}
            record |= {"url": text if number % 8 == 5 else record["url"]}
        made.append(record)
    return made
