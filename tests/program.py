"""Compile a model, check the invariants of every generated file, run it, and compare with PyTorch."""

from __future__ import annotations

import ast
import sys
from typing import Any

import black
import isort
import mlx.core as mx
import numpy as np
import torch
from torch.utils import _pytree as pytree

import torch2mlx
from tests.lowering import to_mlx, to_numpy
from torch2mlx.api import Program
from torch2mlx.emit.module import MODE

ALLOWED_IMPORTS = {"mlx", *sys.stdlib_module_names}


def compiled(
    model: torch.nn.Module,
    args: tuple[Any, ...] = (),
    kwargs: dict[str, Any] | None = None,
    **options: Any,
) -> Program:
    """Compile `model`, whose file must keep the invariants of every generated file."""
    program = torch2mlx.compile(model.eval(), args, kwargs, **options)
    check_invariants(program.source)
    again = torch2mlx.compile(model, args, kwargs, **options)
    assert again.source == program.source
    return program


def check_invariants(source: str) -> None:
    """What holds for every generated file: it parses, it is formatted, it needs only mlx."""
    tree = ast.parse(source)
    assert black.format_str(source, mode=MODE) == source
    assert isort.code(source, profile="black") == source
    for node in ast.walk(tree):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0
            names = [node.module or ""]
        assert {name.partition(".")[0] for name in names} <= ALLOWED_IMPORTS


def check(
    model: torch.nn.Module,
    args: tuple[Any, ...] = (),
    *others: tuple[Any, ...],
    kwargs: dict[str, Any] | None = None,
    tolerance: float = 1e-5,
    **options: Any,
) -> Program:
    """Compile `model` for `args`, run the file on these and on `others`, compare with PyTorch.

    Raises:
        AssertionError: An invariant, the structure, a shape, a dtype class or a number is off.
    """
    program = compiled(model, args, kwargs, **options)
    module = program.load()
    for case in (args, *others):
        with torch.no_grad():
            expected = model(*case, **(kwargs or {}))
        actual = run(program, module, case, kwargs)
        compare(program, expected, actual, tolerance)
    return program


def run(
    program: Program,
    module: Any,
    args: tuple[Any, ...],
    kwargs: dict[str, Any] | None = None,
) -> Any:
    """Call a generated module as PyTorch's is called: tensors in, MLX arrays out."""
    perms = {
        str(node.target): node.meta.get("perm")
        for node in program.outlined.model.inputs
    }
    names = iter([item.name for item in program.captured.inputs])

    def convert(leaf: Any) -> Any:
        if not isinstance(leaf, torch.Tensor):
            return leaf
        perm = perms[next(names)]
        array = to_mlx(leaf)
        return array.transpose(perm) if perm else array

    args, kwargs = pytree.tree_map(convert, (args, dict(kwargs or {})))
    return module(*args, **kwargs)


def compare(program: Program, expected: Any, actual: Any, tolerance: float) -> None:
    """Compare PyTorch's outputs with the generated module's, leaf by leaf."""
    wanted = [leaf for leaf in pytree.tree_leaves(expected) if leaf is not None]
    found = pytree.tree_leaves(actual)
    assert len(found) == len(wanted)
    nodes = program.outlined.model.outputs
    for want, have, node in zip(wanted, found, nodes, strict=True):
        if not isinstance(want, torch.Tensor):
            assert have == want
            continue
        assert isinstance(have, mx.array)
        perm = node.meta.get("perm") if isinstance(node, torch.fx.Node) else None
        reference = to_numpy(want.permute(perm) if perm else want)
        result = to_numpy(have)
        assert result.shape == reference.shape
        if reference.dtype.kind in "biu":
            np.testing.assert_array_equal(result, reference)
        else:
            np.testing.assert_allclose(
                result, reference, rtol=tolerance, atol=tolerance
            )
