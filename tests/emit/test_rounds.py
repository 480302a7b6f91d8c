"""What depends on the round of a loop: every expression is evaluated for every round."""

from __future__ import annotations

import ast
import itertools

import pytest

from torch2mlx.emit import progressions, rounds, syntax

I = syntax.name("i")


def value(node: ast.expr, **names: object) -> object:
    return eval(syntax.text(node), {}, names)


@pytest.mark.parametrize("count", range(2, 9))
def test_conditions(count: int) -> None:
    for size in range(1, count):
        for places in itertools.combinations(range(count), size):
            test = rounds.condition(I, list(places), count)
            found = [i for i in range(count) if value(test, i=i)]
            assert found == list(places)


@pytest.mark.parametrize(
    ("places", "count", "expected"),
    [
        ([0], 4, "i == 0"),
        ([0, 1], 4, "i < 2"),
        ([2, 3], 4, "i >= 2"),
        ([1, 3, 5], 6, "i % 2 == 1"),
        ([5, 11], 12, "i % 6 == 5"),
        ([0, 3], 4, "i in (0, 3)"),
    ],
)
def test_conditions_read_well(places: list[int], count: int, expected: str) -> None:
    assert syntax.text(rounds.condition(I, places, count)) == expected


@pytest.mark.parametrize("count", range(3, 8))
def test_choices(count: int) -> None:
    names = {"a": "a", "b": "b"}
    for chosen in itertools.product("ab", repeat=count):
        if len(set(chosen)) > 1:
            node = rounds.choice(I, [syntax.name(c) for c in chosen])
            assert [value(node, i=i, **names) for i in range(count)] == list(chosen)


@pytest.mark.parametrize("numbers", [[0, 1, 2], [3, 5, 7], [4, 2, 0, -2], [1, 2, 3]])
def test_numbers(numbers: list[int]) -> None:
    node = rounds.choice(I, [syntax.literal(n) for n in numbers])
    assert [value(node, i=i) for i in range(len(numbers))] == numbers


@pytest.mark.parametrize("size", range(2, 9))
def test_parts(size: int) -> None:
    xs = list(range(size))
    for start, stop in itertools.product(range(size), repeat=2):
        for step in (-3, -2, -1, 1, 2, 3):
            places = list(range(start, stop, step))
            if len(places) > 1:
                node = rounds.part(syntax.name("xs"), places, size)
                assert value(node, xs=xs) == places


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ("[xs[0], xs[1], xs[2]]", "xs[:3]"),
        ("[xs[2], xs[1], xs[0]]", "xs[2::-1]"),
        ("[xs[1], xs[0]]", "xs[1::-1]"),
        ("[xs[0], ys[1]]", "[xs[0], ys[1]]"),
        ("[xs[0], xs[2]]", "[xs[0], xs[2]]"),
        ("[xs[0]]", "[xs[0]]"),
        ("[x, xs[1]]", "[x, xs[1]]"),
    ],
)
def test_sequences(values: str, expected: str) -> None:
    node = ast.parse(values, mode="eval").body
    sizes = {"xs": 9, "ys": 9}
    assert syntax.text(rounds.sequence(node, sizes)) == expected


def test_whole_sequences() -> None:
    node = ast.parse("[xs[1], xs[0]]", mode="eval").body
    assert syntax.text(rounds.sequence(node, {"xs": 2})) == "xs[::-1]"
    node = ast.parse("[xs[0], xs[1]]", mode="eval").body
    assert syntax.text(rounds.sequence(node, {"xs": 2})) == "xs"


# Elements of lists


def parsed(*sources: str) -> list[ast.expr]:
    return [ast.parse(source, mode="eval").body for source in sources]


def test_progression() -> None:
    values = parsed(*(f"Layer({64 + 32 * i}, k=3, s={9 - i})" for i in range(5)))
    found = progressions.progression(values, "i")
    assert found is not None
    assert syntax.text(found) == "Layer(64 + 32 * i, k=3, s=9 - i)"


@pytest.mark.parametrize(
    "sources",
    [
        [f"Layer({n})" for n in (1, 2, 4, 8)],
        [f"Layer({n})" for n in (1, 2, 3)],
        ["Layer(1)", "Layer(2)", "Layer(3)", "Other(4)"],
        ["Layer(1)", "Layer(2)", "Layer(3)", "Layer(4, 5)"],
        [f"Layer({n}.5)" for n in range(4)],
        [f"[X(i) for i in range({n})]" for n in range(1, 5)],
        [f"Layer({n}, {n % 2 == 0})" for n in range(4)],
    ],
)
def test_no_progression(sources: list[str]) -> None:
    assert progressions.progression(parsed(*sources), "i") is None


def test_runs() -> None:
    values = parsed("A(1)", "A(1)", "B(0)", "B(2)", "B(4)", "B(6)", "A(2)")
    found = [(syntax.text(e), n) for e, n in progressions.runs(values, "i")]
    assert found == [("A(1)", 2), ("B(2 * i)", 4), ("A(2)", 1)]
