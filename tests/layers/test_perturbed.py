"""Every constructor argument of PyTorch's layers matches PyTorch when changed, or is refused by name."""

from __future__ import annotations

import inspect
from typing import Any

import pytest
import torch
from torch import nn
from torch.utils import _pytree as pytree

import torch2mlx
from tests.layers.perturbed import LAYERS, Layer, Options
from tests.program import compare, run
from torch2mlx.errors import UnsupportedError

# Arguments that say where and of what dtype the weights are, or give the weights themselves.
NO_OPTIONS = {"device", "dtype", "_weight", "_freeze"}
# Deprecated names.
NO_OPTIONS |= {"min_value", "max_value"}


def _name(layer: Layer, variant: Options) -> str:
    changed = ",".join(f"{k}={_value(v)}" for k, v in variant.items())
    return f"{layer.cls.__name__}({changed})"


def _value(value: Any) -> str:
    kind = type(value).__name__
    return kind if isinstance(value, nn.Module) else getattr(value, "__name__", value)


CASES = [
    pytest.param(layer, variant, id=_name(layer, variant))
    for layer in LAYERS
    for variant in layer.variants
]


def shaken(model: nn.Module) -> nn.Module:
    """Weights and statistics that show when they are dropped or swapped."""
    with torch.no_grad():
        for tensor in (*model.parameters(), *model.buffers()):
            if tensor.is_floating_point():
                tensor.add_(torch.rand_like(tensor) / 2)
    return model.eval()


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize(("layer", "variant"), CASES)
def test_changed_argument(layer: Layer, variant: Options) -> None:
    torch.manual_seed(0)
    model = shaken(layer.cls(*layer.args, **variant))
    args = layer.inputs()
    refusal = next((t for k, t in layer.refused.items() if k in variant), None)
    if refusal is not None:
        with pytest.raises(UnsupportedError, match=refusal):
            torch2mlx.compile(model, args)
        return
    program = torch2mlx.compile(model, args)
    module = program.load()
    with torch.no_grad():
        expected = model(*pytree.tree_map(torch.clone, args))
    compare(program, expected, run(program, module, args), 2e-5)


def test_every_argument_is_changed() -> None:
    changed: dict[type, set[str]] = {}
    for layer in LAYERS:
        names = list(inspect.signature(layer.cls).parameters)[: len(layer.args)]
        options = {name for variant in layer.variants for name in variant}
        changed.setdefault(layer.cls, set()).update(names, options)
    missing: dict[str, Any] = {}
    for cls, names in changed.items():
        left = set(inspect.signature(cls).parameters) - names - NO_OPTIONS
        if left:
            missing[cls.__name__] = left
    assert not missing
