"""Samples of PyTorch's own test databases: `op_db` (OpInfo) and `module_db` (ModuleInfo).

Each sample is a module whose `forward` takes the sample's tensors and holds the rest as constants.
"""

from __future__ import annotations

import functools
import random
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch.utils import _pytree as pytree

# Samples of each dtype that are taken, at most
LIMITS = {torch.float32: 8, torch.int64: 3, torch.bool: 2, torch.complex64: 3}
LARGEST = 200_000  # elements of a sample's tensors

# What has no counterpart in MLX, or nothing to compare
LEFT_OUT = {
    "sparse layouts": ("sparse.", "to_sparse"),
    "changes the size of a storage": ("resize_", "resize_as_"),
    "compiles CUDA source": ("jiterator_",),
    "float8 products": ("torch._scaled_mm", "_scaled_mm"),
    "kernels of CUDA alone": (
        "torch.ops.aten._flash_attention",
        "torch.ops.aten._efficient_attention",
    ),
    "LAPACK's raw factors": (
        "linalg.ldl",
        "geqrf",
        "ormqr",
        "linalg.householder_product",
    ),
    "no tensors": ("broadcast_shapes",),
    "bits of a storage": ("hash_tensor",),
}
# Only dtype and shape are defined
UNINITIALISED = "empty"
# Defined up to a sign, a phase or an order
GAUGE = ("svd", "linalg.svd", "qr", "linalg.qr", "linalg.eig", "linalg.eigh")
GAUGE = (*GAUGE, "linalg.eigvals", "svd_lowrank", "pca_lowrank")
# The index of any of several equal values
TIES = ("sort", "argsort", "topk", "kthvalue", "median", "nanmedian", "mode", "msort")


@dataclass
class Sample:
    """One call.

    Attributes:
        op: The operator's or module's name in its database.
        key: Which sample of it this is.
        module: The call as a module.
        args: Its tensors.
        values: Whether numbers can be compared, not only dtypes and shapes.
        differentiable: Whether gradients can be compared.
    """

    op: str
    key: str
    module: torch.nn.Module
    args: tuple[Any, ...]
    values: bool = True
    differentiable: bool = False


class Call(torch.nn.Module):
    """`function(*args, **kwargs)`, its tensors as arguments of `forward`."""

    def __init__(
        self,
        function: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        in_place: bool = False,
    ):
        super().__init__()
        leaves, self._spec = pytree.tree_flatten((args, kwargs))
        self._places = [i for i, v in enumerate(leaves) if isinstance(v, torch.Tensor)]
        self.tensors = tuple(leaves[i] for i in self._places)
        self._constants = [None if isinstance(v, torch.Tensor) else v for v in leaves]
        self._in_place = in_place
        if isinstance(function, torch.nn.Module):
            self.inner = function
        else:
            self._function = function

    def forward(self, *tensors: torch.Tensor) -> Any:
        leaves = list(self._constants)
        for i, (place, tensor) in enumerate(zip(self._places, tensors, strict=True)):
            leaves[place] = tensor.clone() if self._in_place and i == 0 else tensor
        args, kwargs = pytree.tree_unflatten(leaves, self._spec)
        function = getattr(self, "inner", None) or self._function
        return function(*args, **kwargs)


@functools.cache
def databases() -> dict[str, Callable[[], Iterator[Sample]]]:
    """Name of an operator or module -> its samples."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from torch.testing._internal import common_methods_invocations
        from torch.testing._internal.common_modules import module_db
    # The database seeds random operators, which would look deterministic
    common_methods_invocations.wrapper_set_seed = _call
    found: dict[str, Callable[[], Iterator[Sample]]] = {}
    for info in common_methods_invocations.op_db:
        before = found.get(info.name)
        if left_out(info.name) is None:
            found[info.name] = functools.partial(_op_samples, info, before)
    for module in module_db:
        found[module.name] = functools.partial(_module_samples, module)
    return found


def _call(function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    return function(*args, **kwargs)


def left_out(name: str) -> str | None:
    """Why an operator is out of scope, None where it is in scope."""
    for why, prefixes in LEFT_OUT.items():
        if name.startswith(prefixes):
            return why
    return None


def _op_samples(
    info: Any, before: Callable[[], Iterator[Sample]] | None
) -> Iterator[Sample]:
    if before is not None:  # the database has several entries of one name
        yield from before()
    variant = info.variant_test_name
    for dtype, limit in LIMITS.items():
        if dtype not in info.supported_dtypes("cpu"):
            continue
        if dtype is not torch.float32 and info.name in TIES:
            continue
        inputs = _drawn(info.sample_inputs, "cpu", dtype)
        for index, sample in enumerate(inputs[:limit]):
            args = (sample.input, *sample.args)
            key = f"{variant}|{str(dtype).removeprefix('torch.')}|{index}"
            grad = dtype is torch.float32 and info.supports_autograd
            yield from _sample(info.name, key, info.op, args, sample.kwargs, grad)
            if index == 0 and dtype is torch.float32 and info.inplace_variant:
                yield from _sample(
                    info.name,
                    f"{key}|in place",
                    info.inplace_variant,
                    args,
                    sample.kwargs,
                    grad,
                    in_place=True,
                )


def _sample(
    name: str,
    key: str,
    function: Callable[..., Any],
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    differentiable: bool,
    in_place: bool = False,
) -> Iterator[Sample]:
    """The sample, if PyTorch computes it and it is small."""
    module = Call(function, args, kwargs, in_place).eval()
    tensors = module.tensors
    if any(t.layout != torch.strided for t in tensors) or _count(tensors) > LARGEST:
        return
    try:
        once, again = (_seeded(module, tensors, seed) for seed in (0, 1))
    except Exception:  # the database has samples that must fail
        return
    if not any(isinstance(leaf, torch.Tensor) for leaf in pytree.tree_leaves(once)):
        return
    defined = UNINITIALISED not in name and name not in GAUGE and _same(once, again)
    yield Sample(name, key, module, tensors, defined, differentiable and defined)


def _module_samples(info: Any) -> Iterator[Sample]:
    dtype = torch.float32
    limit = LIMITS[dtype]

    def inputs(device: str, dtype: torch.dtype, requires_grad: bool) -> Any:
        return info.module_inputs_func(
            info,
            device=device,
            dtype=dtype,
            requires_grad=requires_grad,
            training=False,
        )

    taken = 0
    for index, sample in enumerate(_drawn(inputs, "cpu", dtype)):
        if sample.forward_input is None or taken == limit:
            continue
        made, given = sample.constructor_input, sample.forward_input
        torch.manual_seed(0)
        try:
            module = info.module_cls(*made.args, **made.kwargs).eval()
        except Exception:
            continue
        for found in _sample(
            info.name, f"|eval|{index}", module, given.args, given.kwargs, True
        ):
            taken += 1
            yield found


def _drawn(function: Callable[..., Any], device: str, dtype: torch.dtype) -> list[Any]:
    """The samples that `function` of a database makes, the same each time."""
    random.seed(0)
    torch.manual_seed(0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return list(function(device, dtype, requires_grad=False))
        except Exception:  # needs what is not installed
            return []


def _seeded(module: torch.nn.Module, tensors: tuple[Any, ...], seed: int) -> Any:
    torch.manual_seed(seed)
    with torch.no_grad():
        return pytree.tree_map(
            lambda v: v.clone() if isinstance(v, torch.Tensor) else v,
            module(*(t.clone() for t in tensors)),
        )


def _same(a: Any, b: Any) -> bool:
    pairs = zip(pytree.tree_leaves(a), pytree.tree_leaves(b), strict=True)
    try:
        for one, other in pairs:
            torch.testing.assert_close(one, other, rtol=0, atol=0, equal_nan=True)
    except (AssertionError, TypeError):
        return False
    return True


def _count(tensors: tuple[torch.Tensor, ...]) -> int:
    return sum(tensor.numel() for tensor in tensors)
