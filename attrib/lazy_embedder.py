"""The former place of `embed.lazy_embedder`."""

from embed.lazy_embedder import LazyEmbedder

__all__ = ["LazyEmbedder"]
