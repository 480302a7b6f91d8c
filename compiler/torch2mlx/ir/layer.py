"""Weights and layers as the lowered graph holds them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Weight:
    """Where an array of the generated module comes from.

    Attributes:
        sources: State dict keys of the PyTorch model, one unless `merge` combines several.
        merge: None, or "sum" / "concat" (axis 0): how several sources become one array.
        steps: What is done to the result, in order: ("transpose", perm) or ("reshape", shape).
        trainable: False for buffers and constants.
    """

    sources: tuple[str, ...]
    merge: str | None = None
    steps: tuple[tuple[Any, ...], ...] = ()
    trainable: bool = True

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
        return Weight(self.sources, self.merge, steps, self.trainable)


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
