"""Fold each BatchNorm into the convolution or linear layer before it, for inference alone.

    batch_norm(conv2d(x, weight, bias), gamma, beta, mean, variance)
    conv2d(x, weight * scale, beta + (bias - mean) * scale)

A BatchNorm with no such layer before it becomes x * scale + shift. What is computed of weights alone here
becomes arrays of its own in `fold_parameters`.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

import torch
import torch.fx

from torch2mlx.capture import Captured
from torch2mlx.capture.provenance import module_calls, source_line
from torch2mlx.ir.decision import Decision
from torch2mlx.passes.fold_parameters import (
    LAYERS,
    TRANSPOSED,
    key_of,
    over_weights,
    store_as,
)
from torch2mlx.passes.rewrite import arguments, call, replace, tensor_of, with_arguments

aten = torch.ops.aten
Node = torch.fx.Node


def fold_batch_norm(captured: Captured) -> bool:
    """Fold every BatchNorm that goes by running statistics."""
    changed = False
    constant = over_weights(captured)
    for norm in list(captured.graph.nodes):
        if norm.target is aten.batch_norm.default:
            known = _statistics(captured, norm)
            if known and (
                _into_layer(captured, norm, known, constant)
                or _into_scale(captured, norm, known)
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
    keys = {key_of(captured, node) for node in found}
    if None in keys or keys & captured.state_keys:
        return None
    return found if all(n.meta["val"].dtype == dtype for n in found) else None


def _into_layer(
    captured: Captured, norm: Node, known: list[Node], constant: set[Node]
) -> bool:
    """Fold a BatchNorm into the layer before it, if that has weights of its own."""
    layer = norm.args[0]
    if not isinstance(layer, Node) or list(layer.users) != [norm]:
        return False
    axis = _channel_axis(layer)
    if axis is None:
        return False
    weight, bias = arguments(layer)["weight"], arguments(layer)["bias"]
    dtype = norm.meta["val"].dtype
    own = [weight] if bias is None else [weight, bias]
    if not all(w in constant and w.meta["val"].dtype == dtype for w in own):
        return False
    owner = _owner(captured, layer, weight)
    if owner is None:
        return False
    prefix = f"{owner}." if owner else ""
    scale, shift = _scale_and_shift(norm, known, bias)
    ones = [1] * (weight.meta["val"].ndim - 1 - axis)
    factors = call(norm, aten.view.default, scale, [-1, *ones]) if ones else scale
    scaled = call(norm, aten.mul.Tensor, weight, factors)
    new = with_arguments(
        layer,
        weight=store_as(scaled, f"{prefix}weight", owner),
        bias=store_as(shift, f"{prefix}bias", owner),
    )
    _decide(captured, norm, known, f"it is in the weights of {owner or 'the layer'}")
    replace(norm, new)
    layer.graph.erase_node(layer)
    return True


def _owner(captured: Captured, layer: Node, weight: Node) -> str | None:
    """The path of the module that has the weight of a layer, if no other call takes it."""
    if weight.op != "placeholder":
        calls = module_calls(layer)
        return calls[-1].path if calls and len(weight.users) == 1 else None
    key = key_of(captured, weight)
    if key is None or _uses(captured)[key] != 1:
        return None
    return key.rpartition(".")[0]


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
    if len(known) < 4:
        return False
    keys = [key_of(captured, w) or "" for w in known[:2]]
    if any(_uses(captured)[key] != 1 for key in keys):
        return False
    ones = [1] * (norm.meta["val"].ndim - 2)
    scale, shift = (
        (
            call(norm, aten.view.default, store_as(w, key), [-1, *ones])
            if ones
            else store_as(w, key)
        )
        for w, key in zip(_scale_and_shift(norm, known), keys, strict=True)
    )
    product = call(norm, aten.mul.Tensor, norm.args[0], scale)
    _decide(captured, norm, known, "no layer of weights is before it: it is a scale")
    replace(norm, call(norm, aten.add.Tensor, product, shift))
    return True


def _scale_and_shift(
    norm: Node, known: list[Node], bias: Node | None = None
) -> tuple[Node, Node]:
    """gamma / sqrt(variance + eps), and beta + (bias - mean) * scale."""

    def made(target: Any, *args: Any) -> Node:
        return call(norm, target, *args)

    *affine, mean, variance = known
    eps = arguments(norm)["eps"]
    scale = made(aten.rsqrt.default, made(aten.add.Tensor, variance, eps))
    if affine:
        scale = made(aten.mul.Tensor, affine[0], scale)
    centre = made(aten.neg.default, mean)
    if bias is not None:
        centre = made(aten.sub.Tensor, bias, mean)
    shift = made(aten.mul.Tensor, centre, scale)
    return scale, made(aten.add.Tensor, affine[1], shift) if affine else shift


def _uses(captured: Captured) -> Counter[str]:
    """How many calls take each weight."""
    return Counter(
        key_of(captured, node) or ""
        for node in captured.graph.nodes
        if node.op == "placeholder"
        for _ in node.users
    )


def _decide(captured: Captured, norm: Node, known: list[Node], why: str) -> None:
    path, _, _ = (key_of(captured, known[-1]) or "").rpartition(".")
    captured.decisions.append(
        Decision("folded", path or "BatchNorm", why, source_line(norm))
    )
