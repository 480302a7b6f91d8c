"""Models on one way from PyTorch to MLX: `python alternatives_routes.py WAY MODEL ...`, each a line of JSON.

Each model has a process of its own, forked when the libraries are imported, so that a crash is one row.

Each way is a function of the model, the inputs to convert it with, and others of the same shapes. It returns
the outputs for these, or a status of its own where nothing runs here; whatever it raises counts as refused.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import json
import multiprocessing
import os
import sys
import tempfile
import time
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

os.environ["MLX_ENABLE_TF32"] = "0"

import alternatives_models
import numpy as np
import torch
from torch import nn
from torch.utils._pytree import tree_leaves

Inputs = alternatives_models.Inputs
ABSOLUTE, RELATIVE = 1e-4, 1e-3
LONGEST = 200  # characters of a reason
LIMIT = 900  # seconds for a model
FORK = multiprocessing.get_context("fork")


class NotRun(Exception):
    """A status where the result cannot be run here."""

    def __init__(self, status: str, detail: str) -> None:
        super().__init__(detail)
        self.status = status


def torch2mlx(model: nn.Module, inputs: Inputs, others: Inputs) -> list[np.ndarray]:
    """Compile, save, and load the folder as a user does."""
    import mlx.core as mx
    import mlx.utils

    import torch2mlx

    program = torch2mlx.compile(model, (), inputs, io_layout="torch")
    with tempfile.TemporaryDirectory() as folder:
        program.save(folder)
        path = Path(folder, "model_mlx.py")
        spec = importlib.util.spec_from_file_location("generated", path)
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        generated = module.load_model()
        result = generated(*(mx.array(x.numpy()) for x in others.values()))
        arrays = [array for _, array in mlx.utils.tree_flatten(result)]
        mx.eval(arrays)
    return [np.array(array) for array in arrays]


def onnxruntime(model: nn.Module, inputs: Inputs, others: Inputs) -> list[np.ndarray]:
    """`torch.onnx`, run by ONNX Runtime on the CPU."""
    import onnxruntime

    proto = _onnx(model, inputs)
    session = onnxruntime.InferenceSession(
        proto.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    return session.run(
        None, {x.name: others[x.name].numpy() for x in proto.graph.input}
    )


def onnx2mlx(model: nn.Module, inputs: Inputs, others: Inputs) -> list[np.ndarray]:
    """`torch.onnx`, then the closure that onnx2mlx makes of it."""
    import mlx.core as mx
    from onnx2mlx import convert_to_mlx

    proto = _onnx(model, inputs)
    function = convert_to_mlx(proto)
    result = function(*(mx.array(others[x.name].numpy()) for x in proto.graph.input))
    arrays = list(result) if isinstance(result, list | tuple) else [result]
    mx.eval(arrays)
    return [np.array(array) for array in arrays]


def _onnx(model: nn.Module, inputs: Inputs) -> Any:
    program = torch.onnx.export(model, (), kwargs=inputs, dynamo=True, verbose=False)
    assert program is not None
    return program.model_proto


def executorch(model: nn.Module, inputs: Inputs, others: Inputs) -> list[np.ndarray]:
    """ExecuTorch's MLX delegate, which runs on Apple hardware only: how many parts it takes."""
    from executorch.backends.mlx import MLXPartitioner
    from executorch.exir import to_edge_transform_and_lower

    exported = torch.export.export(model, (), inputs)
    lowered = to_edge_transform_and_lower(exported, partitioner=[MLXPartitioner()])
    names = [
        str(node.target)
        for node in lowered.exported_program().graph.nodes
        if node.op == "call_function" and "getitem" not in str(node.target)
    ]
    parts = sum("executorch_call_delegate" in name for name in names)
    outside = len(names) - parts
    status = "whole" if (parts, outside) == (1, 0) else "parts"
    raise NotRun(status, f"{parts} partitions, {outside} operators outside")


def coremltools(model: nn.Module, inputs: Inputs, others: Inputs) -> list[np.ndarray]:
    """An ML program by `torch.export`, else by `torch.jit.trace`; it runs on Apple hardware only."""
    import coremltools

    try:
        exported = torch.export.export(model, (), inputs).run_decompositions({})
        coremltools.convert(exported)
    except Exception as error:
        print("torch.export:", _reason(error), file=sys.stderr)
    else:
        raise NotRun("converted", "torch.export")
    traced = torch.jit.trace(model, example_kwarg_inputs=inputs, strict=False)
    types = [
        coremltools.TensorType(name, x.shape, dtype=x.numpy().dtype.type)
        for name, x in inputs.items()
    ]
    coremltools.convert(traced, inputs=types)
    raise NotRun("converted", "torch.jit.trace")


# The way, and the packages whose versions are recorded
WAYS = {
    "torch2mlx": (torch2mlx, ("torch", "mlx")),
    "onnxruntime": (onnxruntime, ("torch", "onnxruntime")),
    "onnx2mlx": (onnx2mlx, ("torch", "onnx2mlx", "mlx")),
    "executorch": (executorch, ("torch", "executorch")),
    "coremltools": (coremltools, ("torch", "coremltools")),
}


def measure(way: str, name: str) -> dict[str, Any]:
    """What became of one model."""
    convert, packages = WAYS[way]
    model, inputs, others = alternatives_models.build(name)
    with torch.no_grad():
        first, expected = tree_leaves(model(**inputs)), tree_leaves(model(**others))
    # A comparison that cannot fail says nothing
    assert judge(first, [x.numpy() for x in expected])[0] == "wrong"
    row: dict[str, Any] = {"way": way, "model": name}
    start = time.process_time()
    try:
        row["status"], row["detail"] = judge(expected, convert(model, inputs, others))
    except NotRun as stopped:
        row["status"], row["detail"] = stopped.status, str(stopped)
    except Exception as error:
        row["status"], row["detail"] = "refused", _reason(error)
    row["seconds"] = round(time.process_time() - start, 1)
    row["versions"] = {each: importlib.metadata.version(each) for each in packages}
    return row


def judge(
    expected: Sequence[torch.Tensor], found: Sequence[np.ndarray]
) -> tuple[str, str]:
    """Whether all outputs agree: "match" or "wrong", and the largest error or the reason."""
    shapes = [tuple(want.shape) for want in expected]
    if [have.shape for have in found] != shapes:
        return "wrong", f"shapes {[have.shape for have in found]}, not {shapes}"
    agrees, worst = True, 0.0
    for want, have in zip((x.numpy() for x in expected), found, strict=True):
        assert np.isfinite(want).all()
        difference = float(abs(have - want).max())
        largest = float(abs(want).max())
        # Not the other way round: a NaN is no agreement
        agrees &= difference <= ABSOLUTE + RELATIVE * largest
        worst = max(worst, float(np.nan_to_num(difference, nan=np.inf)) / largest)
    return "match" if agrees else "wrong", f"{worst:.0e}"


def _reason(error: Exception) -> str:
    # The cause says more than "failed to export", and its first lines suffice
    while error.__cause__ is not None and isinstance(error.__cause__, Exception):
        error = error.__cause__
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text}"[:LONGEST]


def guarded(way: str, name: str) -> dict[str, Any]:
    """`measure` in a process of its own, which may crash or take too long.

    Raises:
        RuntimeError: The model itself fails in PyTorch.
    """
    receiver, sender = FORK.Pipe(duplex=False)
    process = FORK.Process(target=lambda: sender.send(measure(way, name)))
    process.start()
    sender.close()
    row: dict[str, Any] = {"way": way, "model": name, "status": "refused"}
    try:
        if receiver.poll(LIMIT):
            return receiver.recv()
        row["detail"] = f"no result in {LIMIT} s"
    except EOFError:
        process.join()
        # An exception of the way itself is a row already
        if process.exitcode == 1:
            raise RuntimeError(f"{name} cannot be measured") from None
        row["detail"] = f"the process ended with code {process.exitcode}"
    finally:
        process.kill()
        process.join()
    return row


def main() -> None:
    """Print the rows of the models that the command line names."""
    way, *names = sys.argv[1:]
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    alternatives_models.load_libraries()
    for name in names:
        print(json.dumps(guarded(way, name)), flush=True)


if __name__ == "__main__":
    main()
