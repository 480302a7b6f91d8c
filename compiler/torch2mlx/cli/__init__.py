"""The command `torch2mlx-compile`: argparse, progress on stderr, a summary or JSON on stdout."""

from torch2mlx.cli.command import main

__all__ = ["main"]
