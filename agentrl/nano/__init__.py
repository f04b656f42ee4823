"""Nano: the small policy that ships with the package, and the script that trains it."""

from pathlib import Path


def weights_dir() -> Path:
    """The folder with nano's weights, an ordinary Hugging Face model folder."""
    return Path(__file__).parent / "weights"
