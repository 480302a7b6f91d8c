"""The verification: every set of inputs through both models, the culprit of the first failure."""

from __future__ import annotations

import contextlib
import math
import os
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import mlx.core as mx
import mlx.nn
import torch
from torch.utils._pytree import tree_leaves, tree_map_only

from torch2mlx.capture.evaluation import evaluating
from torch2mlx.errors import InputError
from torch2mlx.verify.cases import Inputs, example, further
from torch2mlx.verify.compare import compare_outputs, tolerance_for
from torch2mlx.verify.culprit import find_culprit
from torch2mlx.verify.nonfinite import first_not_finite
from torch2mlx.verify.perturb import constant_arrays, perturbed
from torch2mlx.verify.repro import write_repro
from torch2mlx.verify.result import (
    Case,
    Culprit,
    NotFinite,
    OutputError,
    Verification,
)
from torch2mlx.verify.sides import run_mlx, run_torch
from torch2mlx.verify.state import State

if TYPE_CHECKING:
    from torch2mlx.api import Program

PERTURBED = "noise on constant parameters"
TWICE = "a second call on the example inputs"


def verify(
    program: Program,
    *,
    absolute: float = 1e-4,
    relative: float = 1e-3,
    seed: int = 0,
    repro: Path | None = None,
    folder: Path | None = None,
) -> Verification:
    """Compare the generated model with the PyTorch model that it was compiled from.

    Both run on the example inputs, on another batch size, on other values of all sizes that may vary,
    with padded masks, and, where parameters are constant, with noise on them: on random values of two
    seeds at least, and on two shapes where one size may vary. Where forward writes to
    buffers, these are compared too, and each run begins with those that the model has now, but for one
    that calls it twice. The PyTorch model is unchanged afterwards.

    Args:
        program: The compiled model.
        absolute: Largest difference that is allowed beside zeros.
        relative: Largest difference that is allowed, relative to the largest value of an output.
            Models that compute in float16 or bfloat16 get at least 8 eps of that dtype.
        seed: Of the random inputs; half of them have the next one.
        repro: Where to write a script that shows the first difference.
        folder: The generated folder that `program` was read from, where it was.

    Raises:
        InputError: The PyTorch model has no values, or fails on its own example inputs.
    """
    run = _Run(program, absolute, relative)
    with evaluating(program.model), _exact_products():
        run.compare([example(program.captured)], must_run=True)
        if run.state.keys:
            run.compare([example(program.captured, TWICE)], calls=2)
        for choice in further(program.captured, seed):
            run.compare(choice)
        constant = constant_arrays(program.model, program.captured)
        if constant:
            with perturbed(constant, seed):
                run.reload()
                run.compare([example(program.captured, PERTURBED)])
        if repro is not None and run.culprit is not None and run.failed is not None:
            run.reproduce(repro, folder)
    notes = [*run.notes, *_notes(run.cases)]
    return Verification(run.cases, run.culprit, notes, run.not_finite)


@contextlib.contextmanager
def _exact_products() -> Iterator[None]:
    """PyTorch multiplies float32 matrices exactly, whatever the user has set."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)


class _Run:
    """The comparisons so far."""

    def __init__(self, program: Program, absolute: float, relative: float):
        self.program = program
        self.tolerance = tolerance_for(program.captured, absolute, relative)
        self.perms = [
            node.meta.get("perm") if isinstance(node, torch.fx.Node) else None
            for node in program.outlined.model.outputs
        ]
        self.cases: list[Case] = []
        self.culprit: Culprit | None = None
        self.failed: Inputs | None = None
        self.not_finite: NotFinite | None = None
        self.notes: list[str] = []
        self.module: mlx.nn.Module | None
        self.failure = ""
        self.state = State(program)
        self.reload()

    def reload(self) -> None:
        """Load the generated module with the weights that the PyTorch model has now."""
        self.module = None
        try:
            self.module = self.program.load()
            self.state.load(self.module)
        except InputError:
            raise
        except Exception as error:
            self.failure = f"it does not load: {_message(error)}"

    def compare(
        self, choice: Iterable[Inputs], must_run: bool = False, calls: int = 1
    ) -> None:
        """Add the case of the first inputs that PyTorch accepts, called some times in a row."""
        refused: list[tuple[str, Exception]] = []
        for inputs in choice:
            try:
                with self.state.kept():
                    want = [self._torch(inputs, 0) for _ in range(calls)][-1]
                    held = self.state.held()
            except Exception as error:
                refused.append((inputs.name, error))
                continue
            self._add(inputs, want, held, calls)
            self._find_not_finite(inputs, want)
            return
        name, error = refused[0]
        if must_run:
            text = f"the PyTorch model fails on its {name}: {_message(error)}"
            raise InputError(text) from error
        self.notes.append(
            f"not compared, PyTorch itself fails: {name}: {_message(error)}"
        )

    def _find_not_finite(self, inputs: Inputs, want: Any) -> None:
        outputs = [y for y in tree_leaves(want) if isinstance(y, torch.Tensor)]
        if self.not_finite is None:
            with contextlib.suppress(Exception), self.state.kept():
                self.not_finite = first_not_finite(
                    self.program.captured, inputs.tensors, outputs
                )

    def reproduce(self, path: Path, folder: Path | None) -> None:
        """Write a script that shows the first difference, or note why there is none."""
        assert self.culprit is not None
        assert self.failed is not None
        try:
            write_repro(self.program, self.culprit, self.failed, path, folder)
        except InputError as error:
            self.notes.append(str(error))
        else:
            self.notes.append(f"a script that shows it: {path}")

    def _torch(self, inputs: Inputs, seed: int) -> Any:
        program = self.program
        result = run_torch(program.model, program.captured, inputs.tensors, seed)
        if self.state.keys:  # it may hold a buffer itself
            result = tree_map_only(torch.Tensor, torch.clone, result)
        return result

    def _add(
        self, inputs: Inputs, want: Any, held: list[torch.Tensor], calls: int
    ) -> None:
        if self.state.keys:
            self.reload()
        module = self.module
        if module is None:
            self.cases.append(Case(inputs.name, error=self.failure))
            return
        try:
            runs = (run_mlx(module, self.program, inputs.tensors) for _ in range(calls))
            got = list(runs)[-1]
        except Exception as error:
            case = Case(inputs.name, error=_message(error))
        else:
            outputs = compare_outputs(want, got, self.perms, self.tolerance)
            case = Case(inputs.name, outputs)
            if not case.ok:
                outputs = self._without_random(inputs, want, outputs, calls)
            buffers = self.state.compare(held, module, self.tolerance)
            case = Case(inputs.name, [*outputs, *buffers])
        self.cases.append(case)
        if not case.ok and self.culprit is None:
            self.failed = inputs
            try:
                with self.state.kept():
                    self.culprit = find_culprit(
                        self.program, inputs, self.tolerance, case
                    )
            except Exception as error:  # the cases say enough without it
                self.notes.append(
                    f"the search for the culprit fails: {_message(error)}"
                )

    def _without_random(
        self, inputs: Inputs, want: Any, outputs: list[OutputError], calls: int
    ) -> list[OutputError]:
        """Accept the values of outputs that PyTorch itself does not give twice."""
        with self.state.kept():
            again = [self._torch(inputs, 1) for _ in range(calls)][-1]
        first, second = tree_leaves(want), tree_leaves(again)
        if len(first) != len(outputs) or len(second) != len(outputs):
            return outputs
        found: list[OutputError] = []
        for output, one, other in zip(outputs, first, second, strict=True):
            differs = isinstance(one, torch.Tensor) and not torch.equal(one, other)
            if not output.ok and differs and math.isfinite(output.max_error):
                note = (
                    f"{output.label} is random in PyTorch: its values are not compared"
                )
                if note not in self.notes:
                    self.notes.append(note)
                output = replace(output, ok=True, why="is random")
            found.append(output)
        return found


def _message(error: BaseException) -> str:
    text = next((line.strip() for line in str(error).splitlines() if line.strip()), "")
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def _notes(cases: list[Case]) -> list[str]:
    notes: list[str] = []
    if mx.default_device() == mx.gpu and os.environ.get("MLX_ENABLE_TF32") != "0":
        notes.append(
            "MLX multiplies float32 matrices with reduced precision on this GPU: "
            "set MLX_ENABLE_TF32=0 before MLX is imported"
        )
    constant: dict[str, list[bool]] = {}
    for case in cases:
        for output in case.outputs:
            constant.setdefault(output.label, []).append(output.constant)
    for label, flags in constant.items():
        if all(flags):
            notes.append(f"{label} is constant in every case: agreement proves little")
        elif flags[0] and cases[-1].name == PERTURBED:
            notes.append(
                f"{label} is constant on the example inputs, but not in: {PERTURBED}"
            )
    return notes
