"""`convert`: the weights of a model, or of bare arrays with a map of their layers, as MLX has them."""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from torch2mlx.converter.rules import LAYERS, Rule
from torch2mlx.converter.trees import unflatten
from torch2mlx.errors import InputError
from torch2mlx.weights.casting import widen
from torch2mlx.weights.checkpoint import open_checkpoint
from torch2mlx.weights.plan import Shape, WeightEntry, WeightPlan, apply
from torch2mlx.weights.safetensors import DTYPES, write

Array = NDArray[Any]

NAMES = {dtype: name for name, dtype in reversed(DTYPES.items())}
TORCH_FLOAT8 = {
    "float8_e4m3fn": "F8_E4M3",
    "float8_e5m2": "F8_E5M2",
    "float8_e8m0fnu": "F8_E8M0",
    "float8_e4m3fnuz": "F8_E4M3FNUZ",
    "float8_e5m2fnuz": "F8_E5M2FNUZ",
}
COUNTER = "num_batches_tracked"
# Parameters that only a recurrent layer or attention has, whatever their shape
SPECIAL = ("weight_ih_l", "weight_hh_l", "bias_ih_l", "bias_hh_l", "in_proj_")


class ConversionWarning(UserWarning):
    """Some layers have no rule: their parameters were copied as they are."""


@dataclass(frozen=True)
class Conversion:
    """What was converted.

    Attributes:
        plan: How each array was made; it can be inverted.
        coverage: The share of the parameters, by size, that a rule converted.
        unmapped: Layers without a rule: prefix -> class and reason. They were copied as they are.
    """

    plan: WeightPlan
    coverage: float
    unmapped: Mapping[str, str] = field(default_factory=dict[str, str])


@dataclass
class _Layer:
    """The parameters of one module, by name."""

    kind: str
    rule: Rule | None
    parameters: dict[str, tuple[str, Shape]] = field(default_factory=dict)


def convert(
    source: Any,
    path: str | os.PathLike[str],
    modules: Mapping[str, Any] | None = None,
    *,
    progress: Callable[[int], None] | None = None,
) -> Conversion:
    """Write the weights of a PyTorch model as MLX's layers have them, under the same keys.

    Args:
        source: A PyTorch module, or a state dict of arrays or tensors.
        path: The safetensors file to write.
        modules: For a state dict: prefix of a layer -> its class, or the name of its class.
        progress: Called with the number of bytes written since the last call.

    Returns:
        What was converted; a `ConversionWarning` tells of layers without a rule.

    Raises:
        InputError: Without a map, the layout of some keys would have to be guessed; or the file cannot
            be written.
    """
    is_model = hasattr(source, "named_modules")
    arrays = _Arrays(source.state_dict() if is_model else source)
    layers = _of_model(source) if is_model else _of_map(arrays, modules)
    for key in arrays:
        prefix, _, name = key.rpartition(".")
        layer = layers.setdefault(prefix, _Layer("", None))
        layer.parameters[name] = arrays.dtypes[key], arrays.shapes[key]
    if not is_model:
        _refuse_guesses(layers)
    conversion = _plan(layers, arrays.aliases)
    plan = conversion.plan
    write(path, plan.tensors(), lambda k: apply(plan[k], arrays), progress=progress)
    if conversion.unmapped:
        named = (f"{p or 'the model'} ({w})" for p, w in conversion.unmapped.items())
        text = f"{conversion.coverage:.1%} of the parameters converted by rule; copied as they are: "
        warnings.warn(text + ", ".join(named), ConversionWarning, stacklevel=2)
    return conversion


def load_converted(path: str | os.PathLike[str]) -> Any:
    """The arrays of a file as nested dicts and lists, for `model.update`.

    numpy has no bfloat16: its values come as float32, which holds them exactly. `mlx.core.load` keeps
    them as they are.

    Raises:
        InputError: The file cannot be read.
    """
    file = open_checkpoint(path)
    return unflatten(
        {
            key: widen(file[key]) if info.dtype == "BF16" else file[key]
            for key, info in sorted(file.tensors.items())
        }
    )


def _of_model(model: Any) -> dict[str, _Layer]:
    layers: dict[str, _Layer] = {}
    for prefix, module in model.named_modules():
        kinds = type(module).__mro__
        known = (k for k in kinds if k.__name__ in LAYERS and _is_library(k))
        kind = next(known, None)
        rule = LAYERS[kind.__name__] if kind else None
        if rule and rule.mlx.startswith("ConvTranspose") and module.groups != 1:
            rule = None
        layers[prefix] = _Layer(type(module).__name__, rule)
    return layers


def _is_library(kind: type) -> bool:
    """Not a class that only has the name of a layer."""
    if kind.__name__ in BUILT_IN:
        return kind.__module__.partition(".")[0] in ("torch", "transformers")
    return True


BUILT_IN = frozenset(LAYERS)


def _of_map(arrays: _Arrays, modules: Mapping[str, Any] | None) -> dict[str, _Layer]:
    layers: dict[str, _Layer] = {}
    prefixes = {key.rpartition(".")[0] for key in arrays}
    for prefix, kind in (modules or {}).items():
        name = kind if isinstance(kind, str) else kind.__name__
        if prefix not in prefixes:
            raise InputError(f"modules: no key begins with {prefix!r}")
        if name not in LAYERS:
            listed = ", ".join(sorted(LAYERS))
            raise InputError(
                f"modules: {prefix!r} is a {name}, which has no rule; there are {listed}"
            )
        layers[prefix] = _Layer(name, LAYERS[name])
    return layers


def _refuse_guesses(layers: Mapping[str, _Layer]) -> None:
    """Without a class, only what every layer has the same way is clear."""
    unclear = [
        f"{prefix}.{name} {list(shape)}" if prefix else f"{name} {list(shape)}"
        for prefix, layer in layers.items()
        if layer.rule is None
        for name, (_, shape) in layer.parameters.items()
        if len(shape) > 2 or name.startswith(SPECIAL)
    ]
    if unclear:
        more = f" and {len(unclear) - 8} more" if len(unclear) > 8 else ""
        raise InputError(
            f"the layers of these keys would have to be guessed: {', '.join(unclear[:8])}{more}; "
            "say what they are, as in modules={'stem.conv': 'Conv2d'}"
        )


def _plan(layers: Mapping[str, _Layer], aliases: Mapping[str, str]) -> Conversion:
    entries: list[WeightEntry] = []
    unused: dict[str, str] = {}
    unmapped: dict[str, str] = {}
    sizes = [0, 0]
    for prefix, layer in layers.items():
        dot = f"{prefix}." if prefix else ""
        own = {k: v for k, v in layer.parameters.items() if dot + k not in aliases}
        if not own:
            continue
        # Counters mean the same everywhere
        counted = COUNTER in own and "running_mean" in own
        plain = {k: v for k, v in own.items() if not (counted and k == COUNTER)}
        made, why = _entries(layer, plain)
        if why:
            unmapped[prefix] = why
        used = {source for entry in made for source in entry.sources}
        unused |= {dot + name: "MLX does not have it" for name in own.keys() - used}
        size = sum(int(np.prod(shape)) for _, shape in plain.values())
        sizes[bool(why)] += size
        for entry in made:
            sources = tuple(dot + source for source in entry.sources)
            entries.append(replace(entry, key=dot + entry.key, sources=sources))
    plan = WeightPlan(tuple(sorted(entries, key=lambda e: e.key)), unused, aliases)
    coverage = sizes[0] / sum(sizes) if sum(sizes) else 1.0
    return Conversion(plan, coverage, unmapped)


def _entries(
    layer: _Layer, parameters: dict[str, tuple[str, Shape]]
) -> tuple[list[WeightEntry], str]:
    """The entries of a layer, and why it has no rule, "" if it has one."""
    why = layer.kind
    if layer.rule is not None:
        try:
            return layer.rule.entries(parameters), ""
        except InputError as error:
            why = f"{layer.kind}: {error}"
    plain = [WeightEntry(k, (k,), d, (s,)) for k, (d, s) in parameters.items()]
    # A state dict without a class for it: checked to need none
    return plain, why


class _Arrays(Mapping[str, Array]):
    """Arrays and tensors by key, as safetensors names and carries them."""

    def __init__(self, values: Mapping[str, Any]):
        self._values = dict(values)
        self.dtypes: dict[str, str] = {}
        self.shapes: dict[str, Shape] = {}
        self.aliases: dict[str, str] = {}
        owners: dict[Any, str] = {}
        for key, value in self._values.items():
            self.dtypes[key] = _dtype(key, value)
            self.shapes[key] = tuple(int(size) for size in value.shape)
            owner = owners.setdefault(_identity(value), key)
            if owner != key:
                self.aliases[key] = owner

    def __getitem__(self, key: str) -> Array:
        value = self._values[key]
        if not isinstance(value, np.ndarray):
            value = _carried(value)
        if value.dtype.name in ("bfloat16", *TORCH_FLOAT8):
            value = value.view(DTYPES[self.dtypes[key]])
        return value.astype(value.dtype.newbyteorder("<"), copy=False)

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)


def _identity(value: Any) -> Any:
    if hasattr(value, "data_ptr") and value.numel():
        return value.data_ptr(), tuple(value.shape), value.stride()
    return id(value)


def _dtype(key: str, value: Any) -> str:
    name = str(value.dtype).removeprefix("torch.")
    if name == "bfloat16":
        return "BF16"
    if name in TORCH_FLOAT8:
        return TORCH_FLOAT8[name]
    try:
        return NAMES[np.dtype(name).newbyteorder("<")]
    except (KeyError, TypeError):
        raise InputError(
            f"{key!r} has the dtype {name}, which has no place in a file"
        ) from None


def _carried(tensor: Any) -> Array:
    """A PyTorch tensor as the array that carries it."""
    torch = sys.modules["torch"]
    tensor = tensor.detach().cpu().resolve_conj().resolve_neg()
    if tensor.dtype == torch.bfloat16:
        return tensor.view(torch.uint16).numpy()
    if str(tensor.dtype).startswith("torch.float8"):
        return tensor.view(torch.uint8).numpy()
    return tensor.numpy()
