"""Constructor arguments of PyTorch's layers with values that are not the default."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

Options = dict[str, Any]
BASE: Options = {}


@dataclass(frozen=True)
class Layer:
    """A PyTorch layer, and how it is changed.

    Attributes:
        cls: The class.
        args: Its first arguments, which are sizes.
        inputs: Makes the inputs.
        variants: Keyword arguments, one dict for each case.
        refused: What the message names, for variants that are refused: keyword -> text.
    """

    cls: type[nn.Module]
    args: tuple[Any, ...]
    inputs: Callable[[], tuple[torch.Tensor, ...]]
    variants: tuple[Options, ...]
    refused: dict[str, str] = field(default_factory=dict)


def shaped(*shapes: tuple[int, ...]) -> Callable[[], tuple[torch.Tensor, ...]]:
    """Makes normally distributed inputs."""
    return lambda: tuple(torch.randn(shape) for shape in shapes)


def tokens(high: int, *shape: int) -> Callable[[], tuple[torch.Tensor, ...]]:
    """Makes integers below `high`."""
    return lambda: (torch.randint(0, high, shape),)


def one_by_one(**options: Any) -> tuple[Options, ...]:
    """One variant for each argument; a list holds several values, a dict several arguments at once."""
    variants: list[Options] = [BASE]
    for name, value in options.items():
        for one in value if isinstance(value, list) else [value]:
            variants.append(one if isinstance(one, dict) else {name: one})
    return tuple(variants)


def convolutions() -> list[Layer]:
    """`nn.Conv*` and `nn.ConvTranspose*`."""
    layers = []
    for axes, size in ((1, (9,)), (2, (9, 8)), (3, (5, 6, 7))):
        inputs = shaped((2, 4, *size))
        options = one_by_one(
            stride=2,
            padding=[1, "same", "valid", {"padding": "same", "dilation": 2}],
            dilation=2,
            groups=2,
            bias=False,
            padding_mode=[
                {"padding_mode": mode, "padding": padding}
                for mode in ("reflect", "replicate", "circular")
                for padding in (1, "same")
                if (axes, mode) != (3, "reflect") or padding == 1
            ],
        )
        transposed = one_by_one(
            stride=2,
            padding=1,
            output_padding={"output_padding": 1, "stride": 2},
            dilation=2,
            groups=2,
            bias=False,
            padding_mode="zeros",
        )
        conv = (nn.Conv1d, nn.Conv2d, nn.Conv3d)[axes - 1]
        back = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)[axes - 1]
        layers.append(Layer(conv, (4, 6, 3), inputs, options))
        layers.append(Layer(back, (4, 6, 3), inputs, transposed))
    return layers


def norms() -> list[Layer]:
    """Normalisation layers."""
    layers = []
    batch = one_by_one(
        eps=0.1,
        momentum=[0.3, None],
        affine=False,
        bias=False,
        track_running_stats=False,
    )
    instance = one_by_one(
        eps=0.1,
        momentum={"momentum": 0.3, "track_running_stats": True},
        affine=True,
        bias={"affine": True, "bias": False},
        track_running_stats=[
            {"track_running_stats": True},
            {"track_running_stats": True, "affine": True, "eps": 0.1},
        ],
    )
    for axes, size in ((1, (7,)), (2, (5, 6)), (3, (3, 4, 5))):
        inputs = shaped((3, 4, *size))
        cls = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)[axes - 1]
        layers.append(Layer(cls, (4,), inputs, batch))
        cls = (nn.InstanceNorm1d, nn.InstanceNorm2d, nn.InstanceNorm3d)[axes - 1]
        layers.append(Layer(cls, (4,), inputs, instance))
    image = shaped((3, 4, 5, 6))
    rows = shaped((3, 5, 6))
    affine = [{"elementwise_affine": False}]
    return [
        *layers,
        Layer(
            nn.GroupNorm, (2, 4), image, one_by_one(eps=0.1, affine=False, bias=False)
        ),
        Layer(
            nn.LayerNorm,
            (6,),
            rows,
            one_by_one(eps=0.1, elementwise_affine=affine, bias=False),
        ),
        Layer(
            nn.LayerNorm,
            ((5, 6),),
            rows,
            one_by_one(eps=0.1, elementwise_affine=affine, bias=False),
        ),
        Layer(nn.RMSNorm, (6,), rows, one_by_one(eps=0.1, elementwise_affine=affine)),
        Layer(
            nn.LocalResponseNorm,
            (3,),
            image,
            one_by_one(alpha=0.5, beta=0.3, k=2.0),
        ),
    ]


def pools() -> list[Layer]:
    """Pooling layers."""
    layers = []
    for axes, size in ((1, (9,)), (2, (9, 8)), (3, (7, 6, 9))):
        inputs = shaped((2, 3, *size))
        options: dict[str, Any] = {"stride": 2, "ceil_mode": {"stride": 2}}
        options["ceil_mode"] = {"stride": 2, "ceil_mode": True}
        biggest = one_by_one(
            **options, padding=1, dilation=2, return_indices={"return_indices": True}
        )
        average = {
            **options,
            "padding": 1,
            "count_include_pad": {"padding": 1, "count_include_pad": False},
        }
        if axes > 1:
            average["divisor_override"] = 5
        by_axes = (
            (nn.MaxPool1d, nn.AvgPool1d, nn.LPPool1d),
            (nn.MaxPool2d, nn.AvgPool2d, nn.LPPool2d),
            (nn.MaxPool3d, nn.AvgPool3d, nn.LPPool3d),
        )[axes - 1]
        layers.append(Layer(by_axes[0], (3,), inputs, biggest))
        layers.append(Layer(by_axes[1], (3,), inputs, one_by_one(**average)))
        layers.append(Layer(by_axes[2], (2, 3), inputs, one_by_one(**options)))
        maxima = (nn.AdaptiveMaxPool1d, nn.AdaptiveMaxPool2d, nn.AdaptiveMaxPool3d)
        means = (nn.AdaptiveAvgPool1d, nn.AdaptiveAvgPool2d, nn.AdaptiveAvgPool3d)
        indices = one_by_one(return_indices=True)
        layers.append(Layer(maxima[axes - 1], (3,), inputs, indices))
        layers.append(Layer(means[axes - 1], (4,), inputs, (BASE,)))
    return layers


def activations() -> list[Layer]:
    """Activations with options."""
    rows, image = shaped((3, 4, 5)), shaped((2, 4, 5, 6))
    table: list[tuple[type[nn.Module], Options]] = [
        (nn.ELU, {"alpha": 0.5}),
        (nn.CELU, {"alpha": 0.5}),
        (nn.SELU, {}),
        (nn.GELU, {"approximate": "tanh"}),
        (nn.GLU, {"dim": 1}),
        (nn.Hardshrink, {"lambd": 0.2}),
        (nn.Softshrink, {"lambd": 0.2}),
        (nn.Hardtanh, {"min_val": -0.2, "max_val": 0.3}),
        (nn.LeakyReLU, {"negative_slope": 0.3}),
        (nn.RReLU, {"lower": 0.2, "upper": 0.5}),
        (nn.PReLU, {"num_parameters": 4, "init": 0.7}),
        (nn.Softplus, {"beta": 3, "threshold": 1}),
        (nn.Softmax, {"dim": 1}),
        (nn.Softmin, {"dim": 1}),
        (nn.LogSoftmax, {"dim": 1}),
        (nn.ReLU, {}),
        (nn.ReLU6, {}),
        (nn.SiLU, {}),
        (nn.Mish, {}),
        (nn.Hardswish, {}),
        (nn.Hardsigmoid, {}),
    ]
    layers = []
    for cls, options in table:
        given = dict(options)
        inputs = image if cls is nn.GLU or cls is nn.PReLU else rows
        if "inplace" in cls.__init__.__code__.co_varnames:
            given["inplace"] = True
        needed = {nn.Softmax: {"dim": 2}, nn.LogSoftmax: {"dim": 2}}
        variants = one_by_one(**given)
        first = needed.get(cls, {"dim": 2} if cls is nn.Softmin else BASE)
        layers.append(Layer(cls, (), inputs, (first, *variants[1:])))
    layers.append(Layer(nn.Threshold, (0.1, 2.0), rows, one_by_one(inplace=True)))
    return layers


def dropouts() -> list[Layer]:
    """Dropout layers, which do nothing in evaluation."""
    shapes = {
        nn.Dropout: (3, 5),
        nn.Dropout1d: (3, 4, 5),
        nn.Dropout2d: (2, 4, 5, 6),
        nn.Dropout3d: (2, 4, 3, 4, 5),
        nn.AlphaDropout: (3, 5),
        nn.FeatureAlphaDropout: (2, 4, 5, 6),
    }
    options = one_by_one(p=[0.0, 0.3, 1.0], inplace=True)
    return [Layer(cls, (), shaped(shape), options) for cls, shape in shapes.items()]


def resampling() -> list[Layer]:
    """Upsampling and rearranging layers."""
    image = shaped((2, 4, 6, 6))
    upsample: list[Options] = [
        {"scale_factor": 2},
        {"size": (9, 7)},
        {"scale_factor": 1.7},
        {"scale_factor": 1.7, "recompute_scale_factor": True},
        {"scale_factor": 2, "mode": "bilinear"},
        {"scale_factor": 2, "mode": "bilinear", "align_corners": True},
        {"scale_factor": 2, "mode": "bicubic"},
        {"size": 9, "mode": "bicubic", "align_corners": True},
        {"size": 4, "mode": "area"},
        {"size": 9, "mode": "nearest-exact"},
    ]
    fold: Options = {"dilation": 2, "padding": 1, "stride": 2}
    return [
        Layer(nn.Upsample, (), image, tuple(upsample)),
        Layer(
            nn.UpsamplingNearest2d, (), image, ({"size": (9, 7)}, {"scale_factor": 2})
        ),
        Layer(
            nn.UpsamplingBilinear2d, (), image, ({"size": (9, 7)}, {"scale_factor": 2})
        ),
        Layer(nn.PixelShuffle, (2,), image, (BASE,)),
        Layer(nn.PixelUnshuffle, (2,), image, (BASE,)),
        Layer(nn.ChannelShuffle, (2,), image, (BASE,)),
        Layer(nn.Flatten, (), image, one_by_one(start_dim=2, end_dim=2)),
        Layer(nn.Unflatten, (1, (2, 2)), image, (BASE,)),
        Layer(nn.Unfold, (3,), image, one_by_one(**fold)),
        Layer(nn.Fold, ((6, 6), 2), shaped((2, 12, 25)), (BASE,)),
        Layer(nn.Fold, ((6, 6), 2), shaped((2, 12, 9)), (fold,)),
    ]


def embeddings() -> list[Layer]:
    """Tables of vectors."""
    both: Options = {"scale_grad_by_freq": True, "sparse": True}
    renorm: Options = {"max_norm": 0.5, "norm_type": {"max_norm": 0.5, "norm_type": 1}}
    return [
        Layer(
            nn.Embedding,
            (10, 4),
            tokens(10, 3, 5),
            one_by_one(**both, **renorm, padding_idx=2),
            {"max_norm": "max_norm"},
        ),
        Layer(
            nn.EmbeddingBag,
            (10, 4),
            tokens(10, 3, 5),
            one_by_one(
                **both,
                **renorm,
                mode=["sum", "mean", "max"],
                padding_idx=2,
            ),
            {"max_norm": "max_norm"},
        ),
        Layer(
            nn.EmbeddingBag,
            (10, 4),
            lambda: (torch.randint(0, 10, (7,)), torch.tensor([0, 3, 3, 7])),
            one_by_one(
                include_last_offset=True, mode=["sum", "max"], padding_idx=[2, -3]
            ),
        ),
    ]


def linears() -> list[Layer]:
    """Linear layers, and distances."""
    rows, pair = shaped((3, 5, 4)), shaped((3, 4), (3, 4))
    distance: Options = {"p": 3.0, "eps": 0.1, "keepdim": True}
    return [
        Layer(nn.Linear, (4, 6), rows, one_by_one(bias=False)),
        Layer(nn.Bilinear, (4, 4, 5), pair, one_by_one(bias=False)),
        Layer(nn.CosineSimilarity, (), pair, one_by_one(dim=0, eps=3.0)),
        Layer(nn.PairwiseDistance, (), pair, one_by_one(**distance)),
    ]


def recurrent() -> list[Layer]:
    """Recurrent layers and cells."""
    options: Options = {
        "num_layers": 3,
        "bias": False,
        "batch_first": True,
        "dropout": {"dropout": 0.5, "num_layers": 2},
        "bidirectional": [True, {"bidirectional": True, "num_layers": 2}],
    }
    steps, step = shaped((5, 2, 3)), shaped((2, 3), (2, 4))
    state = torch.randn(2, 4), torch.randn(2, 4)
    return [
        Layer(
            nn.RNN,
            (3, 4),
            steps,
            one_by_one(
                **options,
                nonlinearity=["relu", {"nonlinearity": "relu", "num_layers": 2}],
            ),
        ),
        Layer(
            nn.LSTM,
            (3, 4),
            steps,
            one_by_one(
                **options,
                proj_size=[
                    2,
                    {"proj_size": 2, "num_layers": 2, "bidirectional": True},
                ],
            ),
        ),
        Layer(nn.GRU, (3, 4), steps, one_by_one(**options)),
        Layer(nn.RNNCell, (3, 4), step, one_by_one(bias=False, nonlinearity="relu")),
        Layer(nn.GRUCell, (3, 4), step, one_by_one(bias=False)),
        Layer(
            nn.LSTMCell,
            (3, 4),
            lambda: (torch.randn(2, 3), state),  # type: ignore[return-value]
            one_by_one(bias=False),
        ),
    ]


def attention() -> list[Layer]:
    """Attention and transformers."""
    three = shaped((5, 2, 8), (7, 2, 8), (7, 2, 8))
    two = shaped((5, 2, 8), (7, 2, 8))
    block: Options = {
        "dropout": 0.3,
        "activation": ["gelu", torch.tanh],
        "layer_norm_eps": 0.1,
        "norm_first": True,
        "bias": False,
    }
    wide: tuple[Options, ...] = ({"dim_feedforward": 12},)
    first: Options = {"batch_first": True}
    rows = shaped((2, 5, 8), (2, 7, 8))
    norm = nn.LayerNorm(8)
    encoder = nn.TransformerEncoderLayer(8, 2, 16)
    decoder = nn.TransformerDecoderLayer(8, 2, 16)
    return [
        Layer(
            nn.MultiheadAttention,
            (8, 2),
            three,
            one_by_one(
                dropout=0.3,
                bias=False,
                add_bias_kv=True,
                add_zero_attn=True,
            ),
        ),
        Layer(
            nn.MultiheadAttention,
            (8, 2),
            shaped((2, 5, 8), (2, 7, 8), (2, 7, 8)),
            (first, {**first, "add_bias_kv": True, "add_zero_attn": True}),
        ),
        Layer(
            nn.MultiheadAttention,
            (8, 2),
            shaped((5, 2, 8), (7, 2, 6), (7, 2, 4)),
            (
                {"kdim": 6, "vdim": 4},
                {"kdim": 6, "vdim": 4, "bias": False, "add_bias_kv": True},
            ),
        ),
        Layer(
            nn.TransformerEncoderLayer,
            (8, 2, 16),
            shaped((5, 2, 8)),
            one_by_one(**block, batch_first=True),
        ),
        Layer(nn.TransformerEncoderLayer, (8, 2), shaped((5, 2, 8)), wide),
        Layer(nn.TransformerDecoderLayer, (8, 2, 16), two, one_by_one(**block)),
        Layer(nn.TransformerDecoderLayer, (8, 2, 16), rows, (first,)),
        Layer(nn.TransformerDecoderLayer, (8, 2), two, wide),
        Layer(
            nn.TransformerEncoder,
            (encoder, 2),
            shaped((5, 2, 8)),
            one_by_one(norm=norm, enable_nested_tensor=False, mask_check=False),
        ),
        Layer(
            nn.TransformerDecoder,
            (decoder, 2),
            two,
            one_by_one(norm=norm),
        ),
        Layer(
            nn.Transformer,
            (8, 2, 1, 1, 16),
            two,
            one_by_one(**block),
        ),
        Layer(nn.Transformer, (8, 2, 1, 1, 16), rows, (first,)),
        Layer(
            nn.Transformer,
            (8, 2, 1, 1, 16),
            two,
            (
                {
                    "custom_encoder": nn.TransformerEncoder(
                        encoder, 2, enable_nested_tensor=False
                    ),
                    "custom_decoder": nn.TransformerDecoder(decoder, 2),
                },
            ),
        ),
    ]


LAYERS: list[Layer] = [
    *convolutions(),
    *norms(),
    *pools(),
    *activations(),
    *dropouts(),
    *resampling(),
    *embeddings(),
    *linears(),
    *recurrent(),
    *attention(),
]
