"""The public API: `compile` runs the stages one after the other, a `Program` is what comes out."""

from __future__ import annotations

import builtins
import copy
import math
import re
import types
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any

import mlx.core as mx
import mlx.nn
import torch
from torch.export import ExportedProgram

from torch2mlx import passes
from torch2mlx.arrays import from_numpy
from torch2mlx.capture import Captured, capture
from torch2mlx.emit import emit
from torch2mlx.emit.arguments import bind, config_of
from torch2mlx.emit.interface import interface
from torch2mlx.emit.weights import COUNTER, StateDict, make_plan, quantizable
from torch2mlx.errors import InputError
from torch2mlx.hyperparameters import twin_of
from torch2mlx.ir.decision import Decision
from torch2mlx.layout import IOLayout, assign_layouts, keep_layouts
from torch2mlx.lower.driver import Lowered, lower
from torch2mlx.lower.evaluation import evaluation_notes
from torch2mlx.lower.metal import metal_problems
from torch2mlx.lower.registry import MODULES
from torch2mlx.outline import Outlined, outline
from torch2mlx.report import Report
from torch2mlx.review.merge import Merge
from torch2mlx.saving import MODEL_FILE, FromCheckpoint, Made, Output, prepare
from torch2mlx.stages import STAGES
from torch2mlx.verify import Verification
from torch2mlx.verify import verify as verify_program
from torch2mlx.weights import open_checkpoint, safetensors
from torch2mlx.weights.composition import composed
from torch2mlx.weights.plan import WeightPlan, apply
from torch2mlx.weights.quantization import quantization
from torch2mlx.writing import Extras, merged, write

NOTHING = Extras()


def compile(
    model: torch.nn.Module,
    args: tuple[Any, ...] = (),
    kwargs: Mapping[str, Any] | None = None,
    *,
    dynamic: Any = "auto",
    io_layout: IOLayout = "mlx",
    name: str | None = None,
    disable: Collection[str] = (),
    fold_bn: bool = False,
    stubs: bool = False,
    program: ExportedProgram | None = None,
    conversion: WeightPlan | None = None,
    progress: Callable[[str], None] | None = None,
) -> Program:
    """Compile a PyTorch module into MLX source code.

    Args:
        model: The module. It is compiled in evaluation mode and left as it was.
        args: Example positional arguments of `forward`.
        kwargs: Example keyword arguments.
        dynamic: "auto" keeps every input size variable that the model allows to vary, False fixes all;
            anything else is `torch.export`'s `dynamic_shapes`.
        io_layout: "mlx" takes and returns images channels-last, "torch" as PyTorch does; or one of them
            by name, e.g. {"x": "torch", "output": "mlx"}: a parameter of `forward`, all that is returned,
            or a part of that such as "output[0]".
        name: The model's name in the generated file's first line and config.json.
        disable: Names of passes to leave out; without "layout" there are transposes around every
            convolution, and images come in and go out as in PyTorch.
        fold_bn: Fold what inference does not change: each BatchNorm into the convolution or linear layer
            before it, what is computed from parameters alone into one array. Faster, but not for
            training; PyTorch's weights cannot be restored from the result.
        stubs: Operators that are not mapped become functions to fill in, instead of an error.
        program: An exported program to compile instead of exporting `model`.
        conversion: How a checkpoint becomes the model's state dict, where that has other names: what
            `sanitize` and `Program.save(weights=...)` take is the checkpoint then.
        progress: Called with the name of each stage when it begins.

    Returns:
        The compiled program.

    Raises:
        UnsupportedError: The model uses operators that are not mapped; it lists all of them.
        CaptureError: `torch.export` cannot capture the model.
        InputError: The example inputs do not fit the model, or an option is unknown.
    """
    begin = progress or (lambda stage: None)
    dumps: dict[str, str] = {}

    begin("capture")
    captured = capture(
        model, args, kwargs, dynamic=dynamic, program=program, opaque=MODULES
    )
    dumps["capture"] = str(captured.graph)
    begin("passes")
    decisions = passes.run(captured, disable, fold_bn=fold_bn)
    dumps["passes"] = str(captured.graph)
    return translate(
        model,
        captured,
        decisions,
        io_layout=io_layout,
        name=name,
        stubs=stubs,
        begin=begin,
        dumps=dumps,
        assign=passes.LAYOUT not in disable,
        conversion=conversion,
    )


def translate(
    model: torch.nn.Module,
    captured: Captured,
    decisions: list[Decision],
    *,
    io_layout: IOLayout,
    name: str | None,
    stubs: bool,
    begin: Callable[[str], None],
    dumps: dict[str, str],
    assign: bool = True,
    conversion: WeightPlan | None = None,
) -> Program:
    """The second half of `compile`: from a captured and simplified graph to the program.

    Args:
        model: What was captured.
        captured: Its graph.
        decisions: What the passes decided.
        io_layout: As for `compile`.
        name: As for `compile`.
        stubs: As for `compile`.
        begin: Called with the name of each stage when it begins.
        dumps: What the stages before made; it is added to.
        assign: Whether to assign layouts.
        conversion: As for `compile`.

    Raises:
        UnsupportedError: Some operators are not mapped.
        InputError: The layouts do not fit the model.
    """
    begin("lower")
    lowered = lower(captured, stubs)
    dumps["lower"] = str(lowered.graph)
    begin("layout")
    transposes = (
        assign_layouts(lowered, captured, io_layout)
        if assign
        else keep_layouts(lowered)
    )
    dumps["layout"] = str(lowered.graph)
    begin("outline")
    outlined = outline(lowered, captured)
    dumps["outline"] = str(outlined)
    begin("emit")
    outlined.arguments = bind(
        outlined, twin_of(model, *captured.example), captured.lengths
    )
    title = name or outlined.classes[-1].name
    plan = make_plan(outlined, captured)
    original = plan if conversion is None else composed(plan, conversion)
    source = emit(outlined, captured, original or plan, captured.model_class, title)
    dumps |= {"emit": source, "weights": (original or plan).to_json()}

    report = _report(captured, lowered, outlined, plan)
    report.unused = [
        k for k, why in (original or plan).unused.items() if why != COUNTER
    ]
    report.transposes, report.decisions = transposes, decisions
    return Program(
        title,
        source,
        model,
        captured,
        lowered,
        outlined,
        plan,
        original,
        conversion,
        report,
        dumps,
    )


def _report(
    captured: Captured, lowered: Lowered, outlined: Outlined, plan: WeightPlan
) -> Report:
    face = interface(outlined.model, captured)
    report = Report(captured.model_class, lowered.ops, lowered.layers)
    for entry in plan.entries:
        size = math.prod(entry.out_shape)
        report.parameters += size
        report.bytes += size * safetensors.DTYPES[entry.out_dtype].itemsize
        report.trainable += size if captured.trainable.issuperset(entry.sources) else 0
    report.inputs, report.outputs = face.inputs, face.outputs
    metal = (f"not on a Metal GPU: {why}" for why in metal_problems(lowered.graph))
    report.notes = [*captured.notes, *evaluation_notes(lowered.graph), *metal]
    report.stubs = [stub.name for stub in lowered.stubs]
    return report


class Program:
    """A compiled model.

    Attributes:
        name: Name of the model.
        source: Text of the generated file.
        report: What the compile did.
        captured: The model as it was captured.
        lowered: Its lowered graph.
        outlined: Its classes.
        plan: How its weights are made of the model's state dict.
        original: How they are made of the checkpoint that `compile` got a conversion for, or of the state
            dict without one; None where the two steps cannot be one.
        conversion: What `compile` got.
    """

    def __init__(
        self,
        name: str,
        source: str,
        model: torch.nn.Module,
        captured: Captured,
        lowered: Lowered,
        outlined: Outlined,
        plan: WeightPlan,
        original: WeightPlan | None,
        conversion: WeightPlan | None,
        report: Report,
        dumps: dict[str, str],
    ):
        self.name = name
        self.source = source
        self.report = report
        self.model = model
        self.captured = captured
        self.lowered = lowered
        self.outlined = outlined
        self.plan = plan
        self.original = original
        self.conversion = conversion
        self._dumps = dumps
        self._tensors = StateDict(captured.tensors)
        self._replaced: dict[str, mx.array | None] = {}

    def __repr__(self) -> str:
        lines = self.source.count("\n")
        return f"<torch2mlx.Program {self.name}: {lines} lines, {self.report.parameters} parameters>"

    def dump(self, stage: str) -> str:
        """What the stage `stage`, one of `STAGES`, made.

        Raises:
            InputError: There is no such stage.
        """
        if stage == "verify":
            return "\n".join(self.verify().lines())
        if stage not in self._dumps:
            raise InputError(
                f"unknown stage {stage!r}; the stages are {', '.join(STAGES)}"
            )
        return self._dumps[stage]

    @property
    def config(self) -> dict[str, Any]:
        """What config.json holds: the model's numbers, and what `mlx_lm.utils.load_model` needs."""
        kind = re.sub(r"\W+", "_", self.name).strip("_").lower()
        numbers = config_of(self.outlined.arguments)
        return numbers | {"model_file": MODEL_FILE, "model_type": kind}

    def output(
        self,
        *,
        weights: str | Path | None = None,
        dtype: str | None = None,
        quantize: int | None = None,
        group_size: int | None = None,
        mode: str = "affine",
    ) -> Output:
        """What `save` writes with these options; `Output.bytes` is the size of the weights."""
        plan, sources = self.plan, self._tensors
        if weights is not None:
            given = FromCheckpoint(
                self.original or self.conversion or plan,
                open_checkpoint(weights),
                self._tensors,
            )
            self.report.unused = sorted({*self.report.unused, *given.unused})
            if self.original is not None:
                plan, sources = given.plan, given
            else:
                sources = Made(given.plan, given, self._tensors)
        settings = None
        if quantize is not None:
            settings = quantization(quantize, group_size, mode)
        elif group_size is not None or mode != "affine":
            raise InputError("group_size and mode go with quantize")
        return prepare(
            plan,
            sources,
            layers=quantizable(self.outlined),
            source=self.source,
            dtype=dtype,
            settings=settings,
        )

    def save(
        self,
        path: str | Path,
        *,
        weights: str | Path | None = None,
        dtype: str | None = None,
        quantize: int | None = None,
        group_size: int | None = None,
        mode: str = "affine",
        files: Mapping[str, str | bytes] | None = None,
        extras: Extras = NOTHING,
        progress: Callable[[int], None] | None = None,
    ) -> Path:
        """Write the folder: the model's source, its weights and config.json, all of it or nothing.

        Edits of an older compile's `model_mlx.py` are kept: they are merged with what is generated now.

        Args:
            path: The folder. Files of an older compile are replaced, others stay.
            weights: A checkpoint to take the weights from instead of the model: a safetensors file, an
                index or a folder with them, under the keys of the model's state dict, or under those
                that `compile` got a conversion for.
            dtype: "float32", "float16" or "bfloat16" for all floating-point weights.
            quantize: Bits per weight of the layers that can be quantized.
            group_size: How many weights share a scale; None for the default of the mode.
            mode: "affine", "mxfp4", "nvfp4" or "mxfp8".
            files: Further files to write beside: name -> content.
            extras: What else it holds: a certificate, comments, a source map.
            progress: Called with the number of weight bytes written since the last call.

        Returns:
            The folder.

        Raises:
            InputError: The folder cannot be written, the checkpoint is malformed or lacks weights, an
                option is wrong, or the model has no values (meta device).
            ConflictError: Edits conflict with what is generated now. The folder is written, and the
                conflicts are marked in `model_mlx.py`.
        """
        output = self.output(
            weights=weights,
            dtype=dtype,
            quantize=quantize,
            group_size=group_size,
            mode=mode,
        )
        return self.write(path, output, files=files, extras=extras, progress=progress)

    def write(
        self,
        path: str | Path,
        output: Output,
        *,
        files: Mapping[str, str | bytes] | None = None,
        extras: Extras = NOTHING,
        progress: Callable[[int], None] | None = None,
    ) -> Path:
        """Write the folder with what `output` gave; see `save`."""
        return write(self, Path(path), output, extras, files, progress)

    def merged(self, path: str | Path, output: Output, extras: Extras) -> Merge:
        """What the texts of a folder become when `write` writes it; see `torch2mlx.review`."""
        return merged(self, Path(path), output, extras)

    def with_source(
        self, source: str, replaced: Mapping[str, mx.array | None] | None = None
    ) -> Program:
        """The same program with another text of the generated file, e.g. an edited one.

        Args:
            source: The text.
            replaced: Arrays to load in place of the model's, or with None, not to load.
        """
        other = copy.copy(self)
        other.source = source
        other._replaced = {**self._replaced, **(replaced or {})}
        return other

    def load(self, arrays: Mapping[str, mx.array] | None = None) -> mlx.nn.Module:
        """The generated model in evaluation mode; nothing is written.

        Args:
            arrays: Its weights, by parameter path; None for those of the PyTorch model.
        """
        module = types.ModuleType("model_mlx")
        module.__file__ = MODEL_FILE
        code = builtins.compile(self.source, MODEL_FILE, "exec", dont_inherit=True)
        exec(code, module.__dict__)
        cls = getattr(module, self.outlined.classes[-1].name)
        model = cls()
        weights = self.arrays() if arrays is None else arrays
        model.load_weights(list(weights.items()), strict=True)
        model.eval()
        return model

    def arrays(self) -> dict[str, mx.array]:
        """Every array of the generated model, by its parameter path."""
        arrays = {
            entry.key: from_numpy(
                apply(entry, self._tensors), bfloat16=entry.out_dtype == "BF16"
            )
            for entry in self.plan.entries
        }
        arrays |= {k: a for k, a in self._replaced.items() if a is not None}
        return {k: a for k, a in arrays.items() if self._replaced.get(k, a) is not None}

    def verify(
        self,
        *,
        absolute: float = 1e-4,
        relative: float = 1e-3,
        seed: int = 0,
        repro: str | Path | None = None,
        folder: Path | None = None,
    ) -> Verification:
        """Compare the generated model with PyTorch; see `torch2mlx.verify.verify`.

        Args:
            absolute: Largest difference that is allowed beside zeros.
            relative: Largest difference that is allowed, relative to the largest value of an output.
            seed: Of the random inputs.
            repro: Where to write a script that shows the first difference.
            folder: The folder that the code was read from, for that script.

        Raises:
            InputError: The model has stubs, so that it cannot run.
        """
        if self.report.stubs:
            names = ", ".join(self.report.stubs)
            raise InputError(f"nothing to compare before {names} is filled in")
        return verify_program(
            self,
            absolute=absolute,
            relative=relative,
            seed=seed,
            repro=None if repro is None else Path(repro),
            folder=folder,
        )
