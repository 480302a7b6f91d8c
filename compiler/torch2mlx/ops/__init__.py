"""The op table: ATen overload -> MLX code, one file per family."""

from importlib import import_module

FAMILIES = (
    "elementwise",
    "composed",
    "reduction",
    "shape",
    "slicing",
    "indexing",
    "creation",
    "linalg",
    "conv",
    "pooling",
    "norm",
    "attention",
    "activation",
    "random",
    "losses",
    "fft",
    "decompositions",
    "norms",
    "resample",
    "rnn",
    "dropout",
    "embedding",
)

for _family in FAMILIES:
    import_module(f"torch2mlx.ops.{_family}")
