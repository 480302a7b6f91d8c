"""Drop calls that nothing uses, and weights that no call reads; inputs stay.

y = relu(x); z = tanh(x); return y     ->     y = relu(x); return y
"""

from __future__ import annotations

from torch2mlx.capture import Captured


def drop_dead_code(captured: Captured) -> bool:
    """Erase what does not reach the output; the graph is functional, so nothing else counts."""
    changed = False
    for node in reversed(list(captured.graph.nodes)):
        if node.op == "output" or node.users:
            continue
        if node.name in captured.state:
            continue  # written, though never read
        if node.op == "placeholder" and captured.weights.pop(node.name, None) is None:
            continue  # an input
        captured.graph.erase_node(node)
        changed = True
    return changed
