"""What becomes of the parameters of each layer class: new names, permutations, sums and slices.

    Conv2d    weight (out, in, H, W)        ->  weight (out, H, W, in)
    LSTM      bias_ih_l0, bias_hh_l0        ->  bias, their sum

The same for every layer of a class, so no shape has to be looked at.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from torch2mlx.errors import InputError
from torch2mlx.weights.plan import Shape, WeightEntry

# Name of a parameter -> its dtype and shape
Parameters = Mapping[str, tuple[str, Shape]]


@dataclass(frozen=True)
class Rule:
    """How the parameters of a layer are converted.

    Attributes:
        mlx: The class of `mlx.nn`.
        axes: Parameter -> the order of its axes in MLX; others keep theirs.
        names: Parameter -> its name in MLX; others keep theirs.
        dropped: Parameters that MLX does not have.
        special: Makes the entries of layers that take more than that; keys are without the prefix.
    """

    mlx: str
    axes: Mapping[str, tuple[int, ...]] | None = None
    names: Mapping[str, str] | None = None
    dropped: tuple[str, ...] = ()
    special: Callable[[Parameters], list[WeightEntry]] | None = None

    def entries(self, parameters: Parameters) -> list[WeightEntry]:
        """The plan for one layer, keys without its prefix.

        Raises:
            InputError: The parameters are not those of such a layer.
        """
        if self.special is not None:
            return self.special(parameters)
        axes, names = self.axes or {}, self.names or {}
        made: list[WeightEntry] = []
        for name, (dtype, shape) in parameters.items():
            if name in self.dropped:
                continue
            order = axes.get(name)
            if order is not None and len(order) != len(shape):
                text = f"{name!r} has the shape {shape}, not {len(order)} axes"
                raise InputError(text)
            steps = () if order is None else (("transpose", order),)
            made.append(
                WeightEntry(names.get(name, name), (name,), dtype, (shape,), steps)
            )
        return made


def _lstm(parameters: Parameters) -> list[WeightEntry]:
    return _recurrent(parameters, "Wx", "Wh", [_sum])


def _rnn(parameters: Parameters) -> list[WeightEntry]:
    return _recurrent(parameters, "Wxh", "Whh", [_sum])


def _gru(parameters: Parameters) -> list[WeightEntry]:
    return _recurrent(parameters, "Wx", "Wh", [_gru_bias, _gru_new])


def _recurrent(
    parameters: Parameters,
    input_name: str,
    hidden_name: str,
    biases: list[Callable[[str, Shape], WeightEntry]],
) -> list[WeightEntry]:
    known = {"weight_ih_l0", "weight_hh_l0", "bias_ih_l0", "bias_hh_l0"}
    if parameters.keys() - known:
        extra = sorted(parameters.keys() - known)[0]
        raise InputError(f"{extra!r}: MLX has one layer and one direction per module")
    made = [
        WeightEntry(new, (old,), parameters[old][0], (parameters[old][1],))
        for old, new in (("weight_ih_l0", input_name), ("weight_hh_l0", hidden_name))
    ]
    if "bias_ih_l0" in parameters:
        dtype, shape = parameters["bias_ih_l0"]
        made += [bias(dtype, shape) for bias in biases]
    return made


_BIASES = ("bias_ih_l0", "bias_hh_l0")


def _sum(dtype: str, shape: Shape) -> WeightEntry:
    return WeightEntry("bias", _BIASES, dtype, (shape, shape), merge="sum")


def _gru_bias(dtype: str, shape: Shape) -> WeightEntry:
    return WeightEntry("b", _BIASES, dtype, (shape, shape), merge="gru_bias")


def _gru_new(dtype: str, shape: Shape) -> WeightEntry:
    steps = (("slice", 0, shape[0] // 3 * 2, shape[0]),)
    return WeightEntry("bhn", _BIASES[1:], dtype, (shape,), steps)


def _attention(parameters: Parameters) -> list[WeightEntry]:
    made: list[WeightEntry] = []
    projections = ("query_proj", "key_proj", "value_proj")
    for name, (dtype, shape) in parameters.items():
        if name in ("in_proj_weight", "in_proj_bias"):
            kind, size = name.removeprefix("in_proj_"), shape[0] // 3
            for i, projection in enumerate(projections):
                steps = (("slice", 0, i * size, (i + 1) * size),)
                key = f"{projection}.{kind}"
                made.append(WeightEntry(key, (name,), dtype, (shape,), steps))
        elif name in ("q_proj_weight", "k_proj_weight", "v_proj_weight"):
            key = f"{projections['qkv'.index(name[0])]}.weight"
            made.append(WeightEntry(key, (name,), dtype, (shape,)))
        else:
            raise InputError(
                f"{name!r}: nn.MultiHeadAttention of MLX has no such thing"
            )
    return made


_NORM = ("num_batches_tracked",)

LAYERS: dict[str, Rule] = {
    "Linear": Rule("Linear"),
    "Bilinear": Rule("Bilinear", {"weight": (0, 2, 1)}),
    "Embedding": Rule("Embedding"),
    "LayerNorm": Rule("LayerNorm"),
    "RMSNorm": Rule("RMSNorm"),
    "GroupNorm": Rule("GroupNorm"),
    "PReLU": Rule("PReLU"),
    **{f"BatchNorm{n}d": Rule("BatchNorm", dropped=_NORM) for n in (1, 2, 3)},
    **{f"InstanceNorm{n}d": Rule("InstanceNorm", dropped=_NORM) for n in (1, 2, 3)},
    "Conv1d": Rule("Conv1d", {"weight": (0, 2, 1)}),
    "Conv2d": Rule("Conv2d", {"weight": (0, 2, 3, 1)}),
    "Conv3d": Rule("Conv3d", {"weight": (0, 2, 3, 4, 1)}),
    "ConvTranspose1d": Rule("ConvTranspose1d", {"weight": (1, 2, 0)}),
    "ConvTranspose2d": Rule("ConvTranspose2d", {"weight": (1, 2, 3, 0)}),
    "ConvTranspose3d": Rule("ConvTranspose3d", {"weight": (1, 2, 3, 4, 0)}),
    "LSTM": Rule("LSTM", special=_lstm),
    "GRU": Rule("GRU", special=_gru),
    "RNN": Rule("RNN", special=_rnn),
    "MultiheadAttention": Rule("MultiHeadAttention", special=_attention),
    # transformers' linear layer with the axes the other way round
    "Conv1D": Rule("Linear", {"weight": (1, 0)}),
}


def register(name: str, rule: Rule) -> None:
    """Adds a layer class of your own, by its name.

    Raises:
        ValueError: The class has a rule.
    """
    if name in LAYERS:
        raise ValueError(f"{name} has a rule already")
    LAYERS[name] = rule
