"""Make the values of constant parameters unlike for a while.

A head of zeros gives zeros whatever comes before it, a norm whose weights are all one hides that they
are missing, a layer scale of 1e-6 hides the layer. Noise on such arrays makes a comparison strong.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch

from torch2mlx.capture import Captured

NOISE = 0.1
# Integers of the same size: they tell 0.0 from -0.0
BITS = {
    torch.float16: torch.int16,
    torch.bfloat16: torch.int16,
    torch.float32: torch.int32,
    torch.float64: torch.int64,
}


def constant_arrays(model: torch.nn.Module, captured: Captured) -> list[torch.Tensor]:
    """The parameters and buffers whose elements are all equal, each storage once.

    Buffers that no checkpoint holds are left out: the compiler may have computed with their values.
    """
    owned = {t.data_ptr(): t for t in (*model.parameters(), *model.buffers())}
    stored = captured.trainable | captured.persistent
    found: dict[int, torch.Tensor] = {}
    for key, tensor in captured.tensors.items():
        address = tensor.data_ptr() if tensor.device.type != "meta" else 0
        shared = address in owned and owned[address].shape == tensor.shape
        if key in stored and shared and _is_constant(tensor):
            found.setdefault(address, tensor)
    return list(found.values())


def _is_constant(tensor: torch.Tensor) -> bool:
    if tensor.dtype not in BITS or tensor.numel() == 0 or not tensor.is_contiguous():
        return False
    flat = tensor.detach().flatten()
    bits = flat.view(BITS[tensor.dtype])
    # A look at the beginning spares reading most arrays
    equal = all(bool((part == bits[0]).all()) for part in (bits[:64], bits))
    return equal and bool(flat[0].isfinite())


@contextlib.contextmanager
def perturbed(tensors: list[torch.Tensor], seed: int) -> Iterator[None]:
    """Add noise to constant arrays in place; afterwards they are bit for bit as before.

    Buffers and what else does not train get positive noise, since a variance must stay positive.
    """
    generator = torch.Generator().manual_seed(seed)
    # `.data` keeps autograd from noticing: a graph that the user holds stays valid
    before = [tensor.data.flatten()[0].clone() for tensor in tensors]
    try:
        for tensor in tensors:
            noise = torch.rand(tensor.shape, generator=generator)
            noise = noise * 2 - 1 if isinstance(tensor, torch.nn.Parameter) else noise
            tensor.data.add_((NOISE * noise).to(tensor))
        yield
    finally:
        for tensor, value in zip(tensors, before, strict=True):
            bits = BITS[tensor.dtype]
            tensor.data.view(bits).copy_(value.view(bits).expand(tensor.shape))
