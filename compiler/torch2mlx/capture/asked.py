"""What a model asks of its sizes while torch.export traces it, and where: some of it leaves no guard."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from sympy.logic.boolalg import Boolean
from torch.fx.experimental.symbolic_shapes import ShapeEnv, uninteresting_files

from torch2mlx.capture.failure import is_library
from torch2mlx.capture.provenance import Frame

# Through which a comparison of sizes becomes True or False
_ARITHMETIC = (
    os.path.join(torch.__path__[0], "fx", "experimental", ""),
    os.path.join(torch.__path__[0], "__init__.py"),
)


@dataclass
class Asked:
    """What was asked of the sizes.

    Attributes:
        answers: Comparison that the author makes, and that has one answer for all sizes but 1 ->
            (whether it holds, where it is made first).
        fixed: `L['x'].size()[1]`, as torch.export calls sizes -> the author's line that leaves it one value.
    """

    answers: dict[Any, tuple[bool, Frame]] = field(default_factory=dict)
    fixed: dict[str, Frame] = field(default_factory=dict)

    def clear(self) -> None:
        """Forget what was asked."""
        self.answers.clear()
        self.fixed.clear()


@contextlib.contextmanager
def recording_questions(asked: Asked) -> Iterator[None]:
    """While this is open, what is asked of sizes is added to `asked`."""
    evaluated, replaced = ShapeEnv.evaluate_expr, ShapeEnv._set_replacement
    uninteresting_files().add(__file__)  # guards name the frame that asked us

    def evaluate(self: ShapeEnv, expr: Any, *args: Any, **kwargs: Any) -> Any:
        count = len(self.guards)
        answer = evaluated(self, expr, *args, **kwargs)
        is_size = isinstance(expr, Boolean) and bool(expr.free_symbols)
        if is_size and len(self.guards) == count and expr not in asked.answers:
            asker = _frame(lambda file: not file.startswith(_ARITHMETIC))
            if asker is not None and not is_library(asker.file):
                asked.answers[expr] = bool(answer), asker
        return answer

    def replace(self: ShapeEnv, symbol: Any, value: Any, message: str) -> None:
        replaced(self, symbol, value, message)
        if not value.free_symbols:
            frame = _frame(lambda file: not is_library(file))
            for source in self.var_to_sources.get(symbol, ()):
                if frame is not None:
                    asked.fixed.setdefault(source.name, frame)

    ShapeEnv.evaluate_expr = evaluate  # type: ignore[method-assign]
    ShapeEnv._set_replacement = replace  # type: ignore[method-assign]
    try:
        yield
    finally:
        ShapeEnv.evaluate_expr = evaluated  # type: ignore[method-assign]
        ShapeEnv._set_replacement = replaced  # type: ignore[method-assign]


def _frame(is_wanted: Callable[[str], bool]) -> Frame | None:
    """The innermost frame of a file that is wanted."""
    frame = sys._getframe(2)
    while not is_wanted(frame.f_code.co_filename):
        if frame.f_back is None:
            return None
        frame = frame.f_back
    return Frame(frame.f_code.co_filename, frame.f_lineno, frame.f_code.co_name)
