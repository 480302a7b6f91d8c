"""Why torch.export cannot capture a model: the author's line, the cause, and how it is usually written."""

from __future__ import annotations

import os
import sysconfig
import traceback
from dataclasses import dataclass
from pathlib import Path

import sympy
import torch

from torch2mlx.capture.provenance import Frame

# A part of PyTorch's message -> what is the matter, and what to do. The first that fits counts.
_CAUSES = {
    "Could not guard on data-dependent": (
        "a branch depends on the values of a tensor",
        "compute both sides and choose with torch.where(condition, a, b), or use torch.cond",
    ),
    "Could not extract specialized integer from data-dependent": (
        "a size or an index must be a Python int, and is a number read from a tensor",
        "write x.item() for int(x), give one_hot its num_classes, or compute it from shapes",
    ),
    "Pending unbacked symbols": (
        "a shape depends on values in a way that torch.export cannot follow",
        "index by one mask alone (x[mask], and by anything else before or after), or by indices",
    ),
    "aten.equal.default": (
        "torch.equal gives a Python bool that depends on values; torch.cov and torch.corrcoef call it",
        "keep it a tensor: (a == b).all(); write a covariance as a matrix product",
    ),
    "aten.allclose.default": (
        "torch.allclose gives a Python bool that depends on values",
        "keep it a tensor: torch.isclose(a, b).all()",
    ),
    "not 'SymBool'": (
        "a number is made of a bool that is read from a tensor",
        "keep it a tensor: mask.any().to(x.dtype)",
    ),
    "in output, which is not a known type": (
        "forward returns something else than tensors in tuples, lists and dicts",
        "return tensors; a transformers model does with model.config.use_cache = False",
    ),
    "Unsupported input type": (
        "forward takes something else than tensors in tuples, lists and dicts",
        "pass tensors; a transformers model does with model.config.use_cache = False",
    ),
    "_local_scalar_dense": (
        "a Python number is read from a tensor",
        "keep it a tensor: no .item(), .tolist(), int(tensor) or float(tensor)",
    ),
    "numpy": (
        "NumPy computes with a tensor",
        "use the function of the same name in torch",
    ),
    "nonzero": (
        "the shape of a result depends on values",
        "keep the shape: torch.where(mask, x, 0) instead of x[mask] or nonzero",
    ),
}
# A part of the author's line -> the same, where the place says more than PyTorch's message
_PLACES = {
    os.path.join("torchvision", "ops", "boxes.py"): (
        "how many boxes non-maximum suppression keeps depends on values",
        "compile the backbone and the heads as modules of their own, and choose the boxes outside",
    ),
}
_LIBRARIES = tuple(
    os.path.join(path, "")
    for path in (
        os.path.dirname(torch.__file__),
        os.path.dirname(sympy.__file__),
        str(Path(__file__).parents[1]),
    )
)
_PYTHON = os.path.join(sysconfig.get_path("stdlib"), "")


@dataclass(frozen=True)
class Diagnosis:
    """Why torch.export fails.

    Attributes:
        cause: What is the matter; PyTorch's own message where it is none of the known causes.
        source_line: The author's `file:line: code`, or "" when it is unknown.
        rewrite: How it is usually written, or "".
    """

    cause: str
    source_line: str
    rewrite: str

    def __str__(self) -> str:
        lines = [f"torch.export cannot capture the model: {self.cause}"]
        if self.source_line:
            lines.append(f"    at {self.source_line}")
        if self.rewrite:
            lines.append(f"    {self.rewrite}")
        return "\n".join(lines)


def diagnose(error: BaseException) -> Diagnosis:
    """The cause of what torch.export raised, the author's line, and the usual rewrite."""
    message = str(error)
    detail = f"{type(error).__name__}: {first_line(error)}"
    line = _author_line(error)
    known = [why for place, why in _PLACES.items() if place in line]
    known += [why for part, why in _CAUSES.items() if part in message]
    cause, rewrite = known[0] if known else (detail, "")
    return Diagnosis(cause, line, rewrite)


def first_line(error: BaseException) -> str:
    """The first line of an error's message that says something."""
    lines = (line.strip() for line in str(error).splitlines())
    return next((line for line in lines if line), "no message")


def _author_line(error: BaseException | None) -> str:
    """The innermost line outside Python and PyTorch, of the error or of what caused it."""
    while error is not None:
        for frame in reversed(traceback.extract_tb(error.__traceback__)):
            if not is_library(frame.filename):
                return str(Frame(frame.filename, frame.lineno or 0, frame.name))
        error = error.__cause__ or error.__context__
    return ""


def is_library(file: str) -> bool:
    """Whether a file is Python's, PyTorch's or ours, and not the author's."""
    is_python = file.startswith(_PYTHON) and "site-packages" not in file
    return file.startswith(("<", *_LIBRARIES)) or is_python
