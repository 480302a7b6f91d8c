"""The layer table: (ATen overload, weights that one module owns) -> `mlx.nn` layer."""

from importlib import import_module

FAMILIES = (
    "linear",
    "conv",
    "norm",
    "rope",
    "embedding",
    "pooling",
    "dropout",
    "resample",
    "recurrent",
)

for _family in FAMILIES:
    import_module(f"torch2mlx.layers.{_family}")
