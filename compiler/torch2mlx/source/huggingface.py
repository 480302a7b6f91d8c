"""Models of transformers from a local folder: `config.json` and safetensors. Nothing is downloaded."""

from __future__ import annotations

import inspect
import json
from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import nn

from torch2mlx.errors import InputError
from torch2mlx.source.first_layers import BATCH, LENGTH
from torch2mlx.source.inputs import describe, values
from torch2mlx.source.libraries import torchvision_mismatch
from torch2mlx.source.loaded import RANDOM_WEIGHTS, Example, Loaded
from torch2mlx.source.user_code import first_line
from torch2mlx.source.weights import DTYPES, assign, mapped, parameters_on_meta
from torch2mlx.weights import open_checkpoint
from torch2mlx.weights.casting import FLOATS

TASKS = {
    "feature-extraction": "AutoModel",
    "fill-mask": "AutoModelForMaskedLM",
    "text-generation": "AutoModelForCausalLM",
    "text2text-generation": "AutoModelForSeq2SeqLM",
    "text-classification": "AutoModelForSequenceClassification",
    "token-classification": "AutoModelForTokenClassification",
    "question-answering": "AutoModelForQuestionAnswering",
    "image-classification": "AutoModelForImageClassification",
    "image-segmentation": "AutoModelForSemanticSegmentation",
    "object-detection": "AutoModelForObjectDetection",
    "depth-estimation": "AutoModelForDepthEstimation",
    "audio-classification": "AutoModelForAudioClassification",
    "automatic-speech-recognition": "AutoModelForCTC",
}

# What processes the inputs and outputs of the model goes along
_COMPANIONS = (
    "tokenizer*",
    "vocab.*",
    "merges.txt",
    "*.tiktoken",
    "spiece.model",
    "special_tokens_map.json",
    "added_tokens.json",
    "chat_template.*",
    "*processor_config.json",
    "generation_config.json",
)
_SECOND = 16000
_MEL_FRAMES = 64


def from_folder(text: str, task: str | None, trust_pickle: bool) -> Loaded:
    """The model of a transformers folder, with its weights or, where it has none, random ones.

    Args:
        text: The folder.
        task: A name in `TASKS` that chooses the head; None takes the one `config.json` names.
        trust_pickle: Accept weights that are pickled.

    Raises:
        InputError: The folder holds no such model, or transformers cannot load it.
    """
    folder = Path(text)
    config = _read_config(folder)
    try:
        import transformers
    except ModuleNotFoundError:
        raise InputError(
            "hf: sources need transformers, which is not installed: "
            "pip install transformers"
        ) from None
    model_class = _model_class(transformers, folder, config, task)
    pickled = _check_weights(folder, trust_pickle)
    try:
        if pickled is False:
            mapped = _mapped(transformers, model_class, folder)
            if mapped is not None:
                model, checkpoint = mapped
                _switch_off_cache(model)
                return _loaded(folder, model, (), checkpoint)
        model, notes = _load(transformers, model_class, folder, pickled)
    except InputError as error:
        raise InputError(f"hf:{folder}: {error}") from error
    except Exception as error:
        raise InputError(
            f"hf:{folder}: transformers cannot load it: {type(error).__name__}: "
            f"{first_line(error)}"
        ) from error
    _switch_off_cache(model)
    return _loaded(folder, model, tuple(notes), None)


def _loaded(
    folder: Path, model: nn.Module, notes: tuple[str, ...], checkpoint: Path | None
) -> Loaded:
    files = {
        path.name: path
        for pattern in _COMPANIONS
        for path in sorted(folder.glob(pattern))
        if path.is_file()
    }
    name = folder.resolve().name
    return Loaded(model, name, _example, None, notes, files, checkpoint)


def _read_config(folder: Path) -> dict[str, Any]:
    if not folder.is_dir():
        raise InputError(
            f"hf:{folder}: there is no folder {folder}; hf: takes a local folder with "
            "a config.json, nothing is downloaded"
        )
    path = folder / "config.json"
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError(f"hf:{folder}: {folder} holds no config.json") from None
    except (OSError, ValueError) as error:
        raise InputError(f"hf:{folder}: {path} cannot be read: {error}") from None
    if not isinstance(config, dict):
        raise InputError(f"hf:{folder}: {path} is not a JSON object")
    return config


def _model_class(
    transformers: Any, folder: Path, config: dict[str, Any], task: str | None
) -> Any:
    if task is not None:
        if task not in TASKS:
            raise InputError(f"unknown task {task!r}; it is one of {', '.join(TASKS)}")
        return getattr(transformers, TASKS[task])
    names = config.get("architectures") or ["AutoModel"]
    try:
        found = getattr(transformers, names[0], None)
    except Exception as error:
        cause = error.__cause__ or error
        raise InputError(
            f"hf:{folder}: transformers cannot import {names[0]}: {first_line(cause)}"
            f"{torchvision_mismatch(cause)}"
        ) from error
    if found is None:
        raise InputError(
            f"hf:{folder}: transformers {transformers.__version__} has no class "
            f"{names[0]!r}, which {folder / 'config.json'} names"
        )
    return found


def _check_weights(folder: Path, trust_pickle: bool) -> bool | None:
    """Whether the weights are pickled; None where there are none."""
    if any(folder.glob("*.safetensors")):
        return False
    pickles = sorted(folder.glob("*.bin"))
    if not pickles:
        return None
    if not trust_pickle:
        raise InputError(
            f"hf:{folder}: its weights are pickled ({pickles[0].name}), and unpickling "
            "can run code; pass --trust-pickle if you trust where they come from"
        )
    return True


def _load(
    transformers: Any, model_class: Any, folder: Path, pickled: bool | None
) -> tuple[nn.Module, list[str]]:
    is_auto = model_class.__name__.startswith("AutoModel")
    if pickled is None:
        config = transformers.AutoConfig.from_pretrained(folder, local_files_only=True)
        model = model_class.from_config(config) if is_auto else model_class(config)
        return model, [RANDOM_WEIGHTS]
    with _no_bar(transformers):
        model, info = model_class.from_pretrained(
            folder,
            local_files_only=True,
            use_safetensors=not pickled,
            output_loading_info=True,
        )
    missing = sorted(info["missing_keys"])
    if not missing:
        return model, []
    more = ", ..." if len(missing) > 3 else ""
    return model, [
        f"{len(missing)} weights are not in {folder} and have random values: "
        f"{', '.join(missing[:3])}{more}"
    ]


def _mapped(
    transformers: Any, model_class: Any, folder: Path
) -> tuple[nn.Module, Path | None] | None:
    """The model with its weights mapped into memory, which are read where they are used.

    Returns:
        The model, and the folder if its files have the names of the state dict; None where
        transformers would do more to the weights than give each the place that its name says.
    """
    checkpoint = open_checkpoint(folder)
    config = transformers.AutoConfig.from_pretrained(folder, local_files_only=True)
    dtypes = {info.dtype for info in checkpoint.tensors.values()} & {*FLOATS}
    if len(dtypes) != 1 or getattr(config, "quantization_config", None) is not None:
        return None
    dtype = DTYPES[dtypes.pop()]
    if config.dtype not in (None, dtype):
        return None
    tensors = mapped(checkpoint)
    is_auto = model_class.__name__.startswith("AutoModel")
    build = model_class.from_config if is_auto else model_class._from_config
    try:
        with parameters_on_meta():
            model = build(config, dtype=dtype)
    except Exception:
        # Its initialisation wants to see values
        return None
    if getattr(model, "_keep_in_fp32_modules", None) and dtype != torch.float32:
        return None
    own = model.state_dict().keys()
    prefix = f"{model.base_model_prefix}."
    renamed = tensors
    if not own & tensors.keys():
        cut = [key for key in tensors if key.startswith(prefix)]
        renamed = {key.removeprefix(prefix): tensors[key] for key in cut}
    try:
        assign(model, renamed, str(folder))
    except InputError:
        return None
    return model, folder if renamed is tensors else None


@contextmanager
def _no_bar(transformers: Any) -> Generator[None, None, None]:
    """The command has its own display of progress."""
    logging = transformers.utils.logging
    before = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if before:
            logging.enable_progress_bar()


def _switch_off_cache(model: nn.Module) -> None:
    """Whole sequences need no cache of keys and values."""
    for module in model.modules():
        config = getattr(module, "config", None)
        if config is not None and getattr(config, "use_cache", None):
            config.use_cache = False


def _example(model: nn.Module) -> Example:
    generator = torch.Generator().manual_seed(0)
    kwargs: dict[str, torch.Tensor] = {}
    lines = []
    for name, shape, dtype, limit in _wanted(model):
        kwargs[name] = values(name, shape, dtype, limit, generator)
        lines.append(describe(name, shape, dtype))
    if not kwargs:
        raise InputError(
            f"cannot infer the inputs of {type(model).__name__}; "
            f"give them, for example --input input_ids=int64[{BATCH},{LENGTH}]"
        )
    return (), kwargs, f"{'; '.join(lines)}, as the model's configuration says"


def _wanted(
    model: Any,
) -> Iterator[tuple[str, tuple[int, ...], torch.dtype, int]]:
    """Name, shape, dtype and upper bound of each input."""
    names = inspect.signature(model.forward).parameters
    main, config = model.main_input_name, model.config
    text = config.get_text_config()
    vocabulary = getattr(text, "vocab_size", 2)
    tokens = (BATCH, min(LENGTH, getattr(text, "max_position_embeddings", LENGTH)))
    vision = getattr(config, "vision_config", config)

    if main == "input_ids":
        yield "input_ids", tokens, torch.int64, vocabulary
        if "attention_mask" in names:
            yield "attention_mask", tokens, torch.int64, 2
    # A model of text and images has two configurations
    if main == "pixel_values" or (vision is not config and "pixel_values" in names):
        yield "pixel_values", _image(vision), model.dtype, 0
    if main in ("input_values", "input_features"):
        yield main, _audio(config, main), model.dtype, 0
    if "decoder_input_ids" in names:
        yield "decoder_input_ids", tokens, torch.int64, vocabulary


def _image(config: Any) -> tuple[int, ...]:
    size = getattr(config, "image_size", None) or 224
    height, width = size if isinstance(size, Sequence) else (size, size)
    channels = getattr(config, "num_channels", None) or 3
    frames = getattr(config, "num_frames", None)
    return (BATCH, *([frames] if frames else []), channels, height, width)


def _audio(config: Any, name: str) -> tuple[int, ...]:
    mels = getattr(config, "num_mel_bins", None)
    if name == "input_values":
        # Spectrograms go under the name of the waveform in one family
        return (BATCH, config.max_length, mels) if mels else (BATCH, _SECOND)
    if mels and hasattr(config, "max_source_positions"):
        # The encoder halves the length and takes no other
        return BATCH, mels, 2 * config.max_source_positions
    sizes = ("input_feat_per_channel", "feature_projection_input_dim", "num_mel_bins")
    size = next((getattr(config, s) for s in sizes if hasattr(config, s)), 80)
    return BATCH, _MEL_FRAMES, size
