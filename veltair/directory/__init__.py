"""The control plane: which models exist, who may use them, where they run, and that they keep running."""

from veltair.directory.service import Ready, serve

__all__ = ["Ready", "serve"]
