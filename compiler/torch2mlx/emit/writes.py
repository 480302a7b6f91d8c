"""Writes to a part of an array: which may be in place, and how they read."""

from __future__ import annotations

import ast

import mlx.nn as nn
import torch.fx

from torch2mlx.emit import syntax
from torch2mlx.emit.statements import Statement, Unpack
from torch2mlx.ir import intrinsics
from torch2mlx.outline.operands import Invoke, Op
from torch2mlx_templates.helpers import assign

# Layers that return a new array; others may return what they got.
LAYERS = (
    nn.Linear,
    nn.Embedding,
    nn.Conv1d,
    nn.Conv2d,
    nn.Conv3d,
    nn.LayerNorm,
    nn.RMSNorm,
    nn.GroupNorm,
    nn.BatchNorm,
)
NEW = {assign, intrinsics.astype, *intrinsics.AT.values()}


def is_fresh(node: torch.fx.Node) -> bool:
    """Whether a call gives an array that nothing but its variable refers to."""
    if node.op == "call_module":
        return issubclass(node.meta["layer"].cls, LAYERS)
    if node.op != "call_function":
        return False
    if is_sequence(node) or any(map(is_sequence, node.all_input_nodes)):
        return False  # one of several arrays may be taken twice
    return node.target in NEW or intrinsics.makes_new(node.target)


def is_sequence(node: torch.fx.Node) -> bool:
    """Whether a call gives several arrays."""
    return isinstance(node.meta.get("hint"), list | tuple)


def keeps_nothing(statement: Statement) -> bool:
    """Whether no result of a statement can be an array that it takes."""
    item = statement.item
    if isinstance(item, Unpack):
        return all(intrinsics.makes_new(node.target) for node in item.op.outputs)
    if isinstance(item, Op):
        return is_fresh(item.node) or intrinsics.makes_new(item.node.target)
    return isinstance(item, Invoke) and all(map(is_fresh, item.outputs))


def assigned(
    target: ast.expr, index: ast.expr, value: ast.expr, read: ast.expr
) -> ast.stmt:
    """`target[index] = value`, or `target[index] += rest` for a value that begins with what is there.

    Args:
        target: What is written to.
        index: Where.
        value: What is written.
        read: The array that holds now what `target` holds.
    """
    place = ast.Subscript(target, index)
    if isinstance(value, ast.BinOp):
        held = [ast.dump(ast.Subscript(x, index)) for x in (target, read)]
        if ast.dump(value.left) in held:
            return ast.AugAssign(place, value.op, value.right)
    return syntax.assign([place], value)


def names_in(*trees: ast.AST) -> set[str]:
    """The variables that expressions read."""
    nodes = (node for tree in trees for node in ast.walk(tree))
    return {node.id for node in nodes if isinstance(node, ast.Name)}
