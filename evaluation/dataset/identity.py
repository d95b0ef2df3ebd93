"""What a set is made with, so far as it decides the bytes that come out."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from evaluation.dataset.generator import Generator

__all__ = ["hub_commit", "identity", "threads_of"]


def identity(generator: Generator, named: Mapping[str, str]) -> dict[str, str]:
    """The generator as the plan records it.

    Adds to `named` the kind of device, on a CPU the number of threads (sums over parts of other
    sizes are rounded otherwise), and the commit where the generator is of the hub.

    Args:
        generator: loaded.
        named: what the caller knows of it; its ``device`` is where models are made, where that is
            not where this generator is.
    """
    found = {"device": generator.device.type, **named}
    found |= threads_of(found["device"])
    if commit := hub_commit(generator.name, named.get("revision")):
        found["commit"] = commit
    return found


def threads_of(device: str) -> dict[str, str]:
    """How many threads this process has, where that decides anything."""
    import torch

    return {"threads": str(torch.get_num_threads())} if device == "cpu" else {}


def hub_commit(name: str, revision: str | None) -> str:
    """The commit of a repository of the hub that was loaded; '' for a folder.

    The cache of the hub tells it, so that nothing is asked of the network. A branch such as
    ``main`` may be another commit tomorrow.
    """
    if Path(name).is_dir():
        return ""
    from huggingface_hub import try_to_load_from_cache

    found = try_to_load_from_cache(name, "model_index.json", revision=revision or None)
    # snapshots/COMMIT/model_index.json
    return Path(found).parent.name if isinstance(found, str) else ""
