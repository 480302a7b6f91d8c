"""The nearest supported way to write what is refused, by operator."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from torch._ops import OpOverload

from torch2mlx.lower.registry import LAYERS, OPS

ARGUMENT = re.compile(r"argument `(\w+)`=(.*) is not mapped")
OPERATOR = re.compile(r"(aten\.\w+)\.\w+")


@dataclass(frozen=True)
class Alternative:
    """What to write instead of an operator.

    Attributes:
        text: The advice.
        ops: The ATen operators that it leads to; all of them are mapped.
    """

    text: str
    ops: tuple[str, ...] = ()


_QUANTIZE = Alternative(
    "port the float model, and quantize it in MLX: torch2mlx-compile --quantize 4"
)
_OUTSIDE = Alternative(
    "compute it outside of the module that is compiled, on its outputs"
)
_DENSE = Alternative(
    "keep the matrix dense, or add up rows with index_add", ("matmul", "index_add")
)
_AS_LOOPS = Alternative("a matmul for each group", ("matmul",))

# Operator without overload -> what to write. Tests hold that what it leads to is mapped.
ALTERNATIVES: dict[str, Alternative] = {
    "aten.geqrf": Alternative(
        "torch.linalg.qr(x), for Q and R themselves", ("linalg_qr",)
    ),
    "aten.linalg_lstsq": Alternative(
        "torch.linalg.pinv(a) @ b", ("linalg_pinv", "matmul")
    ),
    "aten.linalg_ldl_factor": Alternative(
        "torch.linalg.lu_factor(a)", ("linalg_lu_factor",)
    ),
    "aten.linalg_ldl_factor_ex": Alternative(
        "torch.linalg.lu_factor(a)", ("linalg_lu_factor",)
    ),
    "aten.linalg_ldl_solve": Alternative("torch.linalg.solve(a, b)", ("linalg_solve",)),
    "aten.chalf": Alternative("x.to(torch.complex64)", ("to",)),
    "aten.poisson": Alternative(
        "draw the counts outside and pass them in, or for large rates "
        "rate + rate.sqrt() * torch.randn_like(rate)",
        ("sqrt", "randn_like", "mul", "add"),
    ),
    "aten.binomial": Alternative(
        "torch.rand(n, *shape).lt(p).sum(0)", ("rand", "lt", "sum")
    ),
    "aten.exponential": Alternative(
        "-torch.log1p(-torch.rand_like(x)) / rate",
        ("rand_like", "neg", "log1p", "div"),
    ),
    "aten.geometric": Alternative(
        "(torch.log1p(-torch.rand_like(x)) / math.log1p(-p)).floor() + 1",
        ("rand_like", "log1p", "div", "floor", "add"),
    ),
    "aten.cauchy": Alternative(
        "median + sigma * torch.tan(math.pi * (torch.rand_like(x) - 0.5))",
        ("rand_like", "sub", "mul", "tan", "add"),
    ),
    "aten.log_normal": Alternative(
        "torch.exp(mean + std * torch.randn_like(x))",
        ("randn_like", "mul", "add", "exp"),
    ),
    "aten.uniform": Alternative(
        "low + (high - low) * torch.rand_like(x)", ("rand_like", "mul", "add")
    ),
    "aten.normal_functional": Alternative(
        "mean + std * torch.randn_like(x)", ("randn_like", "mul", "add")
    ),
    "aten.random": Alternative("torch.randint(low, high, x.shape)", ("randint",)),
    "aten.randint_like": Alternative("torch.randint(low, high, x.shape)", ("randint",)),
    "aten.fractional_max_pool2d": Alternative(
        "nn.AdaptiveMaxPool2d, or nn.MaxPool2d",
        ("adaptive_max_pool2d", "max_pool2d"),
    ),
    "aten.fractional_max_pool3d": Alternative(
        "nn.AdaptiveMaxPool3d, or nn.MaxPool3d",
        ("adaptive_max_pool3d", "max_pool3d"),
    ),
    "aten.rrelu_with_noise_functional": Alternative("nn.LeakyReLU", ("leaky_relu",)),
    "aten.alpha_dropout": Alternative("nn.Dropout", ("dropout",)),
    "aten.feature_alpha_dropout": Alternative("nn.Dropout", ("dropout",)),
    "aten.range": Alternative("torch.arange", ("arange",)),
    "aten.conv_tbc": Alternative(
        "F.conv1d(x.permute(1, 2, 0), weight.permute(2, 1, 0), bias, padding=pad).permute(2, 0, 1)",
        ("permute", "conv1d"),
    ),
    "aten._grouped_mm": _AS_LOOPS,
    "aten._scaled_grouped_mm": _AS_LOOPS,
    "aten.ctc_loss": _OUTSIDE,
    "aten._ctc_loss": _OUTSIDE,
    "torchvision.nms": _OUTSIDE,
    "torchvision.roi_align": Alternative(
        "F.grid_sample over a grid for each box", ("grid_sampler",)
    ),
    "torchvision.deform_conv2d": Alternative(
        "F.grid_sample at the offsets of each tap, then a 1x1 convolution over all of them",
        ("grid_sampler", "conv2d"),
    ),
    "aten.to_sparse": _DENSE,
    "aten.sparse_sampled_addmm": _DENSE,
    "aten._sparse_mm": _DENSE,
    "aten.sparse_mask": _DENSE,
    "aten.to_dense": _DENSE,
    "aten.quantize_per_tensor": _QUANTIZE,
    "aten.quantize_per_channel": _QUANTIZE,
    "aten.quantize_per_tensor_dynamic": _QUANTIZE,
    "aten.dequantize": _QUANTIZE,
    "aten.fake_quantize_per_tensor_affine": _QUANTIZE,
    "aten.fake_quantize_per_channel_affine": _QUANTIZE,
    "aten._fake_quantize_per_tensor_affine_cachemask_tensor_qparams": _QUANTIZE,
    "aten.fused_moving_avg_obs_fake_quant": _QUANTIZE,
    "flex_attention": Alternative(
        "F.scaled_dot_product_attention with a mask", ("scaled_dot_product_attention",)
    ),
}


def alternative(target: Any, reason: str) -> str:
    """What to write instead of a refused call; "" where nothing is near.

    Args:
        target: What is called.
        reason: Why it is refused.
    """
    name = _base(target) if isinstance(target, OpOverload) else str(target)
    if name in ALTERNATIVES:
        return ALTERNATIVES[name].text
    if target in OPS:
        argument = ARGUMENT.match(reason)
        optional = argument and argument[1] in _optional(target)
        return f"leave `{argument[1]}` at its default" if argument and optional else ""
    others = sorted(str(op) for op in {*OPS, *LAYERS} if _base(op) == name)
    return f"the overload {others[0]} is mapped" if others else ""


def for_message(message: str) -> str:
    """What to write instead of the operator that an error message of PyTorch's names, or ""."""
    for name in OPERATOR.findall(message):
        if name in ALTERNATIVES:
            return ALTERNATIVES[name].text
    return ""


def _base(op: OpOverload) -> str:
    return str(op).rpartition(".")[0]


def _optional(op: OpOverload) -> set[str]:
    """The arguments that have a default."""
    return {a.name for a in op._schema.arguments if a.has_default_value()}
