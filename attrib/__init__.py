"""Finds the training images that most influenced a generated image."""

__version__ = "0.1.0"
