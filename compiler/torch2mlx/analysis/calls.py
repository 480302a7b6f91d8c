"""The verdict on each call of a captured graph, told by what lowering made of it."""

from __future__ import annotations

import operator
from collections.abc import Iterator

import torch.fx

from torch2mlx.analysis.alternatives import alternative
from torch2mlx.analysis.findings import Call, Verdict
from torch2mlx.analysis.flops import Counter
from torch2mlx.capture import Captured
from torch2mlx.capture.opaque import MODULE, call_of
from torch2mlx.capture.provenance import module_calls, source_line
from torch2mlx.emit.functions import described, is_helper
from torch2mlx.lower.driver import Survey, survey
from torch2mlx.lower.regions import FLAT
from torch2mlx.lower.sizes import SIZE_FUNCTIONS

# What stands beside the function that does the work
SECONDARY = {"mx.transpose", "x.astype", "x.dim", "x[...]"}
UNREACHED = "what it takes comes from a refused call, so it was not looked at"


def calls_in(captured: Captured) -> list[Call]:
    """Every operator call of a captured and simplified graph."""
    found = survey(captured)
    made: dict[torch.fx.Node, list[torch.fx.Node]] = {}
    for node in found.graph.nodes:
        made.setdefault(node.meta.get("origin"), []).append(node)
    flops = Counter(captured)
    return [
        _call(node, captured, found, made.get(node, []), flops)
        for node in captured.graph.nodes
        if _is_call(node)
    ]


def _is_call(node: torch.fx.Node) -> bool:
    plumbing = (operator.getitem, *SIZE_FUNCTIONS, *FLAT)
    return node.op == "call_function" and node.target not in plumbing


def _call(
    node: torch.fx.Node,
    captured: Captured,
    found: Survey,
    made: list[torch.fx.Node],
    flops: Counter,
) -> Call:
    inner = [call for call in module_calls(node) if call.path][-1:]
    path = inner[0].path if inner else ""
    cls = inner[0].cls if inner else captured.model_class
    op = str(node.target)
    if node.target is MODULE:
        op = f"{type(call_of(str(node.args[2])).module).__name__} (as a whole)"
    verdict, reason = Verdict.MAPS, ""
    if node in found.refused:
        verdict, reason = Verdict.REFUSED, found.refused[node]
    elif node in found.unreached:
        verdict, reason = Verdict.UNKNOWN, UNREACHED
    elif any(is_helper(n.target) for n in made):
        verdict = Verdict.HELPER
    return Call(
        op,
        verdict,
        () if reason else tuple(_becomes(made)),
        path,
        cls,
        source_line(node),
        reason,
        alternative(node.target, reason) if verdict is Verdict.REFUSED else "",
        frozenset(_parameters(node, captured)),
        flops.count(node),
    )


def _becomes(made: list[torch.fx.Node]) -> list[str]:
    """The layer that a call became, else its functions, the incidental ones left out."""
    names = dict.fromkeys(
        (
            f"nn.{node.meta['layer'].cls.__name__}"
            if node.op == "call_module"
            else described(node.target)
        )
        for node in made
        if node.op in ("call_module", "call_function")
    )
    layers = [name for name in names if name.startswith("nn.") and name[3:4].isupper()]
    main = [name for name in names if name not in SECONDARY]
    return layers or main or list(names)


def _parameters(node: torch.fx.Node, captured: Captured) -> Iterator[str]:
    for operand in node.all_input_nodes:
        if operand.name in captured.folded:
            keys = captured.folded[operand.name].sources
        elif operand.name in captured.weights:
            keys = (captured.weights[operand.name],)
        else:
            continue
        for key in keys:
            key = captured.aliases.get(key, key)
            if key in captured.trainable:
                yield key
