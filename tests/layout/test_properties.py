"""Every rule of the layout table, on arrays of any rank whose axes all have different sizes."""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Iterator
from typing import Any

import mlx.core as mx
import mlx.nn as nn
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.layout.rules import CAPTURED, Call, check_rule, node_of, numbers
from torch2mlx.ir import intrinsics
from torch2mlx.ir.layer import Layer
from torch2mlx.ir.regions import choose
from torch2mlx.layout.pointwise import POINTWISE, POINTWISE_LAYERS
from torch2mlx.layout.table import REDUCTIONS, RULES, SCANS, absorbed

Draw = Any
PROPERTY = settings(max_examples=25, deadline=None, derandomize=True, database=None)
SIZES = (2, 3, 4, 5, 6, 7)


@pytest.fixture(autouse=True, scope="module")
def uncompiled() -> Iterator[None]:
    """MLX's CPU backend compiles `nn.softmax` and its like for every shape."""
    mx.disable_compile()
    yield
    mx.enable_compile()


@st.composite
def shapes(draw: Draw, least: int = 3, most: int = 5) -> tuple[int, ...]:
    """Three to five different sizes."""
    ndim = draw(st.integers(least, most))
    return tuple(draw(st.permutations(SIZES))[:ndim])


@st.composite
def axes(draw: Draw, ndim: int) -> int:
    """An axis, counted from either end."""
    return draw(st.integers(-ndim, ndim - 1))


@st.composite
def several(draw: Draw, ndim: int) -> tuple[int, ...]:
    """Some axes in any order."""
    chosen = draw(st.permutations(range(ndim)))[: draw(st.integers(1, ndim))]
    return tuple(axis - ndim * draw(st.booleans()) for axis in chosen)


@st.composite
def reductions(draw: Draw, target: Any) -> Call:
    """All axes, one or some; by position or by name."""
    shape = draw(shapes())
    kinds = [st.none(), axes(len(shape))]
    if target not in (mx.argmax, mx.argmin):
        kinds.append(several(len(shape)))
    axis, keepdims = draw(st.one_of(kinds)), draw(st.booleans())
    x = numbers(shape)
    if draw(st.booleans()):
        return Call(target, (x, axis, keepdims))
    given = {} if axis is None else {"axis": axis}
    return Call(target, (x,), given | ({"keepdims": True} if keepdims else {}))


@st.composite
def scans(draw: Draw, target: Any) -> Call:
    """Along one axis."""
    shape = draw(shapes())
    return Call(target, (numbers(shape),), {"axis": draw(axes(len(shape)))})


@st.composite
def softmaxes(draw: Draw, target: Any) -> Call:
    """Along one axis or over several."""
    shape = draw(shapes())
    axis = draw(st.one_of(axes(len(shape)), several(len(shape))))
    return Call(target, (numbers(shape),), {"axis": axis})


@st.composite
def along_one(draw: Draw, target: Any) -> Call:
    """Along one axis, the last one by default."""
    shape = draw(shapes())
    axis = draw(axes(len(shape)))
    given = {} if axis == -1 else {"axis": axis}
    return Call(target, (numbers(shape),), given)


@st.composite
def halves(draw: Draw, target: Any) -> Call:
    """Along an axis of an even size."""
    shape = draw(shapes())
    even = [axis for axis, size in enumerate(shape) if size % 2 == 0]
    shape = shape if even else (*shape[:-1], 8)
    axis = draw(st.sampled_from(even or [len(shape) - 1]))
    return Call(target, (numbers(shape), axis))


@st.composite
def splits(draw: Draw, target: Any) -> Call:
    """At some places."""
    shape = draw(shapes())
    axis = draw(axes(len(shape)))
    places = sorted(draw(st.sets(st.integers(1, shape[axis] - 1), min_size=1)))
    return Call(target, (numbers(shape), places), {"axis": axis})


@st.composite
def repeats(draw: Draw, target: Any) -> Call:
    """Each element several times."""
    shape = draw(shapes())
    return Call(target, (numbers(shape), 3), {"axis": draw(axes(len(shape)))})


@st.composite
def takes(draw: Draw, target: Any) -> Call:
    """Some indices of an axis."""
    shape = draw(shapes())
    axis = draw(axes(len(shape)))
    found = draw(st.lists(st.integers(0, shape[axis] - 1), min_size=1, max_size=9))
    return Call(target, (numbers(shape), mx.array(found)), {"axis": axis})


@st.composite
def takes_along(draw: Draw, target: Any) -> Call:
    """Other indices everywhere."""
    shape = draw(shapes())
    axis = draw(axes(len(shape)))
    index = list(shape)
    index[axis] = draw(st.integers(1, 8))
    found = np.random.default_rng(0).integers(0, shape[axis], index)
    return Call(target, (numbers(shape), mx.array(found)), {"axis": axis})


@st.composite
def rolls(draw: Draw, target: Any) -> Call:
    """By one number or one for each axis."""
    shape = draw(shapes())
    if draw(st.booleans()):
        shift = draw(st.integers(-3, 3))
        return Call(target, (numbers(shape), shift), {"axis": draw(axes(len(shape)))})
    chosen = draw(several(len(shape)))
    shifts = tuple(draw(st.integers(-3, 3)) for _ in chosen)
    return Call(target, (numbers(shape), shifts, chosen))


@st.composite
def joins(draw: Draw, target: Any) -> Call:
    """Arrays that differ along the axis."""
    shape = draw(shapes())
    axis = draw(axes(len(shape)))
    other = list(shape)
    other[axis] += draw(st.integers(1, 3))
    return Call(target, ([numbers(shape), numbers(other, 1)],), {"axis": axis})


@st.composite
def stacks(draw: Draw, target: Any) -> Call:
    """A new axis anywhere."""
    shape = draw(shapes(2, 4))
    axis = draw(st.integers(-len(shape) - 1, len(shape)))
    return Call(target, ([numbers(shape), numbers(shape, 1)],), {"axis": axis})


@st.composite
def pads(draw: Draw, target: Any) -> Call:
    """Other widths at each axis."""
    shape = draw(shapes())
    widths = tuple((draw(st.integers(0, 2)), draw(st.integers(0, 2))) for _ in shape)
    given = draw(st.sampled_from([{}, {"constant_values": 2.0}, {"mode": "edge"}]))
    return Call(target, (numbers(shape), widths), given)


@st.composite
def tiles(draw: Draw, target: Any) -> Call:
    """Other numbers at each axis."""
    shape = draw(shapes())
    return Call(target, (numbers(shape), tuple(draw(st.integers(1, 3)) for _ in shape)))


@st.composite
def broadcasts(draw: Draw, target: Any) -> Call:
    """Along some axes."""
    shape = draw(shapes())
    source = [draw(st.sampled_from([1, size])) for size in shape]
    return Call(target, (numbers(source), shape))


@st.composite
def items(draw: Draw, target: Any) -> Call:
    """Slices, numbers, new axes and an ellipsis; or one of several arrays."""
    shape = draw(shapes())
    if draw(st.integers(0, 5)) == 0:
        return Call(target, ([numbers(shape), numbers(shape, 1)], 1))
    index: list[Any] = []
    for size in shape[: draw(st.integers(1, len(shape)))]:
        part = st.one_of(
            st.just(slice(None)),
            st.integers(-size, size - 1),
            st.builds(
                slice,
                st.integers(0, size - 1),
                st.just(None) | st.integers(-1, size).filter(bool),
                st.integers(1, 3),
            ).filter(lambda s, n=size: len(range(*s.indices(n))) > 0),
            st.just(slice(None, None, -1)),
        )
        index.append(draw(part))
    if draw(st.booleans()):
        index.insert(draw(st.integers(0, len(index))), None)
    if len(index) - index.count(None) < len(shape) and draw(st.booleans()):
        gap = len(shape) - (len(index) - index.count(None))
        place = draw(st.integers(0, len(index)))
        # The parts that come after the ellipsis are those of the last axes
        behind = [p for p in index[place:] if p is None or p == slice(None)]
        index = [*index[:place], Ellipsis, *behind] if gap else index
    key = tuple(index) if len(index) > 1 or draw(st.booleans()) else index[0]
    return Call(target, (numbers(shape), key))


@st.composite
def stores(draw: Draw, target: Any) -> Call:
    """A new value for all of an input."""
    shape = draw(shapes())
    return Call(target, (numbers(shape), None, numbers(shape, 1)))


@st.composite
def choices(draw: Draw, target: Any) -> Call:
    """One of two arrays."""
    shape = draw(shapes())
    condition = mx.array(draw(st.booleans()))
    return Call(target, (condition, numbers(shape), numbers(shape, 1)))


@st.composite
def regrouped(draw: Draw, shape: tuple[int, ...]) -> tuple[int, ...]:
    """Some axes divided, neighbours merged, and axes of size 1 put in."""
    sizes: list[int] = []
    for size in shape:
        inner = draw(st.sampled_from([d for d in range(1, size + 1) if size % d == 0]))
        sizes += [size // inner, inner] if 1 < inner < size else [size]
    result: list[int] = []
    for size in sizes:
        if result and draw(st.integers(0, 4)) == 0:
            result[-1] *= size
        else:
            result.append(size)
    if draw(st.integers(0, 3)) == 0:
        result.insert(draw(st.integers(0, len(result))), 1)
    return tuple(result)


@st.composite
def reshapes(draw: Draw, target: Any) -> Call:
    """Any regrouping of the axes."""
    shape = draw(shapes(2))
    return Call(target, (numbers(shape), draw(regrouped(shape))))


@st.composite
def flattens(draw: Draw, target: Any) -> Call:
    """Neighbouring axes merged."""
    shape = draw(shapes())
    start = draw(st.sampled_from([0, 1, len(shape) - 2, len(shape) - 2]))
    end = draw(st.integers(start + 1, len(shape) - 1))
    return Call(target, (numbers(shape), start, end))


@st.composite
def unflattens(draw: Draw, target: Any) -> Call:
    """An axis divided."""
    shape = list(draw(shapes(2, 4)))
    axis = draw(st.integers(0, len(shape) - 1))
    parts = draw(st.sampled_from([(8, 9), (9, 1, 8), (1, 11)]))
    shape[axis] = math.prod(parts)
    return Call(target, (numbers(shape), axis, parts))


@st.composite
def squeezes(draw: Draw, target: Any) -> Call:
    """Some axes of size 1 dropped, while others stay."""
    shape = list(draw(shapes()))
    ones = draw(st.sets(st.integers(0, len(shape) - 1), min_size=1, max_size=3))
    for axis in ones:
        shape[axis] = 1
    if draw(st.booleans()):
        return Call(target, (numbers(shape),))
    dropped = sorted(draw(st.sets(st.sampled_from(sorted(ones)), min_size=1)))
    axis = dropped[0] if len(dropped) == 1 else tuple(dropped)
    return Call(target, (numbers(shape), axis))


@st.composite
def norms(draw: Draw, target: Any) -> Call:
    """Along one axis."""
    shape = draw(shapes())
    given = {"axis": draw(axes(len(shape))), "keepdims": draw(st.booleans())}
    order = draw(st.sampled_from([{}, {"ord": 1}, {"ord": float("inf")}]))
    return Call(target, (numbers(shape),), {**order, **given})


@st.composite
def creations(draw: Draw, target: Any) -> Call:
    """Of any shape."""
    number = (2.5,) if target is mx.full else ()
    return Call(target, (draw(shapes()), *number))


CALLS: dict[Any, Callable[[Any], st.SearchStrategy[Call]]] = {
    **{getattr(mx, name): reductions for name in REDUCTIONS.split()},
    mx.argmax: reductions,
    mx.argmin: reductions,
    **{getattr(mx, name): scans for name in SCANS.split()},
    mx.linalg.norm: norms,
    mx.full: creations,
    mx.ones: creations,
    mx.zeros: creations,
    mx.softmax: softmaxes,
    mx.sort: along_one,
    mx.argsort: along_one,
    nn.softmax: along_one,
    nn.log_softmax: along_one,
    nn.glu: halves,
    mx.split: splits,
    mx.repeat: repeats,
    mx.take: takes,
    mx.take_along_axis: takes_along,
    mx.roll: rolls,
    mx.concatenate: joins,
    mx.stack: stacks,
    mx.pad: pads,
    mx.tile: tiles,
    mx.broadcast_to: broadcasts,
    operator.getitem: items,
    intrinsics.store: stores,
    choose: choices,
    mx.reshape: reshapes,
    mx.flatten: flattens,
    mx.unflatten: unflattens,
    mx.squeeze: squeezes,
}


@pytest.mark.parametrize("target", CALLS, ids=lambda t: t.__name__)
def test_rule(target: Any) -> None:
    """What the rule gives for channels-last operands is the same array, in the order that it says."""
    hits = 0

    @PROPERTY
    @given(CALLS[target](target))
    def same(call: Call) -> None:
        nonlocal hits
        hits += check_rule(call)

    same()
    assert hits > 4


DIVIDED = [mx.mean, mx.cumsum, mx.softmax, mx.roll, mx.concatenate, mx.pad, mx.add]


@pytest.mark.parametrize("target", DIVIDED, ids=lambda t: t.__name__)
def test_other_orders(target: Any) -> None:
    """The same for arrays whose axes come in yet another order, such as divided channels."""
    hits = 0

    @PROPERTY
    @given(st.data())
    def same(data: Any) -> None:
        nonlocal hits
        shape = data.draw(shapes(4))
        call = Call(mx.add, (numbers(shape), numbers(shape, 1)))
        call = call if target is mx.add else data.draw(CALLS[target](target))
        ndim = mx.array(
            call.args[0][0] if target is mx.concatenate else call.args[0]
        ).ndim
        order = tuple(data.draw(st.permutations(range(ndim))))
        hits += check_rule(call, order=order)

    same()
    assert hits > 4


@pytest.mark.parametrize("target", sorted(POINTWISE, key=lambda t: t.__name__))
def test_pointwise(target: Any) -> None:
    """It is pointwise: any order of the axes, also where operands broadcast."""
    rng = np.random.default_rng(0)
    for shape in ((2, 3, 5), (4, 2, 3, 5), (2, 5, 3, 7, 4)):
        call = pointwise(target, shape, rng)
        assert check_rule(call)


def pointwise(target: Any, shape: tuple[int, ...], rng: Any) -> Call:
    """A call with as many operands as the function takes, of a dtype that it takes."""
    if target is intrinsics.astype:
        return Call(target, (numbers(shape), mx.float16))
    for count in (1, 2, 3):
        for kind in ("float32", "int32", "bool_"):
            operands = []
            for i in range(count):
                ones = [1 if i and rng.integers(2) else size for size in shape]
                dtype = mx.bool_ if target is mx.where and not i else getattr(mx, kind)
                operands.append(numbers(ones, i).astype(dtype))
            try:
                mx.eval(target(*operands))
            except (TypeError, ValueError, RuntimeError):
                continue
            return Call(target, tuple(operands))
    raise AssertionError(f"{target} takes none of these operands")


@PROPERTY
@given(shapes(), st.data())
def test_weights_of_lower_rank(shape: tuple[int, ...], data: Any) -> None:
    """A parameter that broadcasts from the right comes in a shape that fits, in the file."""
    own = shape[data.draw(st.integers(1, len(shape) - 1)) :]
    own = tuple(data.draw(st.sampled_from([1, size])) for size in own)
    call = Call(mx.add, (numbers(shape), numbers(own, 1)))
    assert check_rule(call, parameters={1})


@PROPERTY
@given(shapes(), st.data())
def test_constants(shape: tuple[int, ...], data: Any) -> None:
    """Numbers and arrays without axes have no order."""
    number = data.draw(st.sampled_from([2.0, mx.array(3.0)]))
    flip = data.draw(st.booleans())
    operands = (numbers(shape), number)
    assert check_rule(Call(mx.multiply, operands[::-1] if flip else operands))


@PROPERTY
@given(shapes())
def test_dropout(shape: tuple[int, ...]) -> None:
    """A layer that is its operand in evaluation."""
    node = node_of(Call(mx.tanh, (numbers(shape),)))
    node.op, node.target = "call_module", "dropout"
    node.meta["layer"] = Layer(nn.Dropout, (0.5,))
    rule = absorbed(node, CAPTURED)
    assert rule is not None
    assert (rule.operands, rule.result) == (node.all_input_nodes, True)
    assert (rule.target, rule.args) == ("dropout", node.args)


def test_every_rule_is_tested() -> None:
    assert {*CALLS, *POINTWISE} == RULES.keys()
    assert {nn.Dropout} == POINTWISE_LAYERS
