"""Weights and layers as the lowered graph holds them."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any


@dataclass(frozen=True)
class Weight:
    """Where an array of the generated module comes from.

    Attributes:
        sources: State dict keys of the PyTorch model, one unless `merge` combines several.
        merge: None, "sum", "concat" (axis 0) or "gru_bias": how several sources become one array.
        steps: What is done to the result, in order: ("transpose", perm), ("reshape", shape) or
            ("slice", axis, start, stop).
        trainable: False for buffers and constants.
        owner: Path of the module that it belongs to, where the sources do not say.
        expression: What is computed of the sources instead; see `torch2mlx.weights.expression`.
    """

    sources: tuple[str, ...]
    merge: str | None = None
    steps: tuple[tuple[Any, ...], ...] = ()
    trainable: bool = True
    owner: str | None = None
    expression: tuple[tuple[Any, ...], ...] = ()

    def then(self, *step: Any) -> Weight:
        """This weight with one more step, merged with the last one where the two are transposes."""
        if step[0] == "transpose" and self.steps and self.steps[-1][0] == "transpose":
            previous = self.steps[-1][1]
            perm = tuple(previous[i] for i in step[1])
            rest = self.steps[:-1]
            identity = perm == tuple(range(len(perm)))
            steps = rest if identity else (*rest, ("transpose", perm))
        else:
            steps = (*self.steps, step)
        return replace(self, steps=steps)


@dataclass
class Layer:
    """One `mlx.nn` layer: its constructor call and the weights that it owns.

    Attributes:
        cls: The `mlx.nn` class.
        args: Positional constructor arguments.
        kwargs: Keyword constructor arguments that differ from MLX's defaults.
        weights: Attribute of the layer -> where its array comes from.
    """

    cls: type
    args: tuple[Any, ...] = ()
    kwargs: dict[str, Any] = field(default_factory=dict)
    weights: dict[str, Weight] = field(default_factory=dict)
