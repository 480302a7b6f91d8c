"""Fusions: what is written out by hand becomes the one operator that it is.

v = mean(pow(x, 2), [-1], True)                    ->   y = rms_norm(x, [32], w, 1e-6)
y = mul(w, mul(x, rsqrt(add(v, 1e-6))))

Each fusion proves its numbers and shapes, and leaves the graph alone where it cannot.
"""

from __future__ import annotations

from collections.abc import Collection

import torch.fx

from torch2mlx.capture import Captured
from torch2mlx.capture.provenance import source_line
from torch2mlx.ir.decision import Decision
from torch2mlx.passes.fuse.activations import GELU, QUICK_GELU, SILU, SWIGLU
from torch2mlx.passes.fuse.attention import ATTENTION
from torch2mlx.passes.fuse.attention_mask import ATTENTION_MASK
from torch2mlx.passes.fuse.experts import (
    GATHERED_PRODUCT,
    GROUPED_ROWS,
    INVERSE_ORDER,
)
from torch2mlx.passes.fuse.fusion import Fusion
from torch2mlx.passes.fuse.layer_norm import LAYER_NORM
from torch2mlx.passes.fuse.masked_scores import MASKED_SCORES
from torch2mlx.passes.fuse.pattern import Declined, Match
from torch2mlx.passes.fuse.query_scale import QUERY_SCALE
from torch2mlx.passes.fuse.repeated_heads import GROUPED_PRODUCT, REPEATED_HEADS
from torch2mlx.passes.fuse.rms_norm import RMS_NORM
from torch2mlx.passes.fuse.rope import PARTIAL_ROPES, ROPES
from torch2mlx.passes.fuse.softmax import SOFTMAX
from torch2mlx.passes.fuse.triangle import TRIANGLE
from torch2mlx.passes.fuse.unsorted import UNSORTED_ROWS
from torch2mlx.passes.rewrite import replace
from torch2mlx.passes.views import EXPANSIONS, PERMUTES, RESHAPES

VIEWS = {*RESHAPES, *PERMUTES, *EXPANSIONS, torch.ops.aten.bitwise_not.default}

# In this order; later fusions see what earlier ones made.
FUSIONS: tuple[Fusion, ...] = (
    LAYER_NORM,
    RMS_NORM,
    GELU,
    QUICK_GELU,
    SILU,
    SWIGLU,
    ATTENTION,
    SOFTMAX,
    QUERY_SCALE,
    ATTENTION_MASK,
    MASKED_SCORES,
    REPEATED_HEADS,
    GROUPED_PRODUCT,
    ROPES,
    PARTIAL_ROPES,
    TRIANGLE,
    GROUPED_ROWS,
    GATHERED_PRODUCT,
    INVERSE_ORDER,
    UNSORTED_ROWS,
)
NAMES = tuple(fusion.name for fusion in FUSIONS)


def fuse(captured: Captured, disable: Collection[str] = ()) -> bool:
    """Apply every fusion whose name is not in `disable`."""
    changed = False
    for fusion in FUSIONS:
        if fusion.name not in disable:
            changed |= apply(captured, fusion)
    return changed


def apply(captured: Captured, fusion: Fusion) -> bool:
    """Apply one fusion wherever it fits, the largest match first."""
    changed = False
    for node in reversed(list(captured.graph.nodes)):
        if node.target in fusion.roots and (node.users or node.op == "output"):
            changed |= _fuse_at(captured, fusion, node)
    if changed:
        _drop_unused(captured)
    return changed


def _fuse_at(captured: Captured, fusion: Fusion, node: torch.fx.Node) -> bool:
    declined = ""
    start = Match(captured)
    for match in fusion.pattern.match(node, start):
        try:
            _check_inner(node, match)
            new = fusion.build(captured, node, match)
        except Declined as reason:
            declined = declined or str(reason)
            continue
        replace(node, new)
        made = f"it is `{_short_name(_without_views(new))}`"
        _decide(captured, "fused", fusion, made, new)
        return True
    if declined := declined or next(iter(start.near), fusion.hint(node)):
        _decide(captured, "declined", fusion, declined, node)
    return False


def _check_inner(root: torch.fx.Node, match: Match) -> None:
    for node in match.inner - {root}:
        if not match.inner.issuperset(node.users):
            raise Declined(f"`{_short_name(node)}` in it is used elsewhere too")


def _without_views(node: torch.fx.Node) -> torch.fx.Node:
    while node.target in VIEWS:
        node = node.all_input_nodes[0]
    return node


def _short_name(node: torch.fx.Node) -> str:
    name = getattr(node.target, "__name__", str(node.target))
    return name.partition(".")[0]


def _decide(
    captured: Captured, kind: str, fusion: Fusion, why: str, node: torch.fx.Node
) -> None:
    decision = Decision(kind, fusion.name, why, source_line(node))
    if decision not in captured.decisions:
        captured.decisions.append(decision)


def _drop_unused(captured: Captured) -> None:
    for node in reversed(list(captured.graph.nodes)):
        if node.op == "call_function" and not node.users and not node.is_impure():
            captured.graph.erase_node(node)
