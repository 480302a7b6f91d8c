"""Code that repeats becomes a loop, where it provably is one: compiled, run, compared, and read."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from tests.program import check

X = torch.randn(2, 8, generator=torch.Generator().manual_seed(0))
Y = torch.randn(3, 8, generator=torch.Generator().manual_seed(1))


class MLP(nn.Module):
    def __init__(self, hidden: int = 12):
        super().__init__()
        self.fc1 = nn.Linear(8, hidden)
        self.fc2 = nn.Linear(hidden, 8)

    def forward(self, x: Any) -> Any:
        return self.fc2(torch.relu(self.fc1(x)))


class Masked(nn.Module):
    def __init__(self):
        super().__init__()
        self.mlp = MLP()

    def forward(self, x: Any, mask: Any) -> Any:
        return self.mlp(x) * mask


class Blocks(nn.Module):
    """Lists of blocks, and a `forward` that is given."""

    def __init__(self, forward: Any, count: int = 4):
        super().__init__()
        self.blocks = nn.ModuleList([MLP() for _ in range(count)])
        self.others = nn.ModuleList([MLP(6) for _ in range(count)])
        self.masked = nn.ModuleList([Masked() for _ in range(count)])
        self.pairs = nn.ModuleList(
            [
                nn.ModuleList([MLP(), nn.Sequential(nn.Linear(8, 8), nn.Tanh())])
                for _ in range(count)
            ]
        )
        self.scales = nn.ParameterList([torch.randn(8) for _ in range(count)])
        self.norm = nn.LayerNorm(8)
        self.function = forward

    def forward(self, x: Any) -> Any:
        return self.function(self, x)


def code(forward: Any, count: int = 4) -> str:
    """The body of `Blocks.__call__`."""
    source = check(Blocks(forward, count), (X,), (Y,), tolerance=1e-4).source
    body = source.partition("class Blocks")[2].partition("__call__")[2]
    return body.partition(":\n")[2].partition("\n\n\n")[0].partition("\n\n    def")[0]


def test_several_statements() -> None:
    def forward(self: Any, x: Any) -> Any:
        for block in self.blocks:
            x = self.norm(block(x) + x)
        return x

    assert code(forward) == (
        "        for layer in self.blocks:\n"
        "            x = self.norm(layer(x) + x)\n"
        "        return x"
    )


def test_lists_in_parallel() -> None:
    def forward(self: Any, x: Any) -> Any:
        for block, other, scale in zip(
            self.blocks, self.others, self.scales, strict=True
        ):
            x = x + block(self.norm(x))
            x = x + scale * other(x)
        return x

    assert code(forward) == (
        "        for block, other, scale in zip(\n"
        "            self.blocks, self.others, self.scales, strict=True\n"
        "        ):\n"
        "            x = x + block(self.norm(x))\n"
        "            x = x + scale * other(x)\n"
        "        return x"
    )


def test_lists_of_lists() -> None:
    def forward(self: Any, x: Any) -> Any:
        for first, second in self.pairs:
            x = first(x) + x
            x = second(x) + x
        return x

    assert code(forward) == (
        "        for stage in self.pairs:\n"
        "            x = stage[0](x) + x\n"
        "            y = x\n"
        "            for layer in stage[1]:\n"
        "                y = layer(y)\n"
        "            x = y + x\n"
        "        return x"
    )


def test_one_module_again_and_again() -> None:
    def forward(self: Any, x: Any) -> Any:
        for _ in range(5):
            x = x + torch.sin(self.norm(x))
        return x

    assert code(forward) == (
        "        for _ in range(5):\n"
        "            x = x + mx.sin(self.norm(x))\n"
        "        return x"
    )


def test_every_other_module() -> None:
    def forward(self: Any, x: Any) -> Any:
        for first, second in zip(self.blocks[::2], self.blocks[1::2], strict=True):
            x = torch.sin(first(x)) + torch.cos(second(x))
        return x

    expected = "zip(self.blocks[::2], self.blocks[1::2], strict=True)"
    assert expected in code(forward, 6)


def test_the_first_block_is_another() -> None:
    def forward(self: Any, x: Any) -> Any:
        x = self.blocks[0](x)
        for block in self.blocks[1:]:
            x = block(x) + x
        return x

    assert "        for layer in self.blocks[1:]:\n" in code(forward)


def test_the_last_block_is_another() -> None:
    def forward(self: Any, x: Any) -> Any:
        for block in self.blocks[:-1]:
            x = torch.relu(block(x))
        return self.blocks[-1](x)

    assert "        for layer in self.blocks[:3]:\n" in code(forward)


def test_backwards() -> None:
    def forward(self: Any, x: Any) -> Any:
        for block in reversed(self.blocks):
            x = block(x) + x
        return x

    assert "        for layer in self.blocks[::-1]:\n" in code(forward)


def test_all_results() -> None:
    def forward(self: Any, x: Any) -> Any:
        found = []
        for block in self.blocks:
            x = block(x) + x
            found.append(x)
        return torch.cat(found, -1), found[1]

    assert code(forward) == (
        "        xs = []\n"
        "        for layer in self.blocks:\n"
        "            x = layer(x) + x\n"
        "            xs.append(x)\n"
        "        return mx.concatenate(xs, axis=-1), xs[1]"
    )


def test_what_goes_into_each() -> None:
    def forward(self: Any, x: Any) -> Any:
        found: tuple[Any, ...] = ()
        for block in self.blocks:
            found = (*found, x)
            x = block(x)
        return (*found, x)

    assert code(forward) == (
        "        xs = []\n"
        "        for layer in self.blocks:\n"
        "            xs.append(x)\n"
        "            x = layer(x)\n"
        "        return *xs, x"
    )


def test_results_that_are_read_backwards() -> None:
    def forward(self: Any, x: Any) -> Any:
        found = []
        for block in self.blocks:
            found.append(x)
            x = block(x)
        for other in self.others:
            x = other(x * found.pop())
        return x

    assert "in zip(self.others, xs[::-1], strict=True):" in code(forward)


def test_some_results() -> None:
    def forward(self: Any, x: Any) -> Any:
        found = []
        for i, block in enumerate(self.blocks):
            x = block(x)
            if i in (0, 3):
                found.append(x)
        return found

    assert code(forward) == (
        "        xs = []\n"
        "        for i, layer in enumerate(self.blocks):\n"
        "            x = layer(x)\n"
        "            if i in (0, 3):\n"
        "                xs.append(x)\n"
        "        return xs"
    )


def test_branches_from_one_array() -> None:
    def forward(self: Any, x: Any) -> Any:
        return torch.stack([block(x) for block in self.blocks])

    assert code(forward).count("self.blocks") == 1


@pytest.mark.parametrize("period", [2, 3])
def test_two_masks_in_turn(period: int) -> None:
    def forward(self: Any, x: Any) -> Any:
        local, full = torch.sigmoid(x), torch.tanh(x)
        for i, block in enumerate(self.masked):
            x = block(x, full if i % period == period - 1 else local)
        return x

    found = code(forward, 6)
    assert "for i, layer in enumerate(self.masked):" in found
    assert f"i % {period} == " in found


def test_a_value_for_each() -> None:
    def forward(self: Any, x: Any) -> Any:
        masks = [torch.sigmoid(x), torch.tanh(x), torch.sin(x), torch.cos(x)]
        for block, mask in zip(self.masked, masks, strict=True):
            x = block(x, mask)
        return x

    found = code(forward)
    assert found.count("self.masked") == 1
    assert "strict=True" in found


def test_numbers_that_grow() -> None:
    def forward(self: Any, x: Any) -> Any:
        for i, block in enumerate(self.blocks):
            x = x + block(x) * (2 * i + 3)
        return x

    assert "i * 2 + 3" in code(forward)


# Near misses: these are right, and no loops


def test_rounds_of_other_code_are_no_loop() -> None:
    def forward(self: Any, x: Any) -> Any:
        x = torch.sin(self.blocks[0](x))
        x = torch.cos(self.blocks[1](x))
        return torch.tanh(self.blocks[2](x))

    assert "for" not in code(forward, 3)


def test_rounds_that_reach_back_are_no_loop() -> None:
    def forward(self: Any, x: Any) -> Any:
        a = self.blocks[0](x) + x
        b = self.blocks[1](a) + x
        c = self.blocks[2](b) + a  # of two rounds before
        return c * 2

    assert "for layer in self.blocks:" not in code(forward, 3)


def test_arguments_that_swap_are_no_loop() -> None:
    def forward(self: Any, x: Any) -> Any:
        mask = torch.sigmoid(x)
        x = self.masked[0](x, mask)
        x = self.masked[1](mask, x)
        return self.masked[2](x, mask)

    assert "for" not in code(forward, 3)


def test_an_outer_variable_survives_the_loop() -> None:
    def forward(self: Any, x: Any) -> Any:
        y = x
        for block in self.blocks:
            y = torch.sin(block(y)) + x
        return y + x

    check(Blocks(forward), (X,), (Y,), tolerance=1e-4)


def test_two_variables_that_change_places() -> None:
    def forward(self: Any, x: Any) -> Any:
        y = torch.sin(x)
        for block in self.blocks:
            x, y = torch.tanh(y + block(x)), torch.cos(x)
        return x - y

    assert "for layer in self.blocks:" in code(forward)


def test_elements_that_the_list_skips() -> None:
    """The identities between would otherwise be called, too."""

    class Gaps(nn.Module):
        def __init__(self):
            super().__init__()
            kinds = [MLP(), nn.Identity(), MLP(), nn.Identity(), MLP(), MLP()]
            self.layers = nn.ModuleList(kinds)

        def forward(self, x: Any) -> Any:
            for i in (0, 2, 4, 5):
                x = x + self.layers[i](x)
            return x

    check(Gaps(), (X,), (Y,), tolerance=1e-4)


def test_sizes_that_change_from_round_to_round() -> None:
    class Pyramid(nn.Module):
        def __init__(self):
            super().__init__()
            convs = [nn.Conv2d(3, 3, 3, stride=2, padding=1) for _ in range(3)]
            self.convs = nn.ModuleList(convs)

        def forward(self, x: Any) -> Any:
            found = []
            for conv in self.convs:
                x = torch.relu(conv(x))
                found.append(x.flatten(2).mean(-1) * x.shape[2])
            return torch.cat(found, 1)

    x, y = torch.randn(1, 3, 16, 16), torch.randn(2, 3, 24, 24)
    check(Pyramid(), (x,), (y,), tolerance=1e-4)


def test_a_result_of_the_first_round_goes_into_another_loop() -> None:
    def forward(self: Any, x: Any) -> Any:
        found = [block(x) for block in self.blocks]
        y, z = found[0], found[0]
        for other in self.others:
            y = other(y)
        for _, second in self.pairs:
            z = second(z)
        return y + z + found[0] + found[1] + found[2] * found[3]

    check(Blocks(forward), (X,), (Y,), tolerance=1e-4)


def test_numbered_children_of_the_module_itself() -> None:
    class Growing(nn.Sequential):
        def forward(self, x: Any) -> Any:
            found = [x]
            for layer in self:
                found.append(torch.sin(layer(found[-1])))
            return torch.cat(found, -1)

    source = check(Growing(MLP(), MLP(), MLP(), MLP()), (X,), (Y,)).source
    assert (
        "        for layer in self.layers:\n"
        "            xs.append(x)\n"
        "            x = mx.sin(layer(x))\n"
        "        return mx.concatenate([*xs, x], axis=-1)\n"
    ) in source


def test_attributes_with_numbers_are_no_list() -> None:
    class Numbered(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc1, self.fc2, self.fc3 = MLP(), MLP(), MLP()

        def forward(self, x: Any) -> Any:
            for layer in (self.fc1, self.fc2, self.fc3):
                x = x + layer(x)
            return x

    source = check(Numbered(), (X,), (Y,)).source
    assert "for layer" not in source
