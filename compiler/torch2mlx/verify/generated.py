"""Which generated module stands for which PyTorch module, and where it is in the generated file."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import mlx.nn

from torch2mlx.emit.attributes import Attributes
from torch2mlx.outline import Outlined
from torch2mlx.outline.operands import Segment, invokes


@dataclass(frozen=True)
class Generated:
    """One module of the generated model.

    Attributes:
        key: Its path in the generated model, "" for the model itself.
        cls: Its class: one of the generated file, or `nn.<layer>`.
        owner: The generated class that makes it, "" for the model itself.
    """

    key: str
    cls: str
    owner: str = ""


def generated_modules(outlined: Outlined) -> dict[str, Generated]:
    """PyTorch's path of every module that became one of the generated model -> what it became."""
    model = outlined.classes[-1].name
    return {"": Generated("", model), **dict(_below(outlined, outlined.model, "", ""))}


def _below(
    outlined: Outlined, segment: Segment, path: str, key: str
) -> Iterator[tuple[str, Generated]]:
    spec = outlined.instances.class_of[id(segment)]
    attributes = Attributes(spec.template.attributes)
    for item in segment.items:
        for invoke in invokes(item):
            inner = f"{path}.{invoke.path}" if path else invoke.path
            attribute = attributes.key(invoke.path)
            inner_key = f"{key}.{attribute}" if key else attribute
            if isinstance(invoke.callee, Segment):
                cls = outlined.instances.class_of[id(invoke.callee)].name
                yield inner, Generated(inner_key, cls, spec.name)
                yield from _below(outlined, invoke.callee, inner, inner_key)
            else:
                cls = f"nn.{invoke.callee.cls.__name__}"
                yield inner, Generated(inner_key, cls, spec.name)


def instance(model: mlx.nn.Module, key: str) -> mlx.nn.Module | None:
    """The module at a path of the generated model."""
    found: Any = model
    for part in key.split(".") if key else []:
        if isinstance(found, mlx.nn.Module):
            found = getattr(found, part, None)
        elif isinstance(found, list):
            found = found[int(part)]
        elif isinstance(found, dict):
            found = found.get(part)
    return found if isinstance(found, mlx.nn.Module) else None


def line_of(source: str, module: Generated) -> int:
    """The line of the generated file with the module's class, or with the layer's constructor call."""
    tree = ast.parse(source)
    classes = {node.name: node for node in tree.body if isinstance(node, ast.ClassDef)}
    if module.cls in classes:
        return classes[module.cls].lineno
    owner = classes[module.owner]
    parts = module.key.split(".")
    made = [
        node.lineno
        for node in ast.walk(owner)
        if isinstance(node, ast.Assign)
        and any(isinstance(t, ast.Attribute) and t.attr in parts for t in node.targets)
    ]
    return made[-1] if made else owner.lineno
