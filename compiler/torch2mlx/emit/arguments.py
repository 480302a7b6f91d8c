"""Numbers of the model's configuration, as `args` that constructors take instead of constants.

    nn.Linear(4096, 11008)      ->      nn.Linear(args.hidden_size, args.intermediate_size)

A number is bound where the twin, made with traced numbers, tells its expression, in every instance of a
class the same; every other number stays as it is.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import sympy

from torch2mlx.emit import origins
from torch2mlx.emit.bound import Bound, kept_by
from torch2mlx.emit.variants import replaced, variants
from torch2mlx.hyperparameters import Twin
from torch2mlx.hyperparameters.expressions import (
    Expression,
    Field,
    Operation,
    arguments_of,
    fields_of,
    value_of,
)
from torch2mlx.ir.names import RESERVED, is_variable
from torch2mlx.outline import Outlined
from torch2mlx.outline.classes import ClassSpec, Parameter, Ref
from torch2mlx.outline.operands import (
    HOISTED,
    Op,
    Segment,
    counted,
    flat,
    invokes,
    segments_below,
)
from torch2mlx.outline.template import Construct, Hole, root

NAME = "args"
FEWEST = 3  # numbers that are worth a dataclass
Path = tuple[str, ...]


@dataclass
class Arguments:
    """What a class does with `args`.

    Attributes:
        path: Which configuration it gets, in its first instance.
        types: The dataclasses that `args` may be.
        counts: Path of a list -> how many elements it has.
        children: Attribute path of an instance of a generated class -> which of `args` it gets, () for all.
        stored: Attribute -> the expression that it keeps.
        limits: Size of an input -> the attribute that keeps the largest that it may be.
    """

    path: Path
    types: list[str]
    counts: dict[str, Expression] = field(default_factory=dict)
    children: dict[str, Path] = field(default_factory=dict)
    stored: dict[str, Expression] = field(default_factory=dict)
    limits: dict[sympy.Symbol, str] = field(default_factory=dict)


@dataclass
class ArgsClass:
    """A dataclass of the generated file.

    Attributes:
        name: Its name.
        path: The configuration that it stands for.
        fields: Its numbers.
        children: Names of the configurations in it -> their dataclasses.
    """

    name: str
    path: Path
    fields: dict[str, int | float] = field(default_factory=dict)
    children: dict[str, str] = field(default_factory=dict)


def bind(
    outlined: Outlined,
    twin: Twin | None,
    lengths: Mapping[sympy.Symbol, tuple[str, int]] | None = None,
) -> list[ArgsClass]:
    """Make constants of the classes expressions over `args`.

    Args:
        outlined: The model as classes, changed in place.
        twin: The model with traced numbers, if there is one.
        lengths: Size of an input -> the buffer, and its axis, that it must not exceed.

    Returns:
        The dataclasses, those within others first; none where nothing was bound.
    """
    if twin is None or any(
        p.name == NAME for s in outlined.classes for p in s.parameters
    ):
        return []
    found = _Binding(outlined, twin, lengths or {})
    if not found.settle():
        return []
    return found.apply()


def config_of(classes: list[ArgsClass]) -> dict[str, Any]:
    """What config.json holds of the dataclasses."""
    made: dict[str, dict[str, Any]] = {}
    for cls in classes:
        inner = {name: made[kind] for name, kind in cls.children.items()}
        made[cls.name] = inner | cls.fields
    return made[classes[-1].name] if classes else {}


class _Binding:
    def __init__(
        self,
        outlined: Outlined,
        twin: Twin,
        lengths: Mapping[sympy.Symbol, tuple[str, int]],
    ):
        self.outlined = outlined
        self.lengths = lengths
        self.twin = twin
        self.instances = outlined.instances
        self.members: dict[int, list[Segment]] = {}
        self.segment_at: dict[str, Segment] = {}
        for segment in [*segments_below(outlined.model), outlined.model]:
            spec = self.instances.class_of[id(segment)]
            known = self.members.setdefault(id(spec), [])
            if all(other.path != segment.path for other in known):
                known.append(segment)
            known.sort(key=lambda s, spec=spec: s is not spec.template.segment)
            self.segment_at.setdefault(segment.path, segment)
        # By segment: hole, path of a list or size of an input -> its expression
        self.found: dict[int, dict[Any, Bound]] = {}
        self.given: dict[tuple[int, str], Expression] = {}
        self.paths: dict[int, Path] = {}
        self.needs: set[int] = set()

    # What every number is

    def settle(self) -> bool:
        """Find the expressions; whether they are worth it, and every class gets its `args`."""
        for spec in self.outlined.classes:
            for segment in self.members[id(spec)]:
                self.found[id(segment)] = dict(self._bound(spec, segment))
            self._note_parameters(spec)
        fields: set[Field] = set()
        for spec in self.outlined.classes:
            segments = self.members[id(spec)]
            for segment in segments:
                self.paths[id(segment)] = self._common(spec, segment)
            self._vary(spec, segments)
            self._keep_agreed(spec, segments)
            if not self._agree_on_children(spec, segments):
                return False
            for bound in self.found[id(segments[0])].values():
                fields |= {*fields_of(bound.expression)}
            below = self._children(spec, segments[0])
            if self.found[id(segments[0])] or any(
                p is not None for p in below.values()
            ):
                self.needs.add(id(spec))
        return len(fields) >= FEWEST and not self.paths[id(self.outlined.model)]

    def _bound(self, spec: ClassSpec, segment: Segment) -> Iterator[tuple[Any, Bound]]:
        template = spec.template
        for path, construct in template.attributes.items():
            where = f"{segment.path}.{path}".strip(".")
            for name, operand in construct.arguments.items():
                operands = operand if isinstance(operand, tuple) else (operand,)
                for axis, hole in enumerate(operands):
                    if isinstance(hole, Hole):
                        value = self._value(spec, segment, hole)
                        origin = self._origin(construct, where, name, axis, value)
                        if origin is not None and value_of(origin) == value:
                            yield hole.index, Bound(origin)
        is_single = len(self.members[id(spec)]) == 1
        stored: dict[str, Expression] = {}
        for item in flat(template.items):
            if isinstance(item, Op):
                made_in, _ = item.node.meta.get(HOISTED, (segment.path, None))
                attributes = self._kept(spec, made_in if is_single else segment.path)
                for hole, bound in self._in_call(spec, segment, item, attributes):
                    names = {name: e for e, name in bound.kept.items()}
                    if all(stored.get(n, e) == e for n, e in names.items()):
                        stored |= names
                        yield hole.index, bound
        fixed = counted(template.items)
        for path in _lists(template.attributes):
            if path in fixed:
                continue
            length = self.twin.length(f"{segment.path}.{path}".strip("."))
            if length is not None and not isinstance(length, int):
                yield path, Bound(length)
        if segment is self.outlined.model:
            yield from self._limits(spec)

    def _in_call(
        self,
        spec: ClassSpec,
        segment: Segment,
        item: Op,
        attributes: dict[str, Expression],
    ) -> Iterator[tuple[Hole, Bound]]:
        """The constants of one call in `__call__`."""
        template = spec.template.segment.path
        known: set[Hole] = set()
        for hole in origins.numbers(item):
            value = self._value(spec, segment, hole)
            origin = origins.of_number(
                self.twin, template, segment.path, item.node, value
            )
            bound = kept_by(origin, attributes, self._taken(spec))
            if bound is not None:
                known.add(hole)
                yield hole, bound
        for hole in origins.sizes_and_scales(item):
            found = origins.of_attribute(attributes, self._value(spec, segment, hole))
            if found is not None and hole not in known:
                yield hole, Bound(*found)

    def _limits(self, spec: ClassSpec) -> Iterator[tuple[Any, Bound]]:
        """The largest sizes of inputs, those that are fields of a configuration."""
        taken = {path.partition(".")[0] for path in spec.template.attributes}
        for symbol, (key, axis) in self.lengths.items():
            sizes = self.twin.shape(key)
            length = sizes[axis] if axis < len(sizes) else None
            if isinstance(length, Field) and length.name not in {*taken, *RESERVED}:
                yield symbol, Bound(length, length.name)

    def _value(self, spec: ClassSpec, segment: Segment, hole: Hole) -> Any:
        value = spec.value(hole)
        if isinstance(value, Ref):
            return self.instances.arguments[id(segment)].get(value.name)
        return value

    def _origin(
        self, construct: Construct, where: str, name: str, axis: int, value: Any
    ) -> Expression | None:
        """What a constructor's argument is."""
        if isinstance(construct.target, ClassSpec):
            child = self.segment_at.get(where)
            return None if child is None else self.given.get((id(child), name))
        if construct.target is None:
            return origins.of_size(self.twin, where, axis, value)
        return origins.of_argument(self.twin, where, name, axis, value)

    def _kept(self, spec: ClassSpec, path: str) -> dict[str, Expression]:
        """The attributes of a module that its forward may read."""
        taken = self._taken(spec)
        found = self.twin.attributes(path)
        return {n: e for n, e in found.items() if n not in taken and is_variable(n)}

    def _taken(self, spec: ClassSpec) -> set[str]:
        """Names that attributes with numbers cannot have."""
        taken = {path.partition(".")[0] for path in spec.template.attributes}
        return taken | {p.name for p in spec.parameters} | RESERVED

    def _note_parameters(self, spec: ClassSpec) -> None:
        """Which expression each instance is given for a parameter."""
        for segment in self.members[id(spec)]:
            for parameter in spec.parameters:
                known = [
                    self.found[id(segment)].get(index)
                    for index, value in spec.values.items()
                    if value == Ref(parameter.name)
                ]
                origins = {b.expression if b else None for b in known}
                if len(origins) == 1 and None not in origins:
                    (origin,) = origins
                    assert origin is not None
                    self.given[id(segment), parameter.name] = origin

    # Which configuration every instance gets

    def _children(self, spec: ClassSpec, segment: Segment) -> dict[str, Path | None]:
        """Attribute path of each generated child -> the configuration that it gets."""
        children: dict[str, Path | None] = {}
        for path, construct in spec.template.attributes.items():
            child = self.segment_at.get(f"{segment.path}.{path}".strip("."))
            if isinstance(construct.target, ClassSpec) and child is not None:
                needed = id(construct.target) in self.needs
                children[path] = self.paths[id(child)] if needed else None
        return children

    def _common(self, spec: ClassSpec, segment: Segment) -> Path:
        """The innermost configuration that has all that an instance and its children need."""
        paths = {
            f.path
            for bound in self.found[id(segment)].values()
            for f in fields_of(bound.expression)
        }
        paths |= {p for p in self._children(spec, segment).values() if p is not None}
        return _shared(sorted(paths))

    def _vary(self, spec: ClassSpec, segments: list[Segment]) -> None:
        """Let parents give the numbers that instances have from different fields."""
        found = [self.found[id(segment)] for segment in segments]
        keys = [k for k in found[0] if all(k in other for other in found)]
        vectors = {
            k: tuple((f[k].expression, f[k].attribute) for f in found) for k in keys
        }
        known = variants(vectors)
        taken = {p.name for p in spec.parameters} | {NAME}
        known = {f: n for f, n in known.items() if n not in taken}
        for fields, name in list(known.items()):
            at = {s.path: f for s, f in zip(segments, fields, strict=True)}
            if not self._give(spec, name, at):
                del known[fields]
        for key, vector in vectors.items():
            whole = replaced(tuple(e for e, _ in vector), known)
            if whole is None or whole == vector[0][0]:
                continue
            if any(other[key].parts for other in found):
                continue
            for other in found:
                other[key] = Bound(whole, other[key].attribute)
        for fields, name in known.items():
            spec.parameters.insert(0, Parameter(name, type(fields[0].value)))

    def _give(self, spec: ClassSpec, name: str, fields: dict[str, Field]) -> bool:
        """Whether every class that has instances of `spec` has one field for each; it then gives that."""
        given: list[tuple[Segment, tuple[str, str], Field]] = []
        for parent in self.outlined.classes:
            for path, construct in parent.template.attributes.items():
                if construct.target is not spec:
                    continue
                owners = self.members[id(parent)]
                places = [f"{s.path}.{path}".strip(".") for s in owners]
                own = [fields.get(place) for place in places]
                if own[0] is None or any(field != own[0] for field in own):
                    return False
                given += [(s, (path, name), own[0]) for s in owners]
        for owner, key, field_ in given:
            self.found[id(owner)][key] = Bound(field_)
        return bool(given)

    def _keep_agreed(self, spec: ClassSpec, segments: list[Segment]) -> None:
        """Drop what is not the same expression in all instances."""
        first, *others = (
            {k: _relative(b, self.paths[id(s)]) for k, b in self.found[id(s)].items()}
            for s in segments
        )
        lacks = [_lacking(spec, s) for s in segments[1:]]
        agreed = {
            key
            for key, bound in first.items()
            if all(
                other.get(key) == bound or key in lack
                for other, lack in zip(others, lacks, strict=True)
            )
        }
        for segment in segments:
            found = self.found[id(segment)]
            self.found[id(segment)] = {k: b for k, b in found.items() if k in agreed}

    def _agree_on_children(self, spec: ClassSpec, segments: list[Segment]) -> bool:
        ways = []
        for segment in segments:
            own = self.paths[id(segment)]
            given = self._children(spec, segment)
            ways.append({k: p and p[len(own) :] for k, p in given.items()})
        first, *others = ways
        return all(first.get(k) == path for way in others for k, path in way.items())

    # The classes

    def apply(self) -> list[ArgsClass]:
        """Bind the constants; the dataclasses that it takes."""
        used: dict[Path, set[str]] = {(): set()}
        for spec in self.outlined.classes:
            if id(spec) in self.needs:
                self._bind(spec)
                for segment in self.members[id(spec)]:
                    used.setdefault(self.paths[id(segment)], set())
                    for bound in self.found[id(segment)].values():
                        for f in fields_of(bound.expression):
                            used.setdefault(f.path, set()).add(f.name)
        classes = self._classes(used)
        names = {cls.path: cls.name for cls in classes}
        for spec in self.outlined.classes:
            if spec.arguments is not None:
                paths = (self.paths[id(s)] for s in self.members[id(spec)])
                spec.arguments.types = [*dict.fromkeys(names[path] for path in paths)]
        return classes

    def _bind(self, spec: ClassSpec) -> None:
        segment = self.members[id(spec)][0]
        path, found = self.paths[id(segment)], self.found[id(segment)]
        given = self._children(spec, segment)
        children = {k: p[len(path) :] for k, p in given.items() if p is not None}
        spec.arguments = Arguments(path, [], children=children)
        for key, bound in found.items():
            if isinstance(key, str):
                spec.arguments.counts[key] = bound.expression
                continue
            if isinstance(key, sympy.Symbol):
                spec.arguments.limits[key] = bound.attribute
            elif isinstance(key, tuple):  # of an instance of another class
                child, name = key
                spec.template.attributes[child].arguments[name] = bound
            else:
                spec.values[key] = bound
            for part, name in bound.kept.items():
                spec.arguments.stored[name] = part
        needed = {v.name for v in spec.values.values() if isinstance(v, Ref)}
        for parameter, other in spec.optional.values():
            needed |= {parameter, *([other.name] if isinstance(other, Ref) else [])}
        for bound in found.values():
            needed |= {a.name for a in arguments_of(bound.expression)}
        spec.parameters = [p for p in spec.parameters if p.name in needed]

    def _classes(self, used: dict[Path, set[str]]) -> list[ArgsClass]:
        for path in list(used):
            for i in range(len(path)):
                used.setdefault(path[:i], set())
        taken = Counter(spec.name for spec in self.outlined.classes)
        classes: dict[Path, ArgsClass] = {}
        for path in sorted(used, key=len, reverse=True):
            config = self.twin.configs[path]
            name = type(config).__name__ if path else "ModelArgs"
            while path and (name in taken or name == "ModelArgs"):
                name = f"{path[-1].title().replace('_', '')}{name}"
            taken[name] += 1
            cls = classes[path] = ArgsClass(name, path)
            for f in self.twin.fields():
                if f.path == path and f.name in used[path]:
                    cls.fields[f.name] = f.value
        for path, cls in classes.items():
            if path:
                classes[path[:-1]].children[path[-1]] = cls.name
        return list(classes.values())


def _lacking(spec: ClassSpec, segment: Segment) -> set[int]:
    """The holes of children that this instance of a class does not have."""
    called = {root(call) for item in segment.items for call in invokes(item)}
    called |= {path.partition(".")[0] for path in segment.adopted}
    return {
        hole.index
        for path, construct in spec.template.attributes.items()
        for hole in origins.holes(tuple(construct.arguments.values()))
        if path.partition(".")[0] in spec.optional.keys() - called
    }


def _shared(paths: list[Path]) -> Path:
    first, last = (paths[0], paths[-1]) if paths else ((), ())
    count = 0
    while count < min(len(first), len(last)) and first[count] == last[count]:
        count += 1
    return first[:count]


def _relative(bound: Bound, path: Path) -> Any:
    """A binding as it is written where `args` is the configuration at `path`."""

    def visit(e: Expression) -> Any:
        if isinstance(e, Field):
            return (*e.path[len(path) :], e.name)
        if isinstance(e, Operation):
            return e.operator, visit(e.left), visit(e.right)
        return e

    return visit(bound.expression), bound.attribute, [n for _, n in bound.parts]


def _lists(attributes: dict[str, Construct]) -> Iterator[str]:
    """Paths of the lists that attributes are in."""
    seen: dict[str, None] = {}
    for path in attributes:
        parts = path.split(".")
        for i, part in enumerate(parts):
            if part.isdigit() and i:
                seen.setdefault(".".join(parts[:i]))
    yield from seen
