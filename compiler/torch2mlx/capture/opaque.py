"""Modules whose class has a layer of its own: their call is one node of the graph, whatever forward does.

The node calls `torch2mlx::module(Tensor[] arrays, Tensor[] weights, str key) -> Tensor[]`; the key leads to
its `ModuleCall`.
"""

from __future__ import annotations

import contextlib
import copy
import itertools
import weakref
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch.utils._pytree import TreeSpec, tree_flatten, tree_unflatten

from torch2mlx.capture.evaluation import replaced_forward

_LIBRARY = torch.library.Library("torch2mlx", "DEF")
_LIBRARY.define("module(Tensor[] arrays, Tensor[] weights, str key) -> Tensor[]")
MODULE = torch.ops.torch2mlx.module.default

_calls: weakref.WeakValueDictionary[str, ModuleCall] = weakref.WeakValueDictionary()
_numbers = itertools.count()


@dataclass
class ModuleCall:
    """One call of an opaque module.

    Attributes:
        module: The module.
        path: Its path in the model.
        names: Its parameters and buffers, in the order of the node's weights.
        spec: Pytree of its arguments and keyword arguments.
        constants: Leaves of the arguments that are no tensors, by position.
        out_spec: Pytree of what it returns.
    """

    module: torch.nn.Module
    path: str
    names: list[str]
    spec: TreeSpec
    constants: dict[int, Any]
    out_spec: TreeSpec | None = None

    def arguments(self, arrays: list[Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """The arguments and keyword arguments, with `arrays` in the places of the tensors."""
        rest = iter(arrays)
        leaves = [
            self.constants[i] if i in self.constants else next(rest)
            for i in range(self.spec.num_leaves)
        ]
        return tree_unflatten(leaves, self.spec)

    def run(
        self, arrays: list[torch.Tensor], weights: list[torch.Tensor]
    ) -> list[torch.Tensor]:
        """What the module returns: its tensors."""
        args, kwargs = self.arguments(arrays)
        state = dict(zip(self.names, weights, strict=True))
        result = torch.func.functional_call(self.module, state, args, kwargs)
        leaves, self.out_spec = tree_flatten(result)
        if not all(isinstance(leaf, torch.Tensor) for leaf in leaves):
            raise TypeError(f"{type(self.module).__name__} returns more than tensors")
        return [leaf.clone() for leaf in leaves]  # an operator returns no view


@torch.library.impl(_LIBRARY, "module", "CompositeExplicitAutograd")
def _run(
    arrays: list[torch.Tensor], weights: list[torch.Tensor], key: str
) -> list[torch.Tensor]:
    return _calls[key].run(arrays, weights)


torch.library.register_fake(MODULE._schema.name, _run, lib=_LIBRARY)


def call_of(key: str) -> ModuleCall:
    """The call that a node of the graph stands for."""
    return _calls[key]


@contextlib.contextmanager
def opaque(
    model: torch.nn.Module, classes: Collection[type]
) -> Iterator[list[ModuleCall]]:
    """While this is open, a call of a module of one of `classes` is traced as one operator.

    Yields:
        The calls; whoever wants to use the graph keeps them.
    """
    calls: list[ModuleCall] = []
    with contextlib.ExitStack() as stack:
        for path, module in model.named_modules():
            is_plain = "forward" not in vars(module)  # else it may do something else
            if type(module) in classes and is_plain:
                forward = _opaque_forward(module, path, calls)
                stack.enter_context(replaced_forward(module, forward))
        yield calls


def _opaque_forward(module: torch.nn.Module, path: str, calls: list[ModuleCall]) -> Any:
    plain = copy.copy(module)  # shares its weights, keeps its own forward

    def forward(*args: Any, **kwargs: Any) -> Any:
        leaves, spec = tree_flatten((args, kwargs))
        is_array = [isinstance(leaf, torch.Tensor) for leaf in leaves]
        constants = {i: leaf for i, leaf in enumerate(leaves) if not is_array[i]}
        state = dict(plain.named_parameters()) | dict(plain.named_buffers())
        call = ModuleCall(plain, path, list(state), spec, constants)
        key = f"{path}#{next(_numbers)}"
        calls.append(call)
        _calls[key] = call
        arrays = [leaf for leaf in leaves if isinstance(leaf, torch.Tensor)]
        results = MODULE(arrays, list(state.values()), key)
        assert call.out_spec is not None
        return tree_unflatten(results, call.out_spec)

    return forward
