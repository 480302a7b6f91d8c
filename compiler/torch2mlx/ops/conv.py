"""Convolutions whose weights are computed, or that no `mlx.nn` layer can express.

MLX's weights are (out, *kernel, in / groups), for transposed convolutions too.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from torch2mlx.lower.channels import channels_first, channels_last
from torch2mlx.lower.facade import helpers, mx
from torch2mlx.lower.registry import lowers
from torch2mlx.lower.spatial import options, per_axis

aten = torch.ops.aten


@lowers(aten.conv1d.default, aten.conv2d.default, aten.conv3d.default)
def conv(
    x: Any,
    weight: Any,
    bias: Any = None,
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
    groups: int = 1,
) -> Any:
    """`mx.conv1d`, `mx.conv2d` or `mx.conv3d`."""
    axes = weight.ndim - 2
    if x.ndim == axes + 1:
        return conv(x[None], weight, bias, stride, padding, dilation, groups)[0]
    arguments = options(
        axes, stride=(stride, 1), padding=(padding, 0), dilation=(dilation, 1)
    )
    y = _grouped(
        axes, "conv", channels_last(x), channels_last(weight), groups, arguments
    )
    return channels_first(y if bias is None else y + bias)


@lowers(aten.conv1d.padding, aten.conv2d.padding, aten.conv3d.padding)
def conv_named_padding(
    x: Any,
    weight: Any,
    bias: Any = None,
    stride: Any = 1,
    padding: str = "valid",
    dilation: Any = 1,
    groups: int = 1,
) -> Any:
    """A convolution with padding "same" or "valid"."""
    x, padding = pad_for(x, weight, padding, dilation)
    return conv(x, weight, bias, stride, padding, dilation, groups)


@lowers(
    aten.conv_transpose1d.default,
    aten.conv_transpose2d.input,
    aten.conv_transpose3d.input,
)
def conv_transpose(
    x: Any,
    weight: Any,
    bias: Any = None,
    stride: Any = 1,
    padding: Any = 0,
    output_padding: Any = 0,
    groups: int = 1,
    dilation: Any = 1,
) -> Any:
    """`mx.conv_transpose1d`, `mx.conv_transpose2d` or `mx.conv_transpose3d`."""
    axes = weight.ndim - 2
    if x.ndim == axes + 1:
        return conv_transpose(
            x[None], weight, bias, stride, padding, output_padding, groups, dilation
        )[0]
    room = Room.of(axes, stride, padding, output_padding)
    padding = room.padding
    if padding_exceeds_kernel(weight, padding, dilation):
        room, padding = room.without_padding(), 0
    arguments = options(
        axes, stride=(stride, 1), padding=(padding, 0), dilation=(dilation, 1)
    )
    kernel = transposed_kernel(weight, groups)
    x = room.widen(channels_last(x))
    y = room.crop(_grouped(axes, "conv_transpose", x, kernel, groups, arguments))
    return channels_first(y if bias is None else y + bias)


@dataclass(frozen=True)
class Room:
    """How a transposed convolution gets its `output_padding`, for which MLX's own has wrong gradients.

    Attributes:
        padding: What is padded less, one number per axis.
        extra: Rows of zeros that the input needs more, one number per axis.
        before: Rows to cut off before, one number per axis.
        after: Rows to cut off after.
    """

    padding: tuple[int, ...]
    extra: tuple[int, ...]
    before: tuple[int, ...]
    after: tuple[int, ...]

    @classmethod
    def of(cls, axes: int, stride: Any, padding: Any, output_padding: Any) -> Room:
        """The room for `output_padding`: less padding before and after, as far as there is some."""
        strides, paddings = per_axis(stride, axes), per_axis(padding, axes)
        wanted = per_axis(output_padding, axes)
        less = [min(p, w) for p, w in zip(paddings, wanted, strict=True)]
        missing = [w - n for w, n in zip(wanted, less, strict=True)]
        extra = [-(-m // s) for m, s in zip(missing, strides, strict=True)]
        grown = zip(extra, strides, missing, strict=True)
        return cls(
            tuple(p - n for p, n in zip(paddings, less, strict=True)),
            tuple(extra),
            tuple(less),
            tuple(e * s - m for e, s, m in grown),
        )

    def without_padding(self) -> Room:
        """The same, with all padding cut off afterwards."""
        before = zip(self.before, self.padding, strict=True)
        after = zip(self.after, self.padding, strict=True)
        return Room(
            (0,) * len(self.padding),
            self.extra,
            tuple(map(sum, before)),
            tuple(map(sum, after)),
        )

    def widen(self, x: Any) -> Any:
        """The input [N, *S, C] with zeros at the ends of its axes."""
        if not any(self.extra):
            return x
        return mx.pad(x, [(0, 0), *((0, rows) for rows in self.extra), (0, 0)])

    def crop(self, y: Any) -> Any:
        """The result [N, *S, C] without what is too much."""
        if not any(self.before + self.after):
            return y
        pairs = zip(self.before, self.after, strict=True)
        return y[(slice(None), *(slice(a or None, -b or None) for a, b in pairs))]


@lowers(aten.convolution.default)
def convolution(
    x: Any,
    weight: Any,
    bias: Any,
    stride: Any,
    padding: Any,
    dilation: Any,
    transposed: bool,
    output_padding: Any,
    groups: int,
) -> Any:
    """Any convolution, after decomposition."""
    if transposed:
        return conv_transpose(
            x, weight, bias, stride, padding, output_padding, groups, dilation
        )
    return conv(x, weight, bias, stride, padding, dilation, groups)


@lowers(aten._weight_norm.default)
def weight_norm(v: Any, g: Any, dim: int = 0) -> Any:
    """`v` scaled so that its norm over all axes but `dim` is `g`."""
    axes = None if dim == -1 else tuple(a for a in range(v.ndim) if a != dim % v.ndim)
    return v * (g / mx.sqrt(mx.sum(v * v, axis=axes, keepdims=True)))


def _grouped(
    axes: int, name: str, x: Any, weight: Any, groups: int, arguments: dict[str, Any]
) -> Any:
    """A convolution; MLX has groups in one and two dimensions only."""
    if groups > 1 and axes == 3:
        return getattr(helpers, f"grouped_{name}3d")(x, weight, groups, **arguments)
    if groups > 1:
        arguments["groups"] = groups
    return getattr(mx, f"{name}{axes}d")(x, weight, **arguments)


def transposed_kernel(weight: Any, groups: int) -> Any:
    """PyTorch's (in, out / groups, *kernel) as MLX's (out, *kernel, in / groups)."""
    kernel = range(2, weight.ndim)
    if groups == 1:
        return weight.transpose(1, *kernel, 0)
    channels, out, *sizes = weight.shape
    split = weight.reshape(groups, channels // groups, out, *sizes)
    split = split.transpose(0, 2, *(axis + 1 for axis in kernel), 1)
    return split.reshape(groups * out, *sizes, channels // groups)


def padding_exceeds_kernel(weight: Any, padding: Any, dilation: Any) -> bool:
    """Whether a transposed convolution may crop more than its kernel adds, which MLX gets wrong."""
    axes = weight.ndim - 2
    sizes = zip(
        per_axis(padding, axes), per_axis(dilation, axes), weight.shape[2:], strict=True
    )
    return any(
        p > 0 and (not isinstance(k, int) or p > d * (k - 1)) for p, d, k in sizes
    )


def pad_for(x: Any, weight: Any, padding: str, dilation: Any) -> tuple[Any, Any]:
    """The padding that a name stands for; where the sides differ, `x` padded and 0.

    Args:
        x: [N, C, *S] or [C, *S].
        weight: [out, in / groups, *kernel].
        padding: "same" or "valid".
        dilation: One number per axis.
    """
    axes = weight.ndim - 2
    if padding == "valid":
        return x, 0
    total = [
        d * (k - 1)
        for d, k in zip(per_axis(dilation, axes), weight.shape[2:], strict=True)
    ]
    fixed = all(isinstance(t, int) for t in total)
    if fixed and not any(t % 2 for t in total):
        return x, tuple(t // 2 for t in total)
    before = [(0, 0)] * (x.ndim - axes)
    return mx.pad(x, (*before, *((t // 2, t - t // 2) for t in total))), 0
