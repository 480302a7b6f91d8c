"""Rotary embeddings that are written out become the operator, or a compact form."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from tests.aten import ops
from tests.lowering import run_lowered
from tests.passes.fused import decisions, fused
from torch2mlx.capture import Captured
from torch2mlx.passes.fuse.rope import base_of
from torch2mlx.passes.rewrite import arguments

D = 8


def halves(x: Any, cos: Any, sin: Any) -> Any:
    x1, x2 = x[..., : x.shape[-1] // 2], x[..., x.shape[-1] // 2 :]
    return x * cos + torch.cat((-x2, x1), dim=-1) * sin


def chunks(x: Any, cos: Any, sin: Any) -> Any:
    x1, x2 = x.chunk(2, dim=-1)
    return torch.cat((-x2, x1), dim=-1) * sin + x * cos


def pairs(x: Any, cos: Any, sin: Any) -> Any:
    turned = torch.stack((-x[..., 1::2], x[..., ::2]), dim=-1).flatten(-2)
    return x * cos + turned * sin


def parts(x: Any, cos: Any, sin: Any) -> Any:
    x1, x2 = x.chunk(2, dim=-1)
    return torch.cat((x1 * cos - x2 * sin, x2 * cos + x1 * sin), dim=-1)


def doubled(angles: Any) -> Any:
    return torch.cat((angles, angles), dim=-1)


def interleaved(angles: Any) -> Any:
    return angles.repeat_interleave(2, dim=-1)


def stacked(angles: Any) -> Any:
    return torch.stack((angles, angles), dim=-1).reshape(*angles.shape[:-1], -1)


class Rotary(torch.nn.Module):
    """Rotates [B, H, T, D]; `spread` makes the angles of all channels of those of half of them."""

    def __init__(
        self,
        rotate: Callable[..., Any] = halves,
        spread: Callable[[Any], Any] = doubled,
        base: float = 10000.0,
        offset: int = 0,
        factor: float = 1.0,
        axis: int = 2,
        dims: int = D,
        persistent: bool = False,
        **others: float,
    ):
        super().__init__()
        inverse = 1.0 / (base ** (torch.arange(0, dims, 2).float() / dims))
        inverse = inverse * others.get("scale", 1.0) + others.get("shift", 0.0)
        self.register_buffer("inv_freq", inverse, persistent=persistent)
        self.rotate, self.spread, self.dims = rotate, spread, dims
        self.offset, self.factor, self.axis = offset, factor, axis

    def tables(self, x: Any, positions: Any) -> tuple[Any, Any]:
        angles = self.spread(positions[:, None].float() * self.inv_freq)
        cos, sin = (angles.cos() * self.factor, angles.sin() * self.factor)
        if self.axis == 1:
            cos, sin = cos[:, None], sin[:, None]
        return cos.to(x.dtype), sin.to(x.dtype)

    def forward(self, x: Any) -> Any:
        positions = torch.arange(x.shape[self.axis]) + self.offset
        cos, sin = self.tables(x, positions)
        if self.dims == x.shape[-1]:
            return self.rotate(x, cos, sin)
        rotated = self.rotate(x[..., : self.dims], cos, sin)
        return torch.cat((rotated, x[..., self.dims :]), dim=-1)


X, OTHER = torch.randn(2, 3, 5, D), torch.randn(1, 2, 9, D)


def rope(captured: Captured) -> dict[str, Any]:
    """The arguments of the only rotation."""
    (node,) = (n for n in captured.graph.nodes if n.name.startswith("rope"))
    return arguments(node)


FORMS: dict[str, tuple[Callable[..., Any], Callable[..., Any]]] = {
    "halves": (halves, doubled),
    "chunks": (chunks, doubled),
    "parts": (parts, lambda angles: angles),
    "pairs": (pairs, interleaved),
    "stacked": (pairs, stacked),
}


@pytest.mark.parametrize("form", FORMS)
def test_forms(form: str) -> None:
    model = Rotary(*FORMS[form])
    captured = fused("rope", model, (X,), (OTHER,), tolerance=1e-5)
    assert ops(captured) == {"rope": 1}
    given = rope(captured)
    traditional = FORMS[form][0] is pairs
    assert (given["traditional"], given["base"]) == (traditional, 10000.0)
    assert (given["scale"], given["offset"], given["freqs"]) == (1.0, 0, None)
    assert [kind for kind, _ in decisions(captured, "rope")] == ["fused"]
    run_lowered(model, (X,), (OTHER,))


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"base": 500000.0}, {"base": 500000.0}),
        ({"offset": 3}, {"offset": 3}),
        ({"scale": 0.25}, {"scale": 0.25}),
        ({"shift": 0.1}, {"base": None}),
        ({"axis": 1}, {"base": 10000.0}),
        ({"factor": 1.5}, {"base": 10000.0}),
    ],
)
def test_numbers(options: dict[str, Any], expected: dict[str, Any]) -> None:
    model = Rotary(**options)
    captured = fused("rope", model, (X,), (OTHER,), tolerance=1e-5)
    given = rope(captured)
    assert {name: given[name] for name in expected} == expected
    assert ops(captured)["cos"] == 0
    run_lowered(model, (X,), (OTHER,))


@pytest.mark.parametrize("axis", [1, 2])
@pytest.mark.parametrize("rotate", [halves, pairs])
def test_partial(axis: int, rotate: Callable[..., Any]) -> None:
    spread = doubled if rotate is halves else interleaved
    model = Rotary(rotate, spread, dims=4, axis=axis)
    captured = run_passes(model)
    assert ops(captured)["rope"] == 1
    assert ops(captured)["cat"] == 0
    assert rope(captured)["dims"] == 4
    run_lowered(model, (X,), (OTHER,))


def run_passes(model: torch.nn.Module) -> Captured:
    from tests.aten import check
    from torch2mlx import passes

    def everything(captured: Captured) -> bool:
        return bool(passes.run(captured))

    return check([everything], model, (X,), (OTHER,), tolerance=1e-5)


def test_a_part_that_is_not_the_first() -> None:
    class Late(Rotary):
        def forward(self, x: Any) -> Any:
            cos, sin = self.tables(x, torch.arange(x.shape[2]))
            return torch.cat((x[..., :4], self.rotate(x[..., 4:], cos, sin)), dim=-1)

    captured = run_passes(Late(dims=4))
    assert (ops(captured)["rope"], ops(captured)["cat"]) == (1, 1)
    run_lowered(Late(dims=4), (X,))


class Tabled(torch.nn.Module):
    """Reads sines and cosines from a table by position, as GPT-J does."""

    def __init__(self, error: float = 0.0):
        super().__init__()
        steps = torch.arange(0, D, 2).float() / D
        angles = torch.arange(32).float()[:, None] / 10000**steps
        table = torch.cat((angles.sin(), angles.cos()), dim=-1)
        table[7, 5] += error
        self.register_buffer("table", table, persistent=False)

    def forward(self, x: Any) -> Any:
        rows = self.table[torch.arange(x.shape[2])]
        sin, cos = torch.split(rows, D // 2, dim=-1)
        return pairs(x, interleaved(cos), interleaved(sin))


def test_tables() -> None:
    captured = fused("rope", Tabled(), (X,), (OTHER,), tolerance=1e-5)
    assert ops(captured) == {"rope": 1}
    run_lowered(Tabled(), (X,), (OTHER,))


def test_another_table_stays() -> None:
    captured = fused("rope", Tabled(error=1e-3), (X,), tolerance=1e-6)
    assert ops(captured)["rotate"] == 1
    run_lowered(Tabled(error=1e-3), (X,))


class Given(Rotary):
    """Positions are an input."""

    def forward(self, x: Any, positions: Any) -> Any:  # type: ignore[override]
        return self.rotate(x, *self.tables(x, positions))


@pytest.mark.parametrize("form", ["halves", "pairs"])
def test_positions_that_are_given(form: str) -> None:
    model = Given(*FORMS[form])
    args = (X, torch.tensor([3, 1, 4, 1, 5]))
    captured = fused("rope", model, args)
    assert ops(captured)["rotate"] == 1
    run_lowered(model, args)


def test_frequencies_of_a_checkpoint() -> None:
    captured = fused("rope", Rotary(persistent=True), (X,))
    assert ops(captured)["rotate"] == 1


NEAR: dict[str, Callable[..., Any]] = {
    "sign": lambda x, c, s: x * c + torch.cat((x[..., 4:], -x[..., :4]), -1) * s,
    "order": lambda x, c, s: x * c + torch.cat((x[..., :4], -x[..., 4:]), -1) * s,
    "thirds": lambda x, c, s: x * c + torch.cat((-x[..., 5:], x[..., :5]), -1) * s,
    "difference": lambda x, c, s: x * c - torch.cat((-x[..., 4:], x[..., :4]), -1) * s,
    "others": lambda x, c, s: x.abs() * c
    + torch.cat((-x[..., 4:], x[..., :4]), -1) * s,
}


@pytest.mark.parametrize("near", NEAR)
def test_near_misses(near: str) -> None:
    captured = fused("rope", Rotary(NEAR[near]), (X,), tolerance=0.0)
    assert not ops(captured)["rope"] and not ops(captured)["rotate"]


TABLES: dict[str, Callable[..., Any]] = {
    "sine first": lambda x, c, s: halves(x, s, c),
    "twice": lambda x, c, s: halves(x, c * c, s),
    "two speeds": lambda x, c, s: halves(
        x, c, (2 * torch.arange(5)[:, None]).sin() + s * 0
    ),
}


@pytest.mark.parametrize("name", TABLES)
def test_what_is_no_rotation_keeps_its_tables(name: str) -> None:
    captured = fused("rope", Rotary(TABLES[name]), (X,), tolerance=1e-6, dynamic=False)
    assert not ops(captured)["rope"]


def test_interleaved_angles_of_halves() -> None:
    """Channels that turn together have different angles: no rotation of pairs or halves."""
    captured = fused("rope", Rotary(halves, interleaved), (X,), tolerance=1e-6)
    assert ops(captured)["rotate"] == 1


def test_half_precision() -> None:
    x = X.to(torch.bfloat16)
    model = Rotary()
    captured = fused("rope", model, (x,), tolerance=5e-2)
    assert ops(captured) == {"rope": 1}
    run_lowered(model, (x,), tolerance=5e-2)


def test_base_of() -> None:
    steps = torch.arange(4, dtype=torch.float64) / 4
    assert base_of(500.0**-steps) == (500.0, 1.0)
    assert base_of(0.5 * 500.0**-steps) == (500.0, 0.5)
    assert base_of((500.0**-steps).flip(0)) is None
    assert base_of(500.0**-steps + 0.01) is None
