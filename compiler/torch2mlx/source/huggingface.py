"""Models of transformers from a local folder: `config.json` and safetensors. Nothing is downloaded."""

from __future__ import annotations

import json
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import nn

from torch2mlx.errors import InputError
from torch2mlx.source.conversion import conversion
from torch2mlx.source.libraries import torchvision_mismatch
from torch2mlx.source.loaded import RANDOM_WEIGHTS, Loaded
from torch2mlx.source.transformers_inputs import example
from torch2mlx.source.user_code import first_line
from torch2mlx.source.weights import (
    DTYPES,
    MissingWeights,
    assign,
    converted,
    parameters_on_meta,
)
from torch2mlx.weights import WeightPlan, open_checkpoint
from torch2mlx.weights.casting import FLOATS
from torch2mlx.weights.composition import is_by_name

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


def from_folder(
    text: str, task: str | None, trust_pickle: bool, values: bool = True
) -> Loaded:
    """The model of a transformers folder, with its weights or, where it has none, random ones.

    Args:
        text: The folder.
        task: A name in `TASKS` that chooses the head; None takes the one `config.json` names.
        trust_pickle: Accept weights that are pickled.
        values: Whether the model will be run. If not, weights that are put together from several of the
            folder may stay on the meta device.

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
            mapped = _mapped(transformers, model_class, folder, values)
            if mapped is not None:
                model, plan = mapped
                _prepare(model)
                options = {} if plan is None else {"conversion": plan}
                return replace(
                    _loaded(folder, model), checkpoint=folder, options=options
                )
        model, notes = _load(transformers, model_class, folder, pickled)
    except InputError as error:
        raise InputError(f"hf:{folder}: {error}") from error
    except Exception as error:
        raise InputError(
            f"hf:{folder}: transformers cannot load it: {type(error).__name__}: "
            f"{first_line(error)}"
        ) from error
    _prepare(model)
    return _loaded(folder, model, tuple(notes))


def _loaded(folder: Path, model: nn.Module, notes: tuple[str, ...] = ()) -> Loaded:
    files = {
        path.name: path
        for pattern in _COMPANIONS
        for path in sorted(folder.glob(pattern))
        if path.is_file()
    }
    name = folder.resolve().name
    return Loaded(model, name, example, None, notes, files)


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
    transformers: Any, model_class: Any, folder: Path, values: bool
) -> tuple[nn.Module, WeightPlan | None] | None:
    """The model with its weights mapped into memory, which are read where they are used.

    Weights that are not in the folder as the model has them are made if `values` are wanted, else they
    are on the meta device.

    Returns:
        The model, and how its state dict is made of the folder's weights, if not by name; None where
        transformers would compute with them.
    """
    checkpoint = open_checkpoint(folder)
    config = transformers.AutoConfig.from_pretrained(folder, local_files_only=True)
    if getattr(config, "quantization_config", None) is not None:
        return None
    dtypes = {info.dtype for info in checkpoint.tensors.values()} & {*FLOATS}
    if config.dtype is None and len(dtypes) != 1:
        return None
    dtype = config.dtype or DTYPES[dtypes.pop()]
    is_auto = model_class.__name__.startswith("AutoModel")
    build = model_class.from_config if is_auto else model_class._from_config
    try:
        with parameters_on_meta():
            model = build(config, dtype=dtype)
    except Exception:
        # Its initialisation wants to see values
        return None
    plan = conversion(model, checkpoint, dtype)
    if plan is None:
        return None
    try:
        assign(model, converted(plan, checkpoint, values), str(folder))
    except MissingWeights:
        return None
    return model, None if is_by_name(plan) else plan


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


def _prepare(model: nn.Module) -> None:
    """Choose, of what transformers has several ways for, the one that can be captured."""
    _switch_off_cache(model)
    chosen = getattr(getattr(model, "config", None), "_experts_implementation", None)
    if chosen == "grouped_mm" and not _has_aligned_experts(model):
        model.set_experts_implementation("batched_mm")  # type: ignore[operator]


def _has_aligned_experts(model: nn.Module) -> bool:
    """Whether all rows of the experts have whole 16 bytes, as PyTorch's product of groups wants them."""
    return not any(
        size * parameter.itemsize % 16
        for parameter in model.parameters()
        if parameter.ndim == 3
        for size in parameter.shape[1:]
    )


def _switch_off_cache(model: nn.Module) -> None:
    """Whole sequences need no cache of keys and values."""
    for module in model.modules():
        config = getattr(module, "config", None)
        if config is not None and getattr(config, "use_cache", None):
            config.use_cache = False
