"""Running a model without leaving a trace in it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch


@contextlib.contextmanager
def evaluating(model: torch.nn.Module) -> Iterator[None]:
    """Evaluation mode without gradients; the model and PyTorch's random state are as before afterwards.

    The fast path of `nn.TransformerEncoder` is off: it returns zeros at padded positions, which the
    model's own code does not.
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
        with contextlib.suppress(
            NotImplementedError
        ):  # an exported program has no modes
            model.eval()
        torch.backends.mha.set_fastpath_enabled(False)
        with torch.no_grad(), torch.random.fork_rng(devices):
            yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)
        for module in training:
            module.training = True
        for module, name, buffer, before in buffers:
            module._buffers[name] = buffer
            if not (buffer.is_meta or torch.equal(buffer, before)):
                buffer.data.copy_(before)
