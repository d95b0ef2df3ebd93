"""The search service: attribution over HTTP."""
