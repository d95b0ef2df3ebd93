"""What a large image took is given back to the system, so that it is not paid for for ever."""

from __future__ import annotations

from PIL import Image

__all__ = ["give_back_memory"]

_BLOCK_BYTES = 256 * 1024 * 1024


def give_back_memory() -> None:
    """Have Pillow take an image's memory in one piece, for the whole process.

    Its pieces are 16 MiB otherwise, which the C library keeps, thread by thread, as it is told to
    for the model's sake (`embed.allocator`): a few images of 49 million pixels left a service with
    2.4 GB that it had no use for. Pieces of more than 32 MiB go back to the system.
    """
    Image.core.set_block_size(_BLOCK_BYTES)  # type: ignore[attr-defined]
