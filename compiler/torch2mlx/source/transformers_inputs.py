"""Example inputs for a model of transformers, told by its configuration and the arguments of `forward`.

Where the configuration leaves a choice, the choices are tried on fake tensors, the most complete first.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from torch2mlx.capture.valueless import device_of
from torch2mlx.errors import InputError
from torch2mlx.source.dry_run import NO_VALUES, dry_run, fake_mode
from torch2mlx.source.first_layers import BATCH, LENGTH, Shape
from torch2mlx.source.inputs import describe, values
from torch2mlx.source.loaded import Example
from torch2mlx.source.user_code import blame

_SECOND = 16000
_MEL_FRAMES = 64
_SIDE = 224
# What the configurations call the same thing
_VOCABULARY = ("vocab_size",)
_SIDES = ("image_size", "img_size", "pretrain_image_size", "crop_size")
_CHANNELS = ("num_channels", "in_channels", "in_chans", "num_input_channels")
_FRAMES = ("num_frames", "frames_per_clip")
_MELS = (
    "num_mel_bins",
    "n_mels",
    "input_feat_per_channel",
    "feature_projection_input_dim",
    "feature_size",
    "input_dim",
)
_WIDTHS = ("hidden_size", "d_model", "n_embd", "embed_dim")
_IMAGE_TOKENS = ("image_token_id", "image_token_index")
_TOKENS_PER_IMAGE = (
    "mm_tokens_per_image",
    "image_seq_len",
    "num_query_tokens",
)


_SPECIAL = re.compile(r".*_token_(id|index)")


@dataclass(frozen=True)
class _Input:
    """What one input is made of.

    Attributes:
        shape: Its sizes.
        dtype: Element type.
        limit: Integers are below it.
        places: How many tokens at the beginning stand for an image, and the token that does.
    """

    shape: Shape
    dtype: torch.dtype
    limit: int = 0
    places: tuple[int, int] | None = None


_Choice = dict[str, _Input]


def example(model: nn.Module) -> Example:
    """Inputs that fit a transformers model, told by its configuration.

    Raises:
        InputError: The configuration does not tell.
    """
    needed = _needed(model)
    choices = [choice for choice in _choices(model) if needed <= choice.keys()]
    found, failure = _that_runs(model, choices)
    if found is None:
        why = (
            f": with {_text(choices[0])} forward() fails: {failure}" if failure else ""
        )
        raise InputError(
            f"cannot infer the inputs of {type(model).__name__}{why}; "
            f"give them, for example --input input_ids=int64[{BATCH},{LENGTH}]"
        )
    generator = torch.Generator().manual_seed(0)
    kwargs: dict[str, torch.Tensor] = {}
    for name, wanted in found.items():
        tensor = values(name, wanted.shape, wanted.dtype, wanted.limit, generator)
        if wanted.limit > 2:
            _avoid(tensor, _special_tokens(model.config))
        if wanted.places is not None:
            count, token = wanted.places
            tensor[:, :count] = token
        kwargs[name] = tensor
    return (), kwargs, f"{_text(found)}, as the model's configuration says"


def _avoid(tensor: torch.Tensor, tokens: set[int]) -> None:
    """Replace the tokens that stand for something: an image, padding, an end."""
    other = next(token for token in range(len(tokens) + 1) if token not in tokens)
    special = torch.isin(tensor, torch.tensor(sorted(tokens), dtype=tensor.dtype))
    tensor[special] = other


def _special_tokens(config: Any) -> set[int]:
    tokens = {
        value
        for name, value in vars(config).items()
        if _SPECIAL.fullmatch(name) and type(value) is int
    }
    inner = (c for c in vars(config).values() if hasattr(c, "get_text_config"))
    return tokens.union(*map(_special_tokens, inner))


def _text(choice: _Choice) -> str:
    return "; ".join(describe(name, i.shape, i.dtype) for name, i in choice.items())


def _that_runs(
    model: nn.Module, choices: list[_Choice]
) -> tuple[_Choice | None, str | None]:
    """The first choice on which the model runs; where there is no choice, it is not tried."""
    if len(choices) < 2:
        return (choices[0] if choices else None), None
    first: str | None = None
    for choice in choices:
        mode = fake_mode()
        with mode, device_of(model):
            probes = {n: torch.zeros(i.shape, dtype=i.dtype) for n, i in choice.items()}
        failure = dry_run(model, (), probes, mode)
        if failure is None or isinstance(failure, NO_VALUES):
            return choice, None
        first = first or blame(failure)
    return None, first


def _needed(model: nn.Module) -> set[str]:
    parameters = inspect.signature(model.forward).parameters.values()
    kinds = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    return {p.name for p in parameters if p.default is p.empty and p.kind not in kinds}


def _choices(model: Any) -> list[_Choice]:
    names = inspect.signature(model.forward).parameters
    main, config = model.main_input_name, model.config
    tokens = _tokens(model)
    text = {name: tokens[name] for name in tokens if name in names and name != _DECODER}
    decoder = {_DECODER: tokens[_DECODER]} if _DECODER in names else {}
    sounds = [
        {name: sound}
        for name in ("input_features", "input_values")
        if name in names
        for sound in _sounds(model, name)
    ]
    looks = [
        {name: look}
        for name in ("pixel_values", "pixel_values_videos")
        if name in names
        for look in _looks(model, name)
    ]
    if main in ("input_features", "input_values"):
        return [sound | decoder for sound in sounds]
    has_images = main == "pixel_values" or config.get_text_config() is not config
    if "input_ids" not in text:
        return [look | decoder for look in looks] or _embedded(model, names)
    if looks and has_images:
        wide = _with_places(text, config)
        together = [wide | look | decoder for look in looks]
        alone = [look | decoder for look in looks]
        both = alone + together if main == "pixel_values" else together + alone
        return [*both, text | decoder]
    if sounds and config.get_text_config() is not config:
        return [*(text | sound | decoder for sound in sounds), text | decoder]
    return [text | decoder]


_DECODER = "decoder_input_ids"


def _tokens(model: Any) -> _Choice:
    text = model.config.get_text_config()
    vocabulary = _number(text, _VOCABULARY) or 2
    longest = getattr(text, "max_position_embeddings", None) or LENGTH
    if longest < 0:  # XLNet's word for "any"
        longest = LENGTH
    shape = (BATCH, min(LENGTH, longest))
    ids = _Input(shape, torch.int64, vocabulary)
    boxes = getattr(text, "max_2d_position_embeddings", None)
    return {
        "input_ids": ids,
        "attention_mask": _Input(shape, torch.int64, 2),
        **({"bbox": _Input((*shape, 4), torch.int64, 1)} if boxes else {}),
        _DECODER: ids,
    }


def _with_places(text: _Choice, config: Any) -> _Choice:
    """Tokens with as many that stand for an image as the image has features."""
    token = _number(config, _IMAGE_TOKENS)
    if token is None:
        return text
    count = _number(config, _TOKENS_PER_IMAGE) or _patches(config)
    made = {}
    for name, wanted in text.items():
        batch, length, *rest = wanted.shape
        places = (count, token) if name == "input_ids" else None
        shape = (batch, count + length, *rest)
        made[name] = _Input(shape, wanted.dtype, wanted.limit, places)
    return made


def _patches(config: Any) -> int:
    side, patch = _side(config), _find(config, ("patch_size",)) or 16
    rows, columns = _pair(patch)
    return (side[0] // rows) * (side[1] // columns)


def _looks(model: Any, name: str) -> Iterator[_Input]:
    """What images or videos may be, [B, C, H, W] or [B, frames, C, H, W]."""
    config = getattr(model.config, "vision_config", model.config)
    image = (_number(config, _CHANNELS) or 3, *_side(config))
    frames = _number(config, _FRAMES)
    if frames or name.endswith("videos"):
        yield _Input((BATCH, frames or 2, *image), model.dtype)
    if not name.endswith("videos"):
        yield _Input((BATCH, *image), model.dtype)


def _sounds(model: Any, name: str) -> Iterator[_Input]:
    """What audio may be: a wave, or a spectrogram in either order."""
    config = model.config
    mels = _number(config, _MELS)
    if name == "input_values":
        # Spectrograms go under the name of the waveform in one family
        if mels and hasattr(config, "max_length"):
            yield _Input((BATCH, config.max_length, mels), model.dtype)
        else:
            yield _Input((BATCH, _SECOND), model.dtype)
            yield _Input((BATCH, 1, _SECOND), model.dtype)
        return
    positions = _number(config, ("max_source_positions",))
    if positions and mels:
        # The encoder halves the length and takes no other
        yield _Input((BATCH, mels, 2 * positions), model.dtype)
    yield _Input((BATCH, _MEL_FRAMES, mels or 80), model.dtype)


def _embedded(model: Any, names: Any) -> list[_Choice]:
    width = _number(model.config, _WIDTHS)
    if width is None:
        return []
    wanted = _Input((BATCH, LENGTH, width), model.dtype)
    known = ("inputs_embeds", "hidden_states", "inputs")
    return [{name: wanted} for name in known if name in names]


def _side(config: Any) -> tuple[int, int]:
    return _pair(_find(config, _SIDES) or _SIDE)


def _pair(size: Any) -> tuple[int, int]:
    if isinstance(size, dict):
        size = (size.get("height", _SIDE), size.get("width", _SIDE))
    if isinstance(size, Sequence):
        return int(size[0]), int(size[-1])
    return int(size), int(size)


def _number(config: Any, names: Sequence[str]) -> int | None:
    found = _find(config, names)
    return found if isinstance(found, int) else None


def _find(config: Any, names: Sequence[str]) -> Any:
    """The first attribute of a configuration, or else of those in it, that has one of `names`."""
    for name in names:
        found = getattr(config, name, None)
        if found is not None:
            return found
    inner = [c for c in vars(config).values() if hasattr(c, "get_text_config")]
    return next((f for c in inner if (f := _find(c, names)) is not None), None)
