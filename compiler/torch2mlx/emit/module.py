"""The generated file: header, helpers, classes, `load_model`, laid out by a Jinja2 template."""

from __future__ import annotations

import ast
import functools
import inspect
import textwrap
from typing import Any

import black
import jinja2

from torch2mlx.capture import Captured
from torch2mlx.emit import constructor, functions, syntax
from torch2mlx.emit.attributes import Attributes
from torch2mlx.emit.body import Function
from torch2mlx.emit.interface import Interface, Structure, interface, kind_of
from torch2mlx.emit.loading import PLAIN, Loading
from torch2mlx.emit.repeats import Repeats
from torch2mlx.emit.sanitize import sanitize
from torch2mlx.lower.stubs import Stub
from torch2mlx.outline import Outlined
from torch2mlx.outline.classes import ClassSpec
from torch2mlx.weights.plan import WeightPlan

# What generated code may need of the standard library, in the order of its import lines
IMPORTS = {
    "itertools": "import itertools",
    "math": "import math",
    "os": "import os",
    "re": "import re",
    "sys": "import sys",
    "Callable": "from collections.abc import Callable",
    "dataclass": "from dataclasses import dataclass",
    "fields": "from dataclasses import dataclass, fields",
    "field": "from dataclasses import dataclass, field, fields",
    "partial": "from functools import partial",
    "Path": "from pathlib import Path",
    "Any": "from typing import Any",
}
IN_SELFTEST = {"os", "sys"}
MODE = black.Mode(line_length=88)


def emit(
    outlined: Outlined,
    captured: Captured,
    plan: WeightPlan,
    origin: str,
    title: str,
    loading: Loading = PLAIN,
    selftest: bool = False,
) -> str:
    """The text of `model_mlx.py`.

    Args:
        outlined: The model as classes.
        captured: The model as it was captured.
        plan: How its weights are made.
        origin: What it was compiled from, e.g. `torchvision.models.resnet.ResNet`.
        title: The model's name, for the first line.
        loading: How the weights are stored.
        selftest: Give it a `--selftest`, for the certificate beside it.
    """
    method = sanitize(plan, loading.sharded)
    face = interface(outlined.model, captured, limits_of(outlined.classes[-1]))
    classes: list[str] = []
    targets: list[Any] = []
    for spec in outlined.classes:
        is_model = spec is outlined.classes[-1]
        source, called = _class(spec, face if is_model else None, captured)
        if is_model and method:
            source += "\n" + textwrap.indent(method, " " * 4) + "\n"
        classes.append(source)
        targets += called
    stubs = dict.fromkeys(t for t in targets if isinstance(t, Stub))
    helpers = [*helper_sources(targets), *map(_stub_source, stubs)]
    used = _names_in("\n\n".join([*helpers, *classes])) & IMPORTS.keys()
    used |= {"Path"} | (IN_SELFTEST if selftest else set())
    used.add(_dataclasses(outlined))
    template = _environment().get_template("model_mlx.py.jinja")
    source = template.render(
        title=title,
        origin=origin,
        inputs=face.inputs,
        outputs=face.outputs,
        imports=[line for name, line in IMPORTS.items() if name in used],
        helpers=helpers,
        classes=classes,
        model=outlined.classes[-1].name,
        arguments=outlined.arguments,
        sanitize=bool(method),
        loading=loading,
        selftest=selftest,
    )
    return black.format_str(source, mode=MODE)


def _dataclasses(outlined: Outlined) -> str:
    """The last name that is needed of `dataclasses`."""
    if not outlined.arguments:
        return "dataclass"
    return "field" if len(outlined.arguments) > 1 else "fields"


def _stub_source(stub: Stub) -> str:
    return _environment().get_template("stub.py.jinja").render(stub=stub)


def _names_in(code: str) -> set[str]:
    return {node.id for node in ast.walk(ast.parse(code)) if isinstance(node, ast.Name)}


def call_of(
    spec: ClassSpec, face: Interface | None, captured: Captured
) -> tuple[Function, list[str], str]:
    """The `__call__` of one class, the types of its parameters and of its result.

    Args:
        spec: The class.
        face: How the model is called, None for another class than the model's.
        captured: The model as it was captured.
    """
    attributes = Attributes(spec.template.attributes)
    segment = spec.template.segment
    if face is None:
        function = Repeats(spec, attributes, segment.names).write()
        kinds = [kind_of(node) for node in segment.inputs]
        results = [kind_of(value) for value in spec.template.outputs]
        returns = f"tuple[{', '.join(results)}]"
        if len(results) < 2:
            returns = results[0] if results else "None"
        return function, kinds, returns
    structure = Structure(captured.out_spec)
    body = Repeats(spec, attributes, face.names, structure.build, face.reads)
    function = body.write()
    function.parameters = face.parameters
    function.statements = [*face.checks, *function.statements]
    kept = limits_of(spec).values()
    function.stored += [name for name in kept if name not in function.stored]
    return function, face.annotations, face.returns


def limits_of(spec: ClassSpec) -> dict[Any, str]:
    """Size of an input -> the attribute that keeps the largest that it may be."""
    return spec.arguments.limits if spec.arguments is not None else {}


def _class(
    spec: ClassSpec, face: Interface | None, captured: Captured
) -> tuple[str, list[Any]]:
    """The source of one class, and the functions that it calls."""
    function, kinds, returns = call_of(spec, face, captured)
    init = constructor.body(spec, Attributes(spec.template.attributes), function.stored)
    source = (
        _environment()
        .get_template("class.py.jinja")
        .render(
            name=spec.name,
            signature=_code(constructor.parameters(spec, face is not None)),
            init=[_code(s) for s in init],
            call=_call_signature(function, kinds),
            returns=returns,
            body=[_code(statement) for statement in function.statements],
        )
    )
    return source, function.targets


def _call_signature(function: Function, kinds: list[str]) -> str:
    pairs = zip(function.parameters, kinds, strict=True)
    return ", ".join(["self", *(f"{name}: {kind}" for name, kind in pairs)])


def _code(node: ast.AST) -> str:
    return textwrap.indent(syntax.text(node), " " * 8).lstrip()


def helper_sources(targets: list[Any]) -> list[str]:
    """The source of every helper that is called, and of those that they call, callees first."""
    found: dict[str, str] = {}

    def visit(helper: Any) -> None:
        name = helper.__name__
        if name in found:
            return
        module = inspect.getmodule(helper)
        source = inspect.getsource(helper)
        names = [n.id for n in ast.walk(ast.parse(source)) if isinstance(n, ast.Name)]
        for word in dict.fromkeys(names):
            other = getattr(module, word, None)
            if word != name and functions.is_helper(other):
                visit(other)
        found[name] = source

    for target in targets:
        if functions.is_helper(target):
            visit(target)
    return list(found.values())


@functools.cache
def _environment() -> jinja2.Environment:
    loader = jinja2.PackageLoader("torch2mlx_templates", "")
    environment = jinja2.Environment(
        loader=loader,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        undefined=jinja2.StrictUndefined,
    )
    environment.filters["literal"] = lambda v: syntax.text(syntax.literal(v))
    return environment
