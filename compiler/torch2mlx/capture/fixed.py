"""Why sizes of the inputs are fixed, where no layer's weight says so already."""

from __future__ import annotations

from torch2mlx.capture.asked import Asked
from torch2mlx.capture.captured import Captured, Input
from torch2mlx.capture.enforced import enforced_axes


def note_fixed(captured: Captured, asked: Asked) -> None:
    """Note the sizes for which torch.export found one value, and the author's line that leaves one.

    Args:
        captured: Its `notes` are added to.
        asked: What was asked of the sizes.
    """
    nodes = {n.name: n for n in captured.graph.nodes if n.op == "placeholder"}
    enforced = enforced_axes(captured)
    lines: dict[str, list[str]] = {}
    for item in captured.inputs:
        for axis, size in enumerate(nodes[item.name].meta["val"].shape):
            frame = asked.fixed.get(f"{_source(item)}.size()[{axis}]")
            value = captured.expr(size)
            if value.is_number and frame and (item.name, axis) not in enforced:
                what = f"`{item.name}.shape[{axis}]` must be {value}"
                lines.setdefault(str(frame), []).append(what)
    for line, sizes in lines.items():
        captured.notes.append(f"{' and '.join(sizes)}: the model fixes it at {line}")


def _source(item: Input) -> str:
    """The input, as torch.export calls it."""
    return f"L[{item.argument!r}]" + "".join(f"[{step!r}]" for step in item.path)
