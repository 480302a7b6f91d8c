"""From segments to classes: equal structures are one class, what differs are its parameters.

    BasicBlock(conv1: Conv2d(64, 64), ...)       class BasicBlock(nn.Module):
    BasicBlock(conv1: Conv2d(64, 128), ...)  ->      def __init__(self, in_channels, out_channels, ...)

A child that some instances lack is optional, by a boolean parameter of its name.
"""

from __future__ import annotations

import itertools
import keyword
import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import networkx
import torch

from torch2mlx.ir.names import RESERVED, is_variable
from torch2mlx.outline.operands import (
    Invoke,
    Item,
    Op,
    Repeat,
    Segment,
    invokes,
    segments_below,
)
from torch2mlx.outline.residuals import is_mark, rival, ways
from torch2mlx.outline.template import (
    EMPTY,
    Abstraction,
    Hole,
    Instances,
    Template,
    root,
)
from torch2mlx.outline.widen import callers, widen


@dataclass(frozen=True)
class Parameter:
    """A constructor parameter of a generated class.

    Attributes:
        name: Its name.
        type: int, float or bool.
        default: The common value, or `inspect.Parameter.empty`.
    """

    name: str
    type: type
    default: Any = EMPTY


@dataclass(frozen=True)
class Ref:
    """A constant that is a constructor parameter."""

    name: str


@dataclass(eq=False)
class ClassSpec:
    """One class of the generated file.

    Attributes:
        name: Its name, the PyTorch class's.
        cls: The PyTorch class.
        template: Its code, constants as holes.
        parameters: Constructor parameters, those with a default last.
        values: Hole -> its constant, or the parameter that it is.
        optional: Attribute root -> when it is there: (parameter, None) where a boolean parameter says
            so, (parameter, constant or other parameter) where the two must differ.
        arguments: What it takes from the model's configuration, None for nothing.
    """

    name: str
    cls: type | None
    template: Template
    parameters: list[Parameter] = field(default_factory=list)
    values: dict[int, Any] = field(default_factory=dict)
    optional: dict[str, tuple[str, Any]] = field(default_factory=dict)
    arguments: Any = None

    def value(self, operand: Any) -> Any:
        """What stands for an operand: holes become constants or `Ref`s."""
        return self.values[operand.index] if isinstance(operand, Hole) else operand


@dataclass
class _Member:
    """One segment as an instance of a class."""

    segment: Segment
    template: Template
    absent: frozenset[str] = frozenset()


def build_classes(
    model: Segment, modules: dict[str, torch.nn.Module], instances: Instances
) -> list[ClassSpec]:
    """The classes of a model, submodules before the modules that hold them.

    Args:
        model: The segment of the whole model.
        modules: Module path -> PyTorch module; their attributes lend names to parameters.
        instances: Filled with the class and arguments of every segment.
    """
    specs: list[ClassSpec] = []
    names: set[str] = set()
    calls = callers([*segments_below(model), model])
    for group in _groups(model):
        widen(group, calls, instances)
        for members in _structures(group, instances):
            name = _class_name(members[0].segment, names)
            names.add(name)
            specs.append(_unify(name, members, modules, instances))
    return specs


def _groups(model: Segment) -> list[list[Segment]]:
    """Segments of the same PyTorch class, classes before those that contain them."""
    graph = networkx.DiGraph()
    found: dict[Any, list[Segment]] = {}
    seen: dict[tuple[int, str], None] = {}
    for segment in [*segments_below(model), model]:
        seen.setdefault((id(segment), segment.path))
        key = _identity(segment)
        graph.add_node(key)
        found.setdefault(key, []).append(segment)
        for item in segment.items:
            for invoke in _calls(item):
                graph.add_edge(_identity(invoke.callee), key)
    if not networkx.is_directed_acyclic_graph(graph):
        return _groups_by_height(model)
    rank = {key: i for i, key in enumerate(found)}
    order = networkx.lexicographical_topological_sort(graph, key=rank.__getitem__)
    return [found[key] for key in order]


def _groups_by_height(model: Segment) -> list[list[Segment]]:
    """The same for models whose modules contain modules of their own class."""
    heights: dict[int, int] = {}
    found: dict[Any, list[Segment]] = {}
    for segment in [*segments_below(model), model]:
        below = [heights[id(c.callee)] for item in segment.items for c in _calls(item)]
        heights[id(segment)] = 1 + max(below, default=0)
        found.setdefault((heights[id(segment)], _identity(segment)), []).append(segment)
    rank = {key: i for i, key in enumerate(found)}
    return [found[key] for key in sorted(found, key=lambda k: (k[0], rank[k]))]


def _calls(item: Item) -> list[Invoke]:
    return [call for call in invokes(item) if isinstance(call.callee, Segment)]


def _identity(segment: Any) -> Any:
    return segment.cls if segment.cls is not None else segment.path


def _structures(group: list[Segment], instances: Instances) -> list[list[_Member]]:
    """The members of one PyTorch class by structure, optional children allowed for."""
    by_key: dict[Any, list[_Member]] = {}
    for segment in group:
        template = Abstraction(segment, instances).run()
        by_key.setdefault(template.key, []).append(_Member(segment, template))
    order = list(by_key)
    largest_first = sorted(order, key=lambda k: _size(by_key[k][0].template))
    merged: dict[Any, list[_Member]] = {}
    for key in largest_first:
        members = by_key[key]
        host = next((k for k in merged if _absorb(merged[k], members, instances)), None)
        if host is None:
            merged[key] = members
        else:
            merged[host] = merged[host] + members
    for members in merged.values():
        members.sort(key=lambda m: bool(m.absent))
    return [merged[key] for key in order if key in merged]


def _size(template: Template) -> tuple[int, int]:
    return -len(template.attributes), -len(template.items)


def _absorb(hosts: list[_Member], members: list[_Member], instances: Instances) -> bool:
    """Whether `members` are the first of `hosts` without some of its parts; if so they are marked."""
    host = hosts[0]
    mine, theirs = (_roots(m.template) for m in (host, members[0]))
    absent = frozenset(mine - theirs)
    if theirs - mine or not _skippable(host.template, absent):
        return False
    parts = [(frozenset[str](), {})] if absent else []
    marks = {name for member in hosts for name in member.absent if is_mark(name)}
    parts += [
        (frozenset({name}), passed)
        for name, passed in ways(host.template)
        if rival(name) not in marks
    ]
    for sums, passed in parts:
        template = Abstraction(host.segment, instances, absent, passed).run()
        if template.key == members[0].template.key:
            for member in members:
                member.absent = absent | sums
            return True
    return False


def _roots(template: Template) -> set[str]:
    return {path.partition(".")[0] for path in template.attributes}


def _skippable(template: Template, roots: frozenset[str]) -> bool:
    """Whether every call below `roots` takes one value and gives one, and no array is below them.

    What only code outside the module uses is nothing to skip.
    """
    called: set[str] = set()
    roots -= {path.partition(".")[0] for path in template.segment.adopted}
    for item in template.items:
        if isinstance(item, Op | Repeat) or root(item) not in roots:
            continue
        called.add(root(item))
        value = item.args[0] if len(item.args) == 1 else None
        if not isinstance(value, torch.fx.Node) or len(item.outputs) != 1:
            return False
    arrays = {
        p.partition(".")[0] for p, c in template.attributes.items() if c.target is None
    }
    return called == roots and not arrays & roots


def _class_name(segment: Segment, taken: set[str]) -> str:
    name = segment.cls.__name__ if segment.cls is not None else "Module"
    name = re.sub(r"\W", "", name).lstrip("_") or "Module"
    if keyword.iskeyword(name) or name[0].isdigit():
        name = f"{name}Module" if not name[0].isdigit() else f"Module{name}"
    reserved = {"Model", "ModelArgs", "Path"}
    candidates = [name, *(f"{name}{letter}" for letter in "BCDEFGHIJKLMNOPQRSTUVWXYZ")]
    candidates += [f"{name}Variant{i}" for i in range(1, 10_000)]
    if name in reserved:
        candidates = [f"{c}Module" for c in candidates]
    return next(c for c in candidates if c not in taken)


def _unify(
    name: str,
    members: list[_Member],
    modules: dict[str, torch.nn.Module],
    instances: Instances,
) -> ClassSpec:
    spec = ClassSpec(name, members[0].segment.cls, members[0].template)
    vectors = _vectors(members)
    owners = [modules.get(m.segment.path) for m in members]
    taken = {path.partition(".")[0] for path in spec.template.attributes}
    parameters: dict[str, tuple[Any, ...]] = {}
    for index, vector in enumerate(vectors):
        known = [v for v in vector if v is not None]
        info = spec.template.holes[index]
        if all(_same(v, known[0]) for v in known):
            namesake = parameters.get(info.hint, ())
            shared = None in vector and namesake and _agree(vector, namesake)
            spec.values[index] = Ref(info.hint) if shared else known[0]
            continue
        found = next(
            (n for n, other in parameters.items() if _agree(vector, other)), None
        )
        if found is None:
            found = _parameter_name(vector, info, owners, taken)
            taken.add(found)
            parameters[found] = vector
        else:
            parameters[found] = _joined(vector, parameters[found])
        spec.values[index] = Ref(found)
    defaults = _defaults(spec, parameters)
    for absent in sorted({r for m in members for r in m.absent}):
        there = tuple(absent not in m.absent for m in members)
        condition = None
        if not is_mark(absent):
            condition = _condition(there, parameters, defaults)
        if condition is None:
            flag = _flag(absent, there, owners, parameters, taken)
            parameters[flag], defaults[flag] = there, False
            condition = (flag, None)
        spec.optional[absent] = condition
    spec.parameters = [
        Parameter(
            n, type(next(v for v in vector if v is not None)), defaults.get(n, EMPTY)
        )
        for n, vector in parameters.items()
    ]
    spec.parameters.sort(key=lambda p: p.default is not EMPTY)
    for i, member in enumerate(members):
        given = {p.name: parameters[p.name][i] for p in spec.parameters}
        arguments = {n: defaults[n] if v is None else v for n, v in given.items()}
        instances.add(member.segment, spec, arguments)
    return spec


def _flag(
    absent: str,
    there: tuple[bool, ...],
    owners: list[torch.nn.Module | None],
    parameters: dict[str, tuple[Any, ...]],
    taken: set[str],
) -> str:
    """The parameter that says whether an optional part is there."""
    if is_mark(absent):
        numbered = (f"residual{i}" for i in itertools.count(2))
        names = [*_author_attributes(there, owners), "residual"]
        names = itertools.chain(names, numbered)
        used = {*parameters, *taken, *RESERVED}
        return next(n for n in names if is_variable(n) and n not in used)
    used = {*parameters, *taken, *RESERVED}
    for name in _author_attributes(there, owners):
        if absent in name and name not in used:
            return name
    free = is_variable(absent) and absent not in parameters
    return absent if free else f"has_{absent}"


def _condition(
    there: tuple[bool, ...],
    parameters: dict[str, tuple[Any, ...]],
    defaults: dict[str, Any],
) -> tuple[str, Any] | None:
    """The difference of widths, or from a default, with which a child comes and goes."""
    given = {
        name: tuple(defaults[name] if v is None else v for v in vector)
        for name, vector in parameters.items()
    }
    pairs = [("in_channels", "out_channels"), ("input_dims", "output_dims")]
    for a, b in pairs:
        if a in given and b in given:
            differ = [x != y for x, y in zip(given[a], given[b], strict=True)]
            if tuple(differ) == there:
                return a, Ref(b)
    for name in ("stride",):
        if (
            name in defaults
            and tuple(v != defaults[name] for v in given[name]) == there
        ):
            return name, defaults[name]
    return None


def _vectors(members: list[_Member]) -> list[tuple[Any, ...]]:
    """For each hole of the class, its value in every member; None where the member lacks it."""
    rows = []
    holes = members[0].template.holes
    for member in members:
        values = iter(member.template.holes)
        row = []
        for hole in holes:
            lacks = hole.group.partition(".")[0] in member.absent and hole.group
            row.append(None if lacks else next(values).value)
        rows.append(row)
    return [tuple(row[i] for row in rows) for i in range(len(holes))]


def _same(a: Any, b: Any) -> bool:
    return type(a) is type(b) and (a == b or (a != a and b != b))


def _agree(vector: Iterable[Any], other: Iterable[Any]) -> bool:
    return all(
        a is None or b is None or _same(a, b)
        for a, b in zip(vector, other, strict=True)
    )


def _joined(vector: Iterable[Any], other: Iterable[Any]) -> tuple[Any, ...]:
    return tuple(b if a is None else a for a, b in zip(vector, other, strict=True))


def _parameter_name(
    vector: tuple[Any, ...],
    info: Any,
    owners: list[torch.nn.Module | None],
    taken: set[str],
) -> str:
    """The author's attribute with these values, else the layer's own argument."""
    path = re.sub(r"\W", "_", info.group)
    candidates = [
        *_author_attributes(vector, owners),
        info.hint,
        f"{path}_{info.hint}".strip("_"),
    ]
    numbered = (f"size{i}" for i in itertools.count(2))
    return next(
        name
        for name in itertools.chain(candidates, numbered)
        if is_variable(name) and name not in taken and name not in RESERVED
    )


def _author_attributes(
    vector: tuple[Any, ...], owners: list[torch.nn.Module | None]
) -> list[str]:
    first = owners[0]
    if first is None:
        return []
    names = [
        name
        for name, value in vars(first).items()
        if type(value) is type(vector[0])
        and not name.startswith("_")
        and name != "training"
    ]
    return [
        name
        for name in names
        if all(
            value is None or _same(getattr(owner, name, None), value)
            for owner, value in zip(owners, vector, strict=True)
        )
    ]


def _defaults(
    spec: ClassSpec, parameters: dict[str, tuple[Any, ...]]
) -> dict[str, Any]:
    """MLX's own default for parameters that mostly have it; the common value where some need none."""
    defaults: dict[str, Any] = {}
    for name, vector in parameters.items():
        if None in vector:
            known = Counter(v for v in vector if v is not None)
            defaults[name] = known.most_common(1)[0][0]
    for index, value in spec.values.items():
        if not isinstance(value, Ref) or value.name in defaults:
            continue
        default = spec.template.holes[index].default
        counts = Counter(v for v in parameters[value.name] if v is not None)
        common, count = counts.most_common(1)[0]
        if (
            default is not EMPTY
            and _same(default, common)
            and 2 * count >= counts.total()
        ):
            defaults[value.name] = default
    return defaults
