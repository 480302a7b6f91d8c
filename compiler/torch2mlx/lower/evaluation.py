"""What a lowered graph evaluates while it runs, since a size or a number depends on values."""

from __future__ import annotations

import torch.fx


def evaluation_notes(graph: torch.fx.Graph) -> list[str]:
    """One sentence that names the functions; none where the graph evaluates nothing."""
    names = [n.target.__name__ for n in graph.nodes if n.meta.get("evaluates")]
    if not names:
        return []
    called = ", ".join(f"`{name}`" for name in dict.fromkeys(names))
    return [
        f"sizes or numbers depend on values: {called} (arrays are evaluated while the model runs, so not "
        "inside mx.compile or mx.vmap, and no gradient flows through these sizes and numbers)"
    ]
