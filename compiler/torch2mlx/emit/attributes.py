"""Where the attributes of a generated class stand: as attributes, in lists, or in dicts.

PyTorch's names are kept, so that parameter paths equal state dict keys. A module whose children have
numbers becomes a list, one whose children have names a dict; a name that `nn.Module` needs itself gets an
underscore.
"""

from __future__ import annotations

import ast
import keyword
import re
from dataclasses import dataclass, field

from torch2mlx.emit import syntax
from torch2mlx.ir.names import RESERVED
from torch2mlx.outline.classes import ClassSpec
from torch2mlx.outline.template import Construct


@dataclass
class Place:
    """One attribute, or one element of a list or dict.

    Attributes:
        construct: How it is made, None for a list or dict.
        children: Elements by PyTorch's name, in order.
    """

    construct: Construct | None = None
    children: dict[str, Place] = field(default_factory=dict)

    @property
    def is_list(self) -> bool:
        """Whether the elements have numbers."""
        return bool(self.children) and all(_is_number(name) for name in self.children)


class Attributes:
    """The attributes of one class.

    Args:
        constructs: PyTorch's path below the module -> how it is made.

    Attributes:
        elements: For the mark of a list that a loop runs over, the loop's variable.
    """

    def __init__(self, constructs: dict[str, Construct]):
        self.elements: dict[str, str] = {}
        self.root = Place()
        for path, construct in constructs.items():
            place = self.root
            for part in path.split("."):
                place = place.children.setdefault(part, Place())
            place.construct = construct
        self.names = _names(self.root)

    def attribute(self, root: str) -> str:
        """The attribute for a first component of a path."""
        return self.names[root]

    def key(self, path: str) -> str:
        """The path of a parameter or module in the generated module."""
        root, dot, rest = path.partition(".")
        return f"{self.names[root]}{dot}{rest}"

    def place(self, path: str) -> Place:
        """The place at a path of PyTorch's."""
        place = self.root
        for part in path.split(".") if path else []:
            place = place.children[part]
        return place

    def access(self, path: str) -> ast.expr:
        """`self.layers[0]`, for a path of PyTorch's."""
        if not path:
            return syntax.name("self.layers")
        return self._below(syntax.name("self"), path.split("."))

    def _below(self, node: ast.expr, parts: list[str]) -> ast.expr:
        root, *rest = parts
        if _is_number(root) or root in self.elements:
            rest = parts
            place = self.root
            node = ast.Attribute(node, "layers")
        else:
            place = self.root.children.get(root, Place())
            node = ast.Attribute(node, self.names.get(root, root))
        for i, part in enumerate(rest):
            if part in self.elements:
                node = syntax.name(self.elements[part])
                place = next(iter(place.children.values()))
                continue
            target = place.construct.target if place.construct is not None else None
            if isinstance(target, ClassSpec):  # what a submodule holds
                return Attributes(target.template.attributes)._below(node, rest[i:])
            if place.construct is not None:
                node = ast.Attribute(node, part)
                continue
            if place.is_list or place is self.root:
                node = ast.Subscript(node, ast.Constant(int(part)))
            else:
                node = ast.Subscript(node, ast.Constant(part))
            place = place.children[part]
        return node


def _names(root: Place) -> dict[str, str]:
    taken: set[str] = set()
    names: dict[str, str] = {}
    for part in root.children:
        if _is_number(part):
            names[part] = f"layers.{part}"
            continue
        wanted = attribute_name(part)
        while wanted in taken or (wanted != part and wanted in root.children):
            wanted += "_"
        taken.add(wanted)
        names[part] = wanted
    return names


def attribute_name(name: str) -> str:
    """A valid attribute of an `mlx.nn.Module`, `name` itself where it is one."""
    clean = re.sub(r"\W", "_", name, flags=re.ASCII)
    if not clean or clean[0].isdigit() or (clean[0] == "_"):
        clean = f"m{clean}"  # MLX hides attributes with a leading underscore
    if keyword.iskeyword(clean) or clean in RESERVED:
        clean += "_"
    return clean


def _is_number(name: str) -> bool:
    return name.isascii() and name.isdigit()
