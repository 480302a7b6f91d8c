"""Models that torchvision and timm build by name, with random weights; both know their inputs."""

from __future__ import annotations

import difflib
import importlib
import importlib.metadata
import inspect
from collections.abc import Sequence
from functools import partial
from types import ModuleType
from typing import Any

import torch
from torch import nn

from torch2mlx.errors import InputError
from torch2mlx.source.first_layers import BATCH
from torch2mlx.source.inputs import describe
from torch2mlx.source.loaded import RANDOM_WEIGHTS, Example, Loaded
from torch2mlx.source.user_code import first_line

_FRAMES = 16


def from_torchvision(name: str) -> Loaded:
    """`torchvision.models` by name.

    Raises:
        InputError: torchvision does not work here, or has no such model.
    """
    models = _imported("torchvision", "torchvision.models")
    known = models.list_models()
    if name not in known:
        raise _unknown("torchvision", name, known)
    builder = models.get_model_builder(name)
    options: dict[str, Any] = {"weights": None}
    if "weights_backbone" in inspect.signature(builder).parameters:
        # Its default downloads the backbone's
        options["weights_backbone"] = None
    model = builder(**options)
    kind = builder.__module__.removeprefix("torchvision.models.").partition(".")[0]
    example = partial(_torchvision_example, name, kind)
    return Loaded(model, name, example, notes=(RANDOM_WEIGHTS,))


def from_timm(name: str) -> Loaded:
    """`timm.create_model` by name, which may end in a tag such as `.a1_in1k`.

    Raises:
        InputError: timm does not work here, or has no such model.
    """
    timm = _imported("timm", "timm")
    plain, _, tag = name.partition(".")
    if not timm.is_model(plain):
        raise _unknown("timm", name, timm.list_models())
    tagged = timm.list_models(f"{plain}.*", pretrained=True) if tag else [name]
    if name not in tagged:
        raise _unknown("timm", name, [plain, *tagged])
    model = timm.create_model(name, pretrained=False)
    return Loaded(model, name, _timm_example, notes=(RANDOM_WEIGHTS,))


def torchvision_mismatch(error: BaseException) -> str:
    """Why torchvision fails where it was built for another torch; else nothing."""
    if "torchvision" not in str(error):
        return ""
    version = importlib.metadata.version("torchvision")
    return (
        f"; torchvision {version} does not fit torch {torch.__version__}, "
        "install the builds that belong together"
    )


def _torchvision_example(name: str, kind: str, model: nn.Module) -> Example:
    side = 299 if "inception" in name else 224
    if kind == "detection":
        images = [_random(3, side, side) for _ in range(BATCH)]
        text = f"a list of {BATCH} images, {describe(None, images[0].shape, torch.float32)}"
        return (images,), {}, f"{text}, as torchvision detection models take them"
    shapes: tuple[tuple[int, ...], ...] = ((BATCH, 3, side, side),)
    if kind == "video":
        # The convolutional ones are trained on small frames
        side = 112 if name.endswith("_18") else 224
        shapes = ((BATCH, 3, _FRAMES, side, side),)
    elif kind == "optical_flow":
        shapes = ((BATCH, 3, 128, 128),) * 2
    return _example(model, shapes, "as torchvision feeds it")


def _timm_example(model: nn.Module) -> Example:
    size: Sequence[int] = model.pretrained_cfg["input_size"]  # type: ignore[assignment, index]
    return _example(model, ((BATCH, *size),), "as timm's pretrained_cfg says")


def _example(model: nn.Module, shapes: Sequence[Sequence[int]], why: str) -> Example:
    names = list(inspect.signature(model.forward).parameters)
    lines = [
        describe(name, shape, torch.float32)
        for name, shape in zip(names, shapes, strict=False)
    ]
    generator = torch.Generator().manual_seed(0)
    args = tuple(torch.randn(*shape, generator=generator) for shape in shapes)
    return args, {}, f"{'; '.join(lines)}, {why}"


def _random(*shape: int) -> torch.Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(0))


def _imported(package: str, module: str) -> ModuleType:
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        missing = (error.name or package).partition(".")[0]
        raise InputError(
            f"{package}: sources need {missing}, which is not installed: "
            f"pip install {missing}"
        ) from None
    except Exception as error:
        raise InputError(
            f"{package}: `import {module}` fails: {type(error).__name__}: "
            f"{first_line(error)}{torchvision_mismatch(error)}"
        ) from error


def _unknown(library: str, name: str, known: Sequence[str]) -> InputError:
    close = difflib.get_close_matches(name, known, n=3, cutoff=0.6)
    if close:
        hint = f"did you mean {' or '.join(f'{library}:{one}' for one in close)}?"
    else:
        hint = f"{library} lists its models with {_LISTING[library]}"
    return InputError(f"{library} has no model {name!r}; {hint}")


_LISTING = {
    "torchvision": "torchvision.models.list_models()",
    "timm": "timm.list_models()",
}
