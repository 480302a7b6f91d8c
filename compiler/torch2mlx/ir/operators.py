"""Operators that MLX has and PyTorch writes out: what fusions put into captured graphs.

Each runs in PyTorch too, on real and on fake arrays.
"""

from __future__ import annotations

from typing import Any

import torch

_LIBRARY = torch.library.Library("torch2mlx", "FRAGMENT")


def _define(schema: str, function: Any, fake: Any = None) -> Any:
    """A new operator that computes `function`, which also tells its shape unless `fake` does."""
    _LIBRARY.define(schema)
    name = schema.partition("(")[0]
    _LIBRARY.impl(name, function, "CompositeExplicitAutograd")
    torch.library.register_fake(f"torch2mlx::{name}", fake or function, lib=_LIBRARY)
    return getattr(torch.ops.torch2mlx, name).default


def _quick_gelu(x: torch.Tensor) -> torch.Tensor:
    return x * torch.sigmoid(1.702 * x)


QUICK_GELU = _define("quick_gelu(Tensor self) -> Tensor", _quick_gelu)


def _swiglu(gate: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    return torch.nn.functional.silu(gate) * x


SWIGLU = _define("swiglu(Tensor gate, Tensor self) -> Tensor", _swiglu)


def _attention(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    mask: torch.Tensor,
    scale: float | None,
) -> torch.Tensor:
    grouped = query.shape[1] != key.shape[1]
    return torch.nn.functional.scaled_dot_product_attention(
        query, key, value, mask, scale=scale, enable_gqa=grouped
    ).clone()


def _attention_shape(
    query: torch.Tensor, key: Any, value: torch.Tensor, mask: Any, scale: Any
) -> torch.Tensor:
    return query.new_empty((*query.shape[:-1], value.shape[-1]))


# With a boolean mask that lets every query see some key
ATTENTION = _define(
    "attention(Tensor query, Tensor key, Tensor value, Tensor mask, float? scale) -> Tensor",
    _attention,
    _attention_shape,
)


def rotated(x: torch.Tensor, traditional: bool) -> torch.Tensor:
    """`x` a quarter turn further: [-x2, x1] of its halves, or of its pairs with `traditional`."""
    if traditional:
        return torch.stack([-x[..., 1::2], x[..., ::2]], -1).flatten(-2)
    first, second = x.chunk(2, -1)
    return torch.cat([-second, first], -1)


def _rotate(
    x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor, traditional: bool
) -> torch.Tensor:
    return x * cos + rotated(x, traditional) * sin


def _rope(
    x: torch.Tensor,
    dims: int,
    traditional: bool,
    base: float | None,
    scale: float,
    offset: int,
    freqs: torch.Tensor | None,
) -> torch.Tensor:
    steps = torch.arange(0, dims, 2, dtype=torch.float32, device=x.device) / dims
    inverse = 1 / freqs if freqs is not None else (base or 1.0) ** -steps
    positions = torch.arange(x.shape[-2], device=x.device) + offset
    angles = (positions * scale)[:, None] * inverse
    wide = angles.repeat_interleave(2, -1) if traditional else angles.tile((2,))
    turned, rest = x[..., :dims].float(), x[..., dims:]
    turned = _rotate(turned, wide.cos(), wide.sin(), traditional)
    return torch.cat([turned.to(x.dtype), rest], -1)


# x [..., D] turned by angles whose cosines and sines are given
ROTATE = _define(
    "rotate(Tensor self, Tensor cos, Tensor sin, bool traditional) -> Tensor", _rotate
)
# As `mx.fast.rope` has it
ROPE = _define(
    "rope(Tensor self, int dims, bool traditional, float? base, float scale, int offset, "
    "Tensor? freqs) -> Tensor",
    _rope,
)


def _tri(n: int, m: int, k: int) -> torch.Tensor:
    return torch.ones((n, m), dtype=torch.bool).tril(k)


# Whether j - i <= k, as `mx.tri` has it
TRI = _define("tri(SymInt n, SymInt m, int k) -> Tensor", _tri)


def _gather_mm(
    x: torch.Tensor, weight: torch.Tensor, index: torch.Tensor, sorted_indices: bool
) -> torch.Tensor:
    if x.ndim == index.ndim + 1:
        return (x[..., None, :] @ weight[index]).squeeze(-2)
    return x @ weight[index]


# Rows x [*S, D], or matrices [*S, M, D], times the matrices [D, O] that index [*S] picks, none of them negative;
# the leading axes are broadcast
GATHER_MM = _define(
    "gather_mm(Tensor self, Tensor weight, Tensor index, bool sorted_indices) -> Tensor",
    _gather_mm,
)


def _grouped_mm(
    x: torch.Tensor, weight: torch.Tensor, ends: torch.Tensor
) -> torch.Tensor:
    rows = torch.arange(x.shape[0], device=x.device)[:, None]
    group = (rows >= ends).sum(-1).clamp(max=weight.shape[0] - 1)
    y = (x[:, None] @ weight[group]).squeeze(1)
    return torch.where(rows < ends[-1], y, 0)


# Rows [S, D] times matrices [E, D, O], the i-th for the rows before offs[i]
GROUPED_MM = _define(
    "grouped_mm(Tensor self, Tensor mat2, Tensor offs) -> Tensor", _grouped_mm
)
