"""Where the numbers of a model come from: its configuration, by way of the author's constructors."""

from torch2mlx.hyperparameters.twin import Twin, twin_of

__all__ = ["Twin", "twin_of"]
