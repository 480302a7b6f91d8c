"""The op table: ATen overload -> MLX code, one file per family."""

from importlib import import_module

FAMILIES = (
    "elementwise",
    "composed",
    "special",
    "reduction",
    "histogram",
    "shape",
    "slicing",
    "indexing",
    "dynamic",
    "scatter",
    "strided",
    "backward",
    "order",
    "creation",
    "linalg",
    "conv",
    "pooling",
    "norm",
    "attention",
    "fused",
    "activation",
    "random",
    "losses",
    "fft",
    "decompositions",
    "inverses",
    "matrices",
    "calculus",
    "norms",
    "resample",
    "rnn",
    "dropout",
    "embedding",
)

for _family in FAMILIES:
    import_module(f"torch2mlx.ops.{_family}")
