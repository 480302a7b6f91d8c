"""A second model from the same configuration, whose numbers know where they come from.

The constructor of `model` runs once more, on the meta device, with a copy of its configuration whose
numbers are traced: an attribute such as `self.head_dim` then is `hidden_size // num_attention_heads`.
"""

from __future__ import annotations

import copy
import inspect
from collections.abc import Iterator, Mapping
from keyword import iskeyword
from typing import Any

import torch
from torch import nn
from torch.overrides import TorchFunctionMode

from torch2mlx.hyperparameters.calls import Calls, observe
from torch2mlx.hyperparameters.expressions import Expression, Field
from torch2mlx.hyperparameters.initialisers import Initialisers
from torch2mlx.hyperparameters.traced import (
    TracedFloat,
    TracedInt,
    expression_of,
    is_number,
    traced,
)
from torch2mlx.silence import silent

CONTAINERS = (nn.ModuleList, nn.ModuleDict, nn.Sequential)
NOTHING = nn.Module()


class Twin:
    """A model that was made with traced numbers.

    Args:
        model: The model.
        configs: Path -> each configuration, () for the model's own.
        sizes: The sizes with which arrays were made, by their storage.

    Attributes:
        configs: As given.
        modules: Module path -> module.
        calls: The numbers that its `forward` gives to PyTorch.
    """

    def __init__(
        self,
        model: nn.Module,
        configs: dict[tuple[str, ...], Any],
        sizes: dict[int, tuple[Any, ...]],
    ):
        self.configs = configs
        self.modules = dict(model.named_modules(remove_duplicate=False))
        self.calls = Calls()
        self._sizes = sizes
        self._initialisers = Initialisers(configs[()])

    def attributes(self, path: str) -> dict[str, Expression]:
        """The numbers among the attributes of a module, those that come from a configuration."""
        module = self.modules.get(path, NOTHING)
        found: dict[str, Expression] = {}
        for name, value in vars(module).items():
            if is_number(value) and not name.startswith("_"):
                origin = self._initialisers.expression(module, name)
                if origin is not None:
                    found[name] = origin
        return found

    def argument(self, path: str, name: str) -> list[Expression]:
        """The numbers in a layer's attribute, one or as many as it has axes; [] if there are none."""
        value = getattr(self.modules.get(path), name, None)
        values = value if isinstance(value, tuple | list) else [value]
        if not all(map(is_number, values)):
            return []
        owner, _, child = path.rpartition(".")
        if len(values) == 1 and not isinstance(values[0], TracedInt | TracedFloat):
            found = self._initialisers.argument(self.modules[owner], child, name)
            values = [found] if found == values[0] else values
        return [self._settled(path, expression_of(v)) for v in values]

    def shape(self, path: str) -> list[Expression]:
        """The sizes with which a parameter or buffer was made; [] if they are not known."""
        owner, _, name = path.rpartition(".")
        array = getattr(self.modules.get(owner), name, None)
        if not isinstance(array, torch.Tensor):
            return []
        sizes = self._sizes.get(_storage(array), ())
        if len(sizes) == 1 and array.shape == (1, *sizes):  # arange(n).expand((1, -1))
            sizes = (1, *sizes)
        if [*map(int, sizes)] != [*array.shape]:
            return []
        return [self._settled(owner, expression_of(size)) for size in sizes]

    def shapes(self, path: str) -> list[Expression]:
        """The sizes of all arrays that a module owns itself."""
        own = self.modules.get(path, NOTHING).named_parameters(recurse=False)
        return [s for name, _ in own for s in self.shape(f"{path}.{name}".strip("."))]

    def _settled(self, path: str, expression: Expression) -> Expression:
        """The same as the module around a layer has it, which the author's source may tell better."""
        owner = self.modules.get(path.rpartition(".")[0], NOTHING)
        for name, value in vars(owner).items():
            if is_number(value) and expression_of(value) == expression != value:
                return self._initialisers.expression(owner, name) or expression
        return expression

    def length(self, path: str) -> Expression | None:
        """How many modules a list holds, if the author's code takes that from a configuration."""
        modules = self.modules.get(path)
        while path:
            path, _, name = path.rpartition(".")
            owner = self.modules.get(path)
            if owner is not None and not isinstance(owner, CONTAINERS):
                count = self._initialisers.repetitions(owner, name)
                known = isinstance(modules, nn.ModuleList | nn.Sequential)
                if known and count is not None and count == len(modules):
                    return expression_of(count)
                return None
        return None

    def fields(self) -> Iterator[Field]:
        """All numbers of the configurations."""
        for config in self.configs.values():
            for value in _entries(config).values():
                found = expression_of(value)
                if isinstance(found, Field):
                    yield found


def twin_of(
    model: nn.Module,
    args: tuple[Any, ...] = (),
    kwargs: Mapping[str, Any] | None = None,
) -> Twin | None:
    """The twin of a model that is made from one configuration object; None for any other.

    That is a model whose constructor needs one argument, an object with numbers, which it keeps as an
    attribute of the same name.

    Args:
        model: The model.
        args: Example inputs, with which the twin is called.
        kwargs: More of them, by name.
    """
    name = _config_name(type(model))
    config = getattr(model, name, None)
    if not _is_config(config):
        return None
    configs: dict[tuple[str, ...], Any] = {}
    recorder = _Sizes()
    try:
        with (
            silent(),
            torch.random.fork_rng(devices=[]),
            torch.device("meta"),
            recorder,
        ):
            own = copy.deepcopy(config)
            _trace(own, config, (), configs)
            twin = type(model)(own)
    except Exception:
        # It is made in another way than by its constructor alone
        return None
    result = Twin(twin, configs, recorder.sizes)
    result.calls = observe(twin, args, kwargs or {})
    return result


def _config_name(cls: type) -> str:
    """The one parameter that a constructor needs, "" if it needs others."""
    _, *parameters = inspect.signature(cls.__init__).parameters.values()
    kinds = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    needed = [
        p.name
        for p in parameters
        if p.default is inspect.Parameter.empty and p.kind not in kinds
    ]
    first = parameters[0].name if parameters else ""
    return first if needed == [first] else ""


def _entries(config: Any) -> dict[str, Any]:
    """The public entries of a configuration; those of a dict in it count as its own."""
    own = {k: v for k, v in vars(config).items() if not k.startswith("_")}
    inner = [v for v in own.values() if isinstance(v, dict)]
    nested = {str(k): v for entry in inner for k, v in entry.items() if is_number(v)}
    return own | {k: v for k, v in nested.items() if k.isidentifier() and k not in own}


def _trace(
    config: Any,
    original: Any,
    path: tuple[str, ...],
    configs: dict[tuple[str, ...], Any],
) -> None:
    """Replace the numbers of a copied configuration, and of those in it, by traced ones."""
    configs[path] = config
    entries = vars(config)

    def number(name: str, value: Any) -> Any:
        is_field = is_number(value) and name.isidentifier() and not iskeyword(name)
        return traced(value, Field(path, name, value)) if is_field else value

    for name, value in list(entries.items()):
        if name.startswith("_"):
            continue
        entries[name] = number(name, value)
        shared = value is getattr(original, name, None)
        if isinstance(value, dict):
            inner = {
                k: v if k in entries else number(str(k), v) for k, v in value.items()
            }
            entries[name] = inner
        elif (
            _is_config(value)
            and not shared
            and all(value is not c for c in configs.values())
        ):
            _trace(value, getattr(original, name), (*path, name), configs)


def _is_config(value: Any) -> bool:
    """Whether a value is an object with numbers."""
    if isinstance(value, type | dict | nn.Module) or not hasattr(value, "__dict__"):
        return False
    return any(map(is_number, _entries(value).values()))


class _Sizes(TorchFunctionMode):
    """Records the sizes that arrays are made with."""

    def __init__(self) -> None:
        super().__init__()
        self.sizes: dict[int, tuple[Any, ...]] = {}
        self.kept: list[torch.Tensor] = []

    def __torch_function__(
        self, func: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        sizes = (kwargs or {}).get("size", args)
        if len(sizes) == 1 and isinstance(sizes[0], tuple | list):
            sizes = sizes[0]
        is_made = isinstance(result, torch.Tensor) and all(map(is_number, sizes))
        if is_made and sizes and [*map(int, sizes)] == [*result.shape]:
            self.sizes[_storage(result)] = tuple(sizes)
            self.kept.append(result)  # its storage must not be used again
        return result


def _storage(array: torch.Tensor) -> int:
    return array.untyped_storage()._cdata
