"""Matrix products."""

from __future__ import annotations

import string
from typing import Any

import mlx.core
import torch

from torch2mlx.ir.operators import GROUPED_MM
from torch2mlx.lower.facade import Refuse, helpers, mx
from torch2mlx.lower.registry import lowers
from torch2mlx.ops.axes import same, widened

aten = torch.ops.aten

LETTERS = string.ascii_letters


@lowers(aten.linear.default)
def linear(x: Any, weight: Any, bias: Any = None) -> Any:
    """`x @ weight.T + bias`."""
    y = product(x, weight if weight.ndim == 1 else weight.T)
    return y if bias is None else y + bias


@lowers(aten.matmul.default, aten.linalg_matmul.default)
def matmul(x: Any, other: Any) -> Any:
    """`x @ other`."""
    return product(x, other)


@lowers(aten.mm.default, aten.bmm.default)
def mm(x: Any, mat2: Any) -> Any:
    """`x @ mat2`."""
    return product(x, mat2)


@lowers(GROUPED_MM)
def grouped_rows(x: Any, mat2: Any, offs: Any) -> Any:
    """Groups of the rows of `x`, each times a matrix of its own."""
    return helpers.grouped_mm(x, mat2, offs)


@lowers(aten._grouped_mm.default)
def grouped_mm(
    x: Any, mat2: Any, offs: Any = None, bias: Any = None, out_dtype: Any = None
) -> Any:
    """Groups of the rows of `x`, each times a matrix of its own."""
    if x.ndim != 2 or mat2.ndim != 3 or offs is None or bias is not None:
        raise Refuse("only rows of one matrix are mapped, times matrices, without bias")
    y = helpers.grouped_mm(x, mat2, offs)
    return y if out_dtype is None else y.astype(out_dtype)


@lowers(aten.mv.default)
def mv(x: Any, vec: Any) -> Any:
    """`x @ vec`."""
    return product(x, vec)


@lowers(aten.dot.default)
def dot(x: Any, tensor: Any) -> Any:
    """`x @ tensor`, of vectors."""
    return product(x, tensor)


@lowers(aten.vdot.default)
def vdot(x: Any, other: Any) -> Any:
    """The product of vectors, the first conjugated."""
    return product(_conjugate(x), other)


@lowers(aten.linalg_vecdot.default)
def vecdot(x: Any, y: Any, dim: int = -1) -> Any:
    """The sum of products along one axis, the first operand conjugated."""
    return mx.sum(_conjugate(x) * y, axis=dim)


@lowers(aten.addmm.default)
def addmm(x: Any, mat1: Any, mat2: Any, beta: Any = 1, alpha: Any = 1) -> Any:
    """`beta * x + alpha * (mat1 @ mat2)`."""
    return _added(x, product(mat1, mat2), beta, alpha)


@lowers(aten.addmv.default)
def addmv(x: Any, mat: Any, vec: Any, beta: Any = 1, alpha: Any = 1) -> Any:
    """`beta * x + alpha * (mat @ vec)`."""
    return _added(x, product(mat, vec), beta, alpha)


@lowers(aten.baddbmm.default)
def baddbmm(x: Any, batch1: Any, batch2: Any, beta: Any = 1, alpha: Any = 1) -> Any:
    """`beta * x + alpha * (batch1 @ batch2)`."""
    return _added(x, product(batch1, batch2), beta, alpha)


@lowers(aten.addbmm.default)
def addbmm(x: Any, batch1: Any, batch2: Any, beta: Any = 1, alpha: Any = 1) -> Any:
    """`beta * x + alpha * (batch1 @ batch2).sum(0)`."""
    y = tensordot(batch1, batch2, [0, 2], [0, 1])
    return _added(x, y, beta, alpha)


@lowers(aten.addr.default)
def addr(x: Any, vec1: Any, vec2: Any, beta: Any = 1, alpha: Any = 1) -> Any:
    """`beta * x + alpha * outer(vec1, vec2)`."""
    return _added(x, vec1[:, None] * vec2, beta, alpha)


@lowers(aten.outer.default, aten.ger.default)
def outer(x: Any, vec2: Any) -> Any:
    """`mx.outer`."""
    return mx.outer(x, vec2)


@lowers(aten.inner.default)
def inner(x: Any, other: Any) -> Any:
    """Products over the last axes."""
    if x.ndim == 0 or other.ndim == 0:
        return x * other
    if mlx.core.issubdtype(x.dtype, mlx.core.inexact):
        return mx.inner(x, other)
    rows = x if other.ndim == 1 else mx.expand_dims(x, tuple(range(-other.ndim, -1)))
    return mx.sum(rows * other, axis=-1)


@lowers(aten.tensordot.default)
def tensordot(x: Any, other: Any, dims_self: Any, dims_other: Any) -> Any:
    """`mx.tensordot`; a contracted axis of one element broadcasts."""
    ours = [axis % x.ndim for axis in dims_self]
    theirs = [axis % other.ndim for axis in dims_other]
    pairs = list(zip(ours, theirs, strict=True))
    for i, j in pairs:
        if same(x.shape[i], 1) and not same(other.shape[j], 1):
            other = mx.sum(other, axis=j, keepdims=True)
        elif same(other.shape[j], 1) and not same(x.shape[i], 1):
            x = mx.sum(x, axis=i, keepdims=True)
    if mlx.core.issubdtype(x.dtype, mlx.core.inexact):
        return mx.tensordot(x, other, [ours, theirs])
    rows = LETTERS[: x.ndim]
    columns = list(LETTERS[x.ndim : x.ndim + other.ndim])
    for i, j in pairs:
        columns[j] = rows[i]
    kept = [i for i in (*rows, *columns) if (i in rows) != (i in columns)]
    equation = f"{rows},{''.join(columns)}->{''.join(kept)}"
    return helpers.integer_einsum(equation, x, other)


@lowers(aten.einsum.default)
def einsum(equation: str, tensors: Any, path: Any = None) -> Any:
    """`mx.einsum`."""
    equation = equation.replace(" ", "")
    if mlx.core.issubdtype(tensors[0].dtype, mlx.core.inexact):
        return mx.einsum(equation, *tensors)
    equation = _spelled_out(equation, [x.ndim for x in tensors])
    return helpers.integer_einsum(equation, *tensors)


@lowers(aten.kron.default)
def kron(x: Any, other: Any) -> Any:
    """`mx.kron`."""
    return mx.kron(x, other)


@lowers(aten.trace.default)
def trace(x: Any) -> Any:
    """`mx.trace`."""
    return mx.trace(widened(x))


@lowers(aten.linalg_cross.default)
def linalg_cross(x: Any, other: Any, dim: int = -1) -> Any:
    """The cross product of the vectors along `dim`."""
    return helpers.cross(x, other, dim)


@lowers(aten.cross.default)
def cross(x: Any, other: Any, dim: int | None = None) -> Any:
    """The cross product along `dim`, or the first axis of three."""
    if dim is None:
        dim = getattr(x, "hint", x).shape.index(3)
    return helpers.cross(x, other, dim)


@lowers(aten.bilinear.default)
def bilinear(input1: Any, input2: Any, weight: Any, bias: Any = None) -> Any:
    """Sum over i and j of `input1[i] * weight[:, i, j] * input2[j]`."""
    y = mx.einsum("...i,oij,...j->...o", input1, weight, input2)
    return y if bias is None else y + bias


def product(x: Any, other: Any) -> Any:
    """`x @ other`; MLX multiplies no integer matrices."""
    if mlx.core.issubdtype(x.dtype, mlx.core.inexact):
        return x @ other
    return helpers.integer_matmul(x, other)


def _spelled_out(equation: str, ndims: list[int]) -> str:
    """An equation of einsum with letters for its ellipses, and with its result."""
    inputs, arrow, output = equation.partition("->")
    operands = inputs.split(",")
    if any(names.count(i) > 1 for names in operands for i in names if i != "."):
        raise Refuse(
            "einsum of integers with an axis twice in one operand is not mapped"
        )
    if not arrow:
        letters = sorted(i for i in set(inputs) - {",", "."} if inputs.count(i) == 1)
        output = ("..." if "..." in inputs else "") + "".join(letters)
    free = "".join(i for i in LETTERS if i not in inputs)
    rest = [n - len(i.replace("...", "")) for i, n in zip(operands, ndims, strict=True)]
    batch = free[: max(rest)]
    spelled = [
        names.replace("...", batch[len(batch) - n :])
        for names, n in zip(operands, rest, strict=True)
    ]
    return f"{','.join(spelled)}->{output.replace('...', batch)}"


def _added(x: Any, y: Any, beta: Any, alpha: Any) -> Any:
    """`beta * x + alpha * y`; with `beta` 0 even the nans of `x` do not count."""
    if not mlx.core.issubdtype(y.dtype, mlx.core.inexact):
        alpha, beta = int(alpha), int(beta)
    if alpha != 1:
        y = alpha * y
    if beta == 0:
        return y
    return y + (x if beta == 1 else beta * x)


def _conjugate(x: Any) -> Any:
    return mx.conjugate(x) if x.dtype == mlx.core.complex64 else x
