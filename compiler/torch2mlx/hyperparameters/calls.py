"""Which numbers the author's `forward` gives to PyTorch, and what they are.

The twin's `forward` runs once, without values. Wherever it calls PyTorch, the numbers of the call are noted
with the author's line: traced ones, and plain ones, which tell that an equal number there is no evidence.
"""

from __future__ import annotations

import contextlib
import math
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from types import FrameType
from typing import Any

import torch
from torch import nn
from torch._export.utils import _compiling_state_context
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves, tree_map
from torch.utils.weak import WeakIdKeyDictionary

from torch2mlx.hyperparameters.expressions import (
    Expression,
    Field,
    Operation,
)
from torch2mlx.hyperparameters.traced import (
    TracedFloat,
    TracedInt,
    expression_of,
    is_number,
    traced,
)
from torch2mlx.silence import silent

_OWN = (
    os.path.join(torch.__path__[0], ""),
    os.path.join(os.path.dirname(__file__), ""),
)
_FUNCTIONS = ("log", "sqrt")
SHAPE: Any = torch.Tensor.shape.__get__  # type: ignore[attr-defined]
Place = tuple[str, str, int]  # module path, file and line
Found = dict[int | float, dict[Expression, set[str]]]
# How functions are called of which PyTorch's operators have other names
_NAMESAKES = {
    "radd": "add",
    "iadd": "add",
    "rmul": "mul",
    "imul": "mul",
    "multiply": "mul",
    "isub": "sub",
    "subtract": "sub",
    "truediv": "div",
    "rtruediv": "div",
    "itruediv": "div",
    "true_divide": "div",
    "divide": "div",
}


class Calls(TorchFunctionMode):
    """Notes the numbers that PyTorch is called with.

    Attributes:
        places: Module path and the author's line -> number -> what it was there, and in which functions.
        modules: Module path -> the same for all lines.
    """

    def __init__(self) -> None:
        super().__init__()
        self.places: dict[Place, Found] = {}
        self.modules: dict[str, Found] = {}
        self._path: list[str] = [""]
        self._sizes: Any = WeakIdKeyDictionary()

    def number(
        self,
        path: str,
        file: str,
        lines: Iterable[int],
        operator: str,
        value: int | float,
    ) -> Expression | None:
        """What a number is that a statement of a module's code gave to PyTorch; None if that is not sure.

        Args:
            path: The module.
            file: The file that the statement is in.
            lines: Its lines.
            operator: The operator that takes the number, in case that others there do, too.
            value: The number.
        """
        found: dict[Expression, set[str]] = {}
        for line in lines:
            known = self.places.get((path, file, line), {})
            for origin, names in known.get(value, {}).items():
                found[origin] = found.get(origin, set()) | names
        if not found and isinstance(value, float):
            # Fusions join lines; a fraction that occurs with one meaning only has that one
            found = self.modules.get(path, {}).get(value, {})
        origins = {*found}
        if len(found) > 1:
            origins = {origin for origin, names in found.items() if operator in names}
        if len(origins) != 1:
            return None
        (only,) = origins
        return only if isinstance(only, Field | Operation) else None

    @contextlib.contextmanager
    def within(self, model: nn.Module) -> Iterator[None]:
        """Knows which module a call is in."""
        handles = []
        for path, module in model.named_modules():
            enter = partial(self._enter, path)
            handles.append(module.register_forward_pre_hook(enter))
            handles.append(module.register_forward_hook(self._leave, always_call=True))
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def _enter(self, path: str, *_: Any) -> None:
        self._path.append(path)

    def _leave(self, *_: Any) -> None:
        self._path.pop()

    def __torch_function__(
        self, func: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        if func in (torch.Tensor.size, SHAPE):
            return self._traced_sizes(args, kwargs or {}, result)
        numbers = [n for n in _numbers((args, kwargs)) if not isinstance(n, bool)]
        if numbers:
            self._note(numbers, getattr(func, "__name__", "").strip("_"))
            self._note_sizes(numbers, (args, kwargs), result)
        return result

    def _note(self, numbers: list[Any], function: str) -> None:
        path = self._path[-1]
        place = (path, *_line(sys._getframe(2)))
        name = _NAMESAKES.get(function, function)
        for known in (
            self.places.setdefault(place, {}),
            self.modules.setdefault(path, {}),
        ):
            for number in numbers:
                plain = int(number) if isinstance(number, int) else float(number)
                origins = known.setdefault(plain, {})
                origins.setdefault(expression_of(number), set()).add(name)

    def _note_sizes(self, numbers: list[Any], given: Any, result: Any) -> None:
        """A size that a call was given, and that none of its arrays had before, is that number."""
        before = {
            int(size)
            for leaf in tree_leaves(given)
            if isinstance(leaf, torch.Tensor)
            for size in leaf.shape
        }
        known: dict[int, set[Expression]] = {}
        for number in numbers:
            if isinstance(number, int):
                known.setdefault(int(number), set()).add(expression_of(number))
        for leaf in tree_leaves(result):
            if not isinstance(leaf, torch.Tensor):
                continue
            for axis, size in enumerate(leaf.shape):
                found = known.get(size, set())
                if len(found) == 1 and size not in before and size > 1:
                    (origin,) = found
                    if isinstance(origin, Field | Operation):
                        self._sizes.setdefault(leaf, {})[axis] = origin

    def _traced_sizes(self, args: Any, kwargs: Any, result: Any) -> Any:
        known = self._sizes.get(args[0])
        if not known:
            return result
        if isinstance(result, int):
            axis = (args[1] if len(args) > 1 else kwargs["dim"]) % args[0].ndim
            return traced(result, known[axis]) if axis in known else result
        sizes: list[Any] = [*result]
        for axis, origin in known.items():
            sizes[axis] = traced(sizes[axis], origin)
        return torch.Size(sizes)


def observe(
    model: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any]
) -> Calls:
    """Run a model with traced numbers without values, as far as that goes.

    Args:
        model: The model.
        args: Example inputs.
        kwargs: More of them, by name.
    """
    calls = Calls()
    fake = FakeTensorMode(allow_non_fake_inputs=True)
    model.eval()
    with (
        contextlib.suppress(Exception),  # what was seen until then holds
        silent(),
        torch.no_grad(),
        torch.random.fork_rng(devices=[]),
        fake,
        _compiling_state_context(),  # models ask whether they are exported
    ):
        state = {**dict(model.named_parameters()), **dict(model.named_buffers())}
        given = tree_map(_without_values, (state, args, dict(kwargs)))
        with _traced_mathematics(), calls.within(model), calls:
            torch.func.functional_call(model, *given)
    return calls


def _without_values(leaf: Any) -> Any:
    """An array of the same shape that has no values, on the device that models are captured on."""
    if not isinstance(leaf, torch.Tensor):
        return leaf
    return torch.empty(leaf.shape, dtype=leaf.dtype, device="cpu")


def _numbers(value: Any) -> Iterator[Any]:
    """The numbers in nested arguments, those of slices too."""
    if is_number(value):
        yield value
    elif isinstance(value, slice):
        yield from _numbers((value.start, value.stop, value.step))
    elif isinstance(value, tuple | list):
        for part in value:
            yield from _numbers(part)
    elif isinstance(value, dict):
        for part in value.values():
            yield from _numbers(part)


def _line(frame: FrameType | None) -> tuple[str, int]:
    """The innermost line that is not PyTorch's."""
    while frame is not None and frame.f_code.co_filename.startswith(_OWN):
        frame = frame.f_back
    return ("", 0) if frame is None else (frame.f_code.co_filename, frame.f_lineno)


@contextlib.contextmanager
def _traced_mathematics() -> Iterator[None]:
    """Functions of `math` that keep the expressions of their arguments."""
    before = {name: getattr(math, name) for name in _FUNCTIONS}

    def keeping(name: str) -> Callable[..., Any]:
        def function(x: Any, *rest: Any) -> Any:
            value = before[name](x, *rest)
            if rest or not isinstance(x, TracedInt | TracedFloat):
                return value
            return traced(value, Operation(name, expression_of(x), 0))

        return function

    try:
        for name in _FUNCTIONS:
            setattr(math, name, keeping(name))
        yield
    finally:
        for name, function in before.items():
            setattr(math, name, function)
