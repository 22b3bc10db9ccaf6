"""A small CLIP that ships with the package, in an open_clip `local-dir:` folder; importing this needs no torch."""

from pathlib import Path

CHECKPOINT = Path(__file__).with_name("checkpoint")

__all__ = ["CHECKPOINT", "register"]


def register() -> None:
    """Make the image tower known to timm, so that `open_clip.create_model(f"local-dir:{CHECKPOINT}")` works."""
    from . import network  # noqa: F401  # pyright: ignore[reportUnusedImport]  # its decorator registers it
