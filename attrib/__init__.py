"""Finds the training images that most influenced a generated image, and says by how much.

import attrib

with attrib.open("attrib-data") as collection:
    answer = collection.query("generated.png", k=50)
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from attrib.client import Connected as Connected
    from attrib.client import connect as connect
    from attrib.opened import Opened as Opened
    from attrib.opened import open_data as open
    from search.answer import Attribution as Attribution

__all__ = ["Attribution", "Connected", "Opened", "__version__", "connect", "open"]

__version__ = "0.1.0"

_WHERE = {
    "Attribution": ("search.answer", "Attribution"),
    "Connected": ("attrib.client", "Connected"),
    "Opened": ("attrib.opened", "Opened"),
    "connect": ("attrib.client", "connect"),
    "open": ("attrib.opened", "open_data"),
}


def __getattr__(name: str) -> Any:  # noqa: ANN401 (what a module's attributes are)
    """Import what is asked for only then, so that ``attrib --help`` stays fast."""
    if name not in _WHERE:
        raise AttributeError(f"module 'attrib' has no attribute {name!r}")
    from importlib import import_module

    module, attribute = _WHERE[name]
    return getattr(import_module(module), attribute)
