"""Fold each BatchNorm into the convolution or linear layer before it, for inference alone.

    batch_norm(conv2d(x, weight, bias), gamma, beta, mean, variance)
    conv2d(x, weight * scale, beta + (bias - mean) * scale)

A BatchNorm with no such layer before it becomes x * scale + shift. The new arrays are not computed here:
the weight plan says how, so that every checkpoint can be converted.
"""

from __future__ import annotations

from collections import Counter

import torch
import torch.fx

from torch2mlx.capture import Captured
from torch2mlx.capture.provenance import source_line
from torch2mlx.ir.decision import Decision
from torch2mlx.ir.layer import Weight
from torch2mlx.passes.rewrite import arguments, call, replace, tensor_of, with_arguments
from torch2mlx.weights.folding import SCALE, SHIFT

aten = torch.ops.aten
Node = torch.fx.Node

CONVOLUTIONS = {
    aten.conv1d.default,
    aten.conv2d.default,
    aten.conv3d.default,
    aten.conv1d.padding,
    aten.conv2d.padding,
    aten.conv3d.padding,
}
TRANSPOSED = {
    aten.conv_transpose1d.default,
    aten.conv_transpose2d.input,
    aten.conv_transpose3d.input,
}
LAYERS = {aten.linear.default, *CONVOLUTIONS, *TRANSPOSED}


def fold_batch_norm(captured: Captured) -> bool:
    """Fold every BatchNorm that goes by running statistics."""
    changed = False
    for norm in list(captured.graph.nodes):
        if norm.target is aten.batch_norm.default:
            known = _statistics(captured, norm)
            if known and (
                _into_layer(captured, norm, known) or _into_scale(captured, norm, known)
            ):
                changed = True
    return changed


def _statistics(captured: Captured, norm: Node) -> list[Node] | None:
    """Its [gamma, beta, mean, variance], or [mean, variance], if these are all stored weights."""
    given = arguments(norm)
    affine = [given["weight"], given["bias"]]
    statistics = [given["running_mean"], given["running_var"]]
    if given["training"] or None in statistics or affine.count(None) == 1:
        return None
    found = [*(w for w in affine if w is not None), *statistics]
    dtype = norm.meta["val"].dtype
    keys = {_key(captured, node) for node in found}
    if None in keys or keys & captured.state_keys:
        return None
    return found if all(n.meta["val"].dtype == dtype for n in found) else None


def _into_layer(captured: Captured, norm: Node, known: list[Node]) -> bool:
    """Fold a BatchNorm into the layer before it, if that has weights of its own."""
    layer = norm.args[0]
    if not isinstance(layer, Node) or list(layer.users) != [norm]:
        return False
    axis = _channel_axis(layer)
    if axis is None:
        return False
    weight, bias = arguments(layer)["weight"], arguments(layer)["bias"]
    own = [weight] if bias is None else [weight, bias]
    key = _key(captured, weight)
    dtype = norm.meta["val"].dtype
    fits = all(
        _key(captured, w) and w.meta["val"].dtype == dtype for w in own  # type: ignore[union-attr]
    )
    if key is None or not fits or _uses(captured)[key] != 1:
        return False
    owner, _, _ = key.rpartition(".")
    scaled = _made(
        captured, norm, key, SCALE, [weight, *known[:-2][:1], known[-1]], owner, axis
    )
    name = f"{owner}.bias" if owner else "bias"
    shift = _made(captured, norm, name, SHIFT, [*own[1:], *known], owner)
    new = with_arguments(layer, weight=scaled, bias=shift)
    _decide(captured, norm, known, f"it is in the weights of {owner or 'the layer'}")
    replace(norm, new)
    layer.graph.erase_node(layer)
    return True


def _channel_axis(layer: Node) -> int | None:
    """The axis of the weight that has the channels of the result; None for other operations."""
    value = tensor_of(layer)
    if value is None or layer.target not in LAYERS:
        return None
    if layer.target is aten.linear.default:
        return 0 if value.ndim == 2 else None
    weight = tensor_of(arguments(layer)["weight"])
    if weight is None or weight.ndim != value.ndim:
        return None
    if layer.target in TRANSPOSED:
        return 1 if arguments(layer)["groups"] == 1 else None
    return 0


def _into_scale(captured: Captured, norm: Node, known: list[Node]) -> bool:
    """x * scale + shift, under the names of the weight and the bias of the BatchNorm."""
    if len(known) < 4 or any(
        _uses(captured)[_key(captured, w) or ""] != 1 for w in known[:2]
    ):
        return False
    x = norm.args[0]
    gamma, beta, _, variance = known
    keys = [_key(captured, gamma) or "", _key(captured, beta) or ""]
    parts = [[gamma, variance], known]
    made = [
        _made(captured, norm, key, merge, sources)
        for key, merge, sources in zip(keys, (SCALE, SHIFT), parts, strict=True)
    ]
    ones = [1] * (norm.meta["val"].ndim - 2)
    scale, shift = (
        call(norm, aten.view.default, w, [-1, *ones]) if ones else w for w in made
    )
    product = call(norm, aten.mul.Tensor, x, scale)
    _decide(captured, norm, known, "no layer of weights is before it: it is a scale")
    replace(norm, call(norm, aten.add.Tensor, product, shift))
    return True


def _key(captured: Captured, node: object) -> str | None:
    """The state dict key of a stored weight, the first one where it has several; None for others."""
    if not isinstance(node, Node) or node.name in captured.folded:
        return None
    key = captured.weights.get(node.name)
    return key if key is None else captured.aliases.get(key, key)


def _uses(captured: Captured) -> Counter[str]:
    """How many calls take each weight."""
    return Counter(
        _key(captured, node) or ""
        for node in captured.graph.nodes
        if node.op == "placeholder"
        for _ in node.users
    )


def _made(
    captured: Captured,
    norm: Node,
    key: str,
    merge: str,
    sources: list[Node],
    owner: str | None = None,
    axis: int = 0,
) -> Node:
    """A new placeholder for what `merge` makes of some weights."""
    with captured.graph.inserting_before(next(iter(captured.graph.nodes))):
        new = captured.graph.placeholder(f"f_{key.replace('.', '_')}")
    new.meta["val"] = (sources[0] if merge == SCALE else sources[-1]).meta["val"]
    captured.weights[new.name] = key
    captured.folded[new.name] = Weight(
        tuple(_key(captured, source) or "" for source in sources),
        merge,
        owner=owner,
        eps=arguments(norm)["eps"],
        axis=axis,
    )
    return new


def _decide(captured: Captured, norm: Node, known: list[Node], why: str) -> None:
    path, _, _ = (_key(captured, known[-1]) or "").rpartition(".")
    captured.decisions.append(
        Decision("folded", path or "BatchNorm", why, source_line(norm))
    )
