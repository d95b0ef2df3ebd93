"""Finds the training images that most influenced a generated image, and says by how much.

import attrib

with attrib.open("attrib-data") as collection:
    answer = collection.query("generated.png", k=50)
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from attrib.opened import Opened as Opened
    from attrib.opened import open_data as open
    from search.answer import Attribution as Attribution

__all__ = ["Attribution", "Opened", "__version__", "open"]

__version__ = "0.1.0"

_WHERE = {
    "Attribution": ("search.answer", "Attribution"),
    "Opened": ("attrib.opened", "Opened"),
    "open": ("attrib.opened", "open_data"),
}


def __getattr__(name: str) -> Any:  # noqa: ANN401 (what a module's attributes are)
    """Import what is asked for only then, so that ``attrib --help`` stays fast."""
    if name not in _WHERE:
        raise AttributeError(f"module 'attrib' has no attribute {name!r}")
    from importlib import import_module

    module, attribute = _WHERE[name]
    return getattr(import_module(module), attribute)
