"""Running a model without leaving a trace in it."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import torch


def tolerance(dtype: torch.dtype) -> float:
    """By how much two results of the same model may differ: by rounding, of whatever size their sums are."""
    return max(1e-4, 16 * torch.finfo(dtype).eps)


@contextlib.contextmanager
def evaluating(
    model: torch.nn.Module, notes: list[str] | None = None
) -> Iterator[None]:
    """Evaluation mode without gradients; the model and PyTorch's random state are as before afterwards.

    The fast path of `nn.TransformerEncoder` is off: it returns zeros at padded positions, which the
    model's own code does not.

    Args:
        model: The model.
        notes: Gets a line for each number or word among the modules' attributes that forward changes:
            they are constants to the capture.
    """
    training = [module for module in model.modules() if module.training]
    buffers = [
        (module, name, buffer, buffer.clone())
        for module in model.modules()
        for name, buffer in module._buffers.items()
        if buffer is not None
    ]
    devices = {p.device.index for p in model.parameters() if p.device.type == "cuda"}
    fast = torch.backends.mha.get_fastpath_enabled()
    try:
        # An exported program has no modes
        with contextlib.suppress(NotImplementedError):
            model.eval()
        torch.backends.mha.set_fastpath_enabled(False)
        with (
            torch.no_grad(),
            torch.random.fork_rng(devices),
            _keeping_attributes(model, [] if notes is None else notes),
        ):
            yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)
        for module in training:
            module.training = True
        for module, name, buffer, before in buffers:
            module._buffers[name] = buffer
            if not (buffer.is_meta or torch.equal(buffer, before)):
                buffer.data.copy_(before)


@contextlib.contextmanager
def replaced_forward(
    module: torch.nn.Module, forward: Callable[..., Any]
) -> Iterator[None]:
    """While this is open, `module` runs `forward`; a forward of its own, not its class's, comes back."""
    own = vars(module).get("forward")
    module.forward = forward
    try:
        yield
    finally:
        if own is None:
            del module.forward
        else:
            module.forward = own


@contextlib.contextmanager
def _keeping_attributes(model: torch.nn.Module, notes: list[str]) -> Iterator[None]:
    """Undo what forward does to numbers and words among the modules' attributes, and note it."""
    modules = dict(model.named_modules())
    before = _plain_attributes(modules)

    def note(*_: Any) -> None:
        after = _plain_attributes(modules)
        for (path, name), value in before.items():
            owner = f"`{path}`" if path else "the model"
            text = (
                f"forward changes the number or word `{name}` of {owner}: each call of the "
                "compiled model is as the first; a buffer would be updated"
            )
            if after.get((path, name)) != value and text not in notes:
                notes.append(text)

    # torch.export itself puts attributes back when it is done, so they are looked at before
    handle = model.register_forward_hook(note)
    try:
        yield
    finally:
        handle.remove()
        after = _plain_attributes(modules)
        for (path, name), value in before.items():
            if after.get((path, name)) != value:
                setattr(modules[path], name, value)


def _plain_attributes(
    modules: dict[str, torch.nn.Module],
) -> dict[tuple[str, str], Any]:
    return {
        (path, name): value
        for path, module in modules.items()
        for name, value in vars(module).items()
        if isinstance(value, bool | int | float | str) and name != "training"
    }
