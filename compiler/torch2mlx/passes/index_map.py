"""Rearrangements as maps between axes: every view and permute of an array is one `IndexMap`.

Axes are lists of *atoms*, outermost first. A view regroups the atoms (and splits some), a permute reorders
the axes. Sizes may be symbolic; a view whose grouping is not certain for all sizes has no map.
"""

from __future__ import annotations

import functools
import itertools
from dataclasses import dataclass
from typing import Any

import sympy

Shape = tuple[sympy.Expr, ...]
Axes = tuple[tuple[int, ...], ...]
ONE = sympy.Integer(1)


@functools.cache
def quotient(size: sympy.Expr, divisor: sympy.Expr) -> sympy.Expr | None:
    """`size / divisor` where that is a whole number for all values of the symbols, else None."""
    if size == divisor:
        return ONE
    if divisor == 0:
        return None
    ratio = sympy.cancel(size / divisor)
    return ratio if sympy.fraction(ratio)[1] == 1 else None


@dataclass(frozen=True)
class Step:
    """One node of a normal form: a view to a shape, or a permute of the axes."""

    shape: Shape | None = None
    order: tuple[int, ...] | None = None


@dataclass(frozen=True)
class Selected:
    """One index of an axis of a rearranged array, as a part of the array itself.

    Attributes:
        axis: The axis of the array.
        number: In how many chunks the axis comes.
        whole: Whether the chunks have size 1; the part lacks the axis then.
        rest: The map from the part to the result.
    """

    axis: int
    number: int
    whole: bool
    rest: IndexMap


@dataclass(frozen=True)
class IndexMap:
    """An array's elements in another shape.

    Attributes:
        source: The atoms of each axis of the array; an axis of size 1 has none.
        target: The same atoms as the axes of the result.
        sizes: Size of each atom.
    """

    source: Axes
    target: Axes
    sizes: dict[int, sympy.Expr]

    @classmethod
    def identity(cls, shape: Shape) -> IndexMap:
        """The map that leaves an array of this shape as it is."""
        axes = tuple((i,) if size != 1 else () for i, size in enumerate(shape))
        return cls(axes, axes, {i: size for i, size in enumerate(shape) if size != 1})

    @property
    def source_shape(self) -> Shape:
        """The array's shape."""
        return self.shape(self.source)

    @property
    def target_shape(self) -> Shape:
        """The result's shape."""
        return self.shape(self.target)

    def shape(self, axes: Axes) -> Shape:
        """The sizes of axes given as atoms."""
        return tuple(sympy.Mul(*(self.sizes[a] for a in axis)) for axis in axes)

    @property
    def is_identity(self) -> bool:
        """Whether the result is the array itself."""
        return not self.steps()

    def permuted(self, order: tuple[int, ...]) -> IndexMap:
        """This map followed by a permute."""
        return self._with(self.source, tuple(self.target[axis] for axis in order))

    def reshaped(self, shape: Shape) -> IndexMap | None:
        """This map followed by a view, or None where the new axes do not fall on whole factors."""
        rest = [atom for axis in self.target for atom in axis]
        sizes, parts = dict(self.sizes), dict[int, tuple[int, int]]()
        target = []
        for size in shape:
            axis: list[int] = []
            while size != 1:
                if not rest:
                    return None
                atom = rest.pop(0)
                if (more := quotient(size, sizes[atom])) is not None:
                    size = more
                elif (inner := quotient(sizes[atom], size)) is not None:
                    fresh = max(sizes) + 1
                    sizes[fresh], sizes[fresh + 1] = size, inner
                    parts[atom] = (fresh, fresh + 1)
                    rest.insert(0, fresh + 1)
                    atom, size = fresh, ONE
                else:
                    return None
                axis.append(atom)
            target.append(tuple(axis))
        if rest:
            return None
        return IndexMap(_refined(self.source, parts), tuple(target), sizes).joined()

    def then(self, other: IndexMap) -> IndexMap | None:
        """This map followed by another one, of this one's result."""
        result: IndexMap | None = self
        for step in other.steps():
            if result is None:
                return None
            if step.shape is not None:
                result = result.reshaped(step.shape)
            else:
                result = result.permuted(step.order or ())
        return result

    def selected(self, axis: int) -> Selected | None:
        """One index of an axis of the result, where that is a chunk of one axis of the array."""
        if len(self.target[axis]) != 1:
            return None
        (atom,) = self.target[axis]
        along = next(i for i, atoms in enumerate(self.source) if atom in atoms)
        atoms, size = self.source[along], self.sizes[atom]
        if atoms[0] != atom or not size.is_Integer:
            return None
        whole = len(atoms) == 1
        kept = () if whole else (atoms[1:],)
        source = (*self.source[:along], *kept, *self.source[along + 1 :])
        target = (*self.target[:axis], *self.target[axis + 1 :])
        sizes = {a: s for a, s in self.sizes.items() if a != atom}
        rest = IndexMap(source, target, sizes).joined()
        return Selected(along, int(size), whole, rest)

    def resized(self, axis: int, size: sympy.Expr) -> tuple[int, IndexMap] | None:
        """The map where an axis of the result that is an axis of the array has another size.

        Returns:
            The array's axis, and the map.
        """
        atoms = self.target[axis]
        if len(atoms) != 1 or atoms not in self.source:
            return None
        along = self.source.index(atoms)
        if size != 1:
            return along, IndexMap(
                self.source, self.target, {**self.sizes, atoms[0]: size}
            )
        source = (*self.source[:along], (), *self.source[along + 1 :])
        target = (*self.target[:axis], (), *self.target[axis + 1 :])
        rest = {a: s for a, s in self.sizes.items() if a != atoms[0]}
        return along, IndexMap(source, target, rest)

    def steps(self) -> list[Step]:
        """The normal form: at most a view that splits axes, a permute and a view that merges axes."""
        if _flat(self.source) == _flat(self.target):
            same = self.source_shape == self.target_shape
            return [] if same else [Step(shape=self.target_shape)]
        # New axes come last, dropped ones go where there is a view anyway.
        new = sum(not axis for axis in self.target) >= sum(
            not axis for axis in self.source
        )
        return min((self._steps(late) for late in {new, True}), key=len)

    def _steps(self, late: bool) -> list[Step]:
        """The normal form of a map that permutes.

        Axes of size 1 that both sides have are permuted like the others. The rest of them come or go
        in the last view if `late`, else in the first.
        """
        source, target = (
            [list(axis) for axis in axes] for axes in (self.source, self.target)
        )
        empty = [[axis for axis in axes if not axis] for axes in (source, target)]
        names = itertools.count(-1, -1)
        for axis, other in zip(*empty, strict=False):
            name = next(names)
            axis.append(name)
            other.append(name)
        before, after = _flat(source), _flat(target)
        if late and len(empty[0]) > len(empty[1]):
            before = [atom for axis in source for atom in (axis or [next(names)])]
            after += [atom for atom in before if atom not in after]
        sizes = {atom: self.sizes.get(atom, ONE) for atom in before}
        split, permuted = (
            tuple(sizes[atom] for atom in atoms) for atoms in (before, after)
        )
        steps = [Step(shape=split)] if split != self.source_shape else []
        if before != after:
            steps.append(Step(order=tuple(before.index(atom) for atom in after)))
        if permuted != self.target_shape:
            steps.append(Step(shape=self.target_shape))
        return steps

    def _with(self, source: Axes, target: Axes) -> IndexMap:
        return IndexMap(source, target, self.sizes).joined()

    def joined(self) -> IndexMap:
        """Atoms that stay side by side in one axis become one atom."""
        following = {a: b for axis in self.target for a, b in itertools.pairwise(axis)}
        sizes = dict(self.sizes)
        gone: set[int] = set()
        for axis in self.source:
            for outer, inner in reversed(list(itertools.pairwise(axis))):
                if following.get(outer) == inner:
                    sizes[outer] *= sizes[inner]
                    gone.add(inner)
        source, target = (
            tuple(tuple(a for a in axis if a not in gone) for axis in axes)
            for axes in (self.source, self.target)
        )
        kept = {a: sizes[a] for axis in source for a in axis}
        return IndexMap(source, target, kept)


def _flat(axes: Any) -> list[int]:
    return [atom for axis in axes for atom in axis]


def _refined(axes: Axes, parts: dict[int, tuple[int, int]]) -> Axes:
    def expand(atom: int) -> tuple[int, ...]:
        if atom not in parts:
            return (atom,)
        outer, inner = parts[atom]
        return (outer, *expand(inner))

    return tuple(tuple(a for atom in axis for a in expand(atom)) for axis in axes)
