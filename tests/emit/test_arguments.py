"""Numbers of a configuration as `args`: names, nested configurations, and what stays a constant."""

from __future__ import annotations

import json
import re
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
import pytest
import torch
from torch import nn

from tests.program import check, compiled
from torch2mlx.api import Program


@dataclass
class Config:
    vocab: int = 11
    width: int = 8
    heads: int = 2
    depth: int = 2
    dropout: float = 0.25
    eps: float = 1e-6


class Attention(nn.Module):
    def __init__(self, config: Config):
        super().__init__()
        self.head_dim = config.width // config.heads
        self.qkv = nn.Linear(config.width, 3 * config.width, bias=False)
        self.out = nn.Linear(config.width, config.width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        B, T, C = x.shape
        parts = self.qkv(x).split(C, dim=-1)
        q, k, v = (p.view(B, T, -1, self.head_dim).transpose(1, 2) for p in parts)
        y = nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True)
        return self.out(y.transpose(1, 2).reshape(B, T, C))


class Block(nn.Module):
    def __init__(self, config: Config):
        super().__init__()
        self.norm = nn.LayerNorm(config.width, eps=config.eps)
        self.attention = Attention(config)
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.dropout(self.attention(self.norm(x)))


class GPT(nn.Module):
    def __init__(self, config: Config):
        super().__init__()
        self.config = config
        self.embed = nn.Embedding(config.vocab, config.width)
        self.blocks = nn.ModuleList([Block(config) for _ in range(config.depth)])
        self.extra = nn.ModuleList([nn.Linear(8, 8) for _ in range(2)])
        self.head = nn.Linear(config.width, config.vocab, bias=False)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        x = self.embed(tokens)
        for block in self.blocks:
            x = block(x)
        for layer in self.extra:
            x = layer(x)
        return self.head(x)


TOKENS = torch.randint(0, 11, (2, 5))


@pytest.fixture(scope="module")
def gpt() -> Program:
    torch.manual_seed(0)
    return check(GPT(Config()), (TOKENS,), (torch.randint(0, 11, (3, 7)),))


def init_of(source: str, name: str) -> list[str]:
    """The statements of a class's constructor after `super().__init__()`."""
    found = re.search(rf"class {name}\(.*?__init__\((.*?)\):\n(.*?)\n\n", source, re.S)
    assert found is not None
    lines = [line.strip() for line in found[2].splitlines()]
    return [found[1], *lines[1:]]


def test_args_in_constructors(gpt: Program) -> None:
    source = gpt.source
    assert init_of(source, "Attention") == [
        "self, args: ModelArgs",
        "self.head_dim = args.width // args.heads",
        # PyTorch's own default, which the author had no need to write
        "self.scale = self.head_dim**-0.5",
        "self.qkv = nn.Linear(args.width, 3 * args.width, bias=False)",
        "self.out = nn.Linear(args.width, args.width)",
    ]
    assert init_of(source, "Block") == [
        "self, args: ModelArgs",
        "self.norm = nn.LayerNorm(args.width, eps=args.eps)",
        "self.attention = Attention(args)",
        "self.dropout = nn.Dropout(args.dropout)",
    ]
    assert init_of(source, "GPT") == [
        "self, args: ModelArgs = ModelArgs()",
        "self.embed = nn.Embedding(args.vocab, args.width)",
        "self.blocks = [Block(args) for _ in range(args.depth)]",
        # Plain numbers of the author's, though they agree
        "self.extra = [nn.Linear(8, 8) for _ in range(2)]",
        "self.head = nn.Linear(args.width, args.vocab, bias=False)",
    ]


def test_the_dataclass_and_config_json(gpt: Program) -> None:
    namespace: dict[str, Any] = {"__file__": "model_mlx.py"}
    exec(compile(gpt.source, "m", "exec", dont_inherit=True), namespace)
    args = namespace["ModelArgs"]
    assert asdict(args()) == asdict(Config())
    config = gpt.config
    assert config["model_type"] == "gpt" and config["model_file"] == "model_mlx.py"
    assert args.from_dict(config) == args()
    assert args.from_dict({"depth": 3, "unknown": 1}) == args(depth=3)
    # Every number of the constructors hangs on `args`: a deeper, wider model has another state
    deeper = namespace["Model"](args(width=12, heads=3, depth=3))
    assert len(deeper.blocks) == 3 and deeper.blocks[2].attention.head_dim == 4
    assert deeper.embed.weight.shape == (11, 12)


def test_mlx_lm_loads_it(gpt: Program, tmp_path: Path) -> None:
    utils = pytest.importorskip("mlx_lm.utils")
    gpt.save(tmp_path)
    assert json.loads((tmp_path / "config.json").read_text())["width"] == 8
    model, _ = utils.load_model(tmp_path, trust_remote_code=True)
    model.eval()
    import mlx.core as mx

    tokens = mx.array(TOKENS.numpy())
    expected = gpt.load()(tokens)
    np.testing.assert_array_equal(np.array(model(tokens)), np.array(expected))


@dataclass
class Tower:
    width: int
    depth: int
    eps: float = 1e-5


@dataclass
class Pair:
    text: Tower = field(default_factory=lambda: Tower(8, 2))
    image: Tower = field(default_factory=lambda: Tower(6, 1))
    joint: int = 4


class Layer(nn.Module):
    def __init__(self, config: Tower):
        super().__init__()
        self.norm = nn.LayerNorm(config.width, eps=config.eps)
        self.fc = nn.Linear(config.width, config.width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.fc(self.norm(x))


class Encoder(nn.Module):
    def __init__(self, config: Tower, joint: int):
        super().__init__()
        self.config = config
        self.layers = nn.ModuleList([Layer(config) for _ in range(config.depth)])
        self.project = nn.Linear(config.width, joint)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for layer in self.layers:
            x = layer(x)
        return self.project(x)


class Two(nn.Module):
    def __init__(self, args: Pair):
        super().__init__()
        self.args = args
        self.text = Encoder(args.text, args.joint)
        self.image = Encoder(args.image, args.joint)

    def forward(self, text: torch.Tensor, image: torch.Tensor) -> torch.Tensor:
        return self.text(text) @ self.image(image).mT


def test_configurations_in_a_configuration() -> None:
    torch.manual_seed(0)
    program = check(Two(Pair()), (torch.randn(2, 3, 8), torch.randn(2, 5, 6)))
    assert program.config["text"] == {"width": 8, "depth": 2, "eps": 1e-5}
    assert program.config["joint"] == 4
    namespace: dict[str, Any] = {"__file__": "model_mlx.py"}
    exec(compile(program.source, "m", "exec", dont_inherit=True), namespace)
    args = namespace["ModelArgs"]
    assert args.from_dict(program.config) == args()
    assert asdict(args()) == {**asdict(Pair())}
    assert "args: Tower" in program.source


class Small(nn.Module):
    """Two numbers are no dataclass."""

    def __init__(self, config: Tower):
        super().__init__()
        self.config = config
        self.fc = nn.Linear(config.width, config.width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.fc(x)


def test_few_numbers_stay_where_they_are() -> None:
    program = compiled(Small(Tower(8, 1)), (torch.randn(2, 8),))
    assert "nn.Linear(8, 8)" in program.source
    assert set(program.config) == {"model_file", "model_type"}


class Resized(GPT):
    """What was changed after the constructor is not what the configuration says."""


def test_a_number_that_disagrees_stays() -> None:
    model = Resized(Config())
    model.head = nn.Linear(8, 7, bias=False)
    program = check(model, (TOKENS,))
    assert "self.head = nn.Linear(args.width, 7, bias=False)" in program.source


@dataclass
class GatedConfig(Config):
    ratio: float = 1.5


class Gated(nn.Module):
    def __init__(self, config: GatedConfig, first: bool):
        super().__init__()
        self.groups = config.heads // config.heads  # 1, like many other numbers
        self.inner = int(config.width * config.ratio)
        self.norm = nn.Identity() if first else nn.LayerNorm(config.width, config.eps)
        self.conv = nn.Conv1d(config.width, config.width, 1)
        self.up = nn.Linear(config.width, self.inner)
        self.down = nn.Linear(self.inner, config.width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.conv(self.norm(x).mT).mT
        return self.down(torch.relu(self.up(x)))


class Uneven(nn.Module):
    def __init__(self, config: GatedConfig):
        super().__init__()
        self.config = config
        self.layers = nn.ModuleList(
            [Gated(config, i == 0) for i in range(config.depth)]
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for layer in self.layers:
            x = layer(x)
        return x


def test_absent_children_whole_numbers_and_ones() -> None:
    torch.manual_seed(0)
    program = check(Uneven(GatedConfig()), (torch.randn(2, 5, 8),), tolerance=1e-4)
    assert init_of(program.source, "Gated") == [
        "self, args: ModelArgs, norm: bool = False",
        "if norm:",
        "self.norm = nn.LayerNorm(args.width, eps=args.eps)",
        "self.conv = nn.Conv1d(args.width, args.width, 1)",
        "self.up = nn.Linear(args.width, int(args.width * args.ratio))",
        "self.down = nn.Linear(int(args.width * args.ratio), args.width)",
    ]


@dataclass
class TwoConfig:
    width: int = 8
    encoder_heads: int = 2
    decoder_heads: int = 2
    positions: int = 16


class Heads(nn.Module):
    def __init__(self, config: TwoConfig, num_heads: int):
        super().__init__()
        self.num_heads = num_heads
        self.head_dim = config.width // num_heads
        self.q = nn.Linear(config.width, config.width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        B, T, _ = x.shape
        q = self.q(x).view(B, T, self.num_heads, self.head_dim).transpose(1, 2)
        y = nn.functional.scaled_dot_product_attention(q, q, q)
        return y.transpose(1, 2).reshape(B, T, -1)


class SourceSide(nn.Module):
    def __init__(self, config: TwoConfig):
        super().__init__()
        self.attention = Heads(config, config.encoder_heads)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.attention(x)


class TargetSide(nn.Module):
    def __init__(self, config: TwoConfig):
        super().__init__()
        self.attention = Heads(config, config.decoder_heads)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.attention(x)


class EncoderDecoder(nn.Module):
    def __init__(self, config: TwoConfig):
        super().__init__()
        self.config = config
        self.encoder = SourceSide(config)
        self.decoder = TargetSide(config)
        self.table = nn.Embedding(config.positions, config.width)
        ids = torch.arange(config.positions).expand((1, -1))
        self.register_buffer("position_ids", ids, persistent=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = x + self.table(self.position_ids[:, : x.shape[1]])  # type: ignore[index]
        return self.decoder(self.encoder(x))


def test_one_class_from_two_fields() -> None:
    """The same number by chance, from two fields: parents give it, and no size is baked in."""
    x, y = torch.randn(2, 5, 8), torch.randn(3, 7, 8)
    program = check(EncoderDecoder(TwoConfig()), (x,), (y,))
    source = program.source
    assert "def __init__(self, args: ModelArgs, num_heads: int):" in source
    assert "self.head_dim = args.width // num_heads" in source
    assert "self.attention = Heads(args, args.encoder_heads)" in source
    assert "self.attention = Heads(args, args.decoder_heads)" in source
    fields = program.config
    assert (fields["encoder_heads"], fields["decoder_heads"]) == (2, 2)


def test_a_size_is_checked_against_the_configuration() -> None:
    program = check(EncoderDecoder(TwoConfig()), (torch.randn(2, 5, 8),))
    assert "self.positions = args.positions" in program.source
    assert "if x.shape[1] > self.positions:" in program.source
    module = program.load()
    with pytest.raises(ValueError, match="^x must have T <= 16$"):
        module(mx.zeros((1, 17, 8)))


@dataclass
class Capped:
    width: int = 12
    depth: int = 2
    top_k: int = 3
    cap: float = 30.0
    window: int = 4
    buckets: int = 16


class CappedLayer(nn.Module):
    def __init__(self, config: Capped):
        super().__init__()
        self.config = config
        self.k = config.top_k
        self.softcap = config.cap
        self.fc = nn.Linear(config.width, config.width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.tanh(self.fc(x) / self.softcap) * self.softcap
        best = torch.topk(x, self.k, dim=-1).values.sum(-1, keepdim=True)
        bucket = torch.clamp(x.abs().long(), max=self.config.buckets // 2 - 1)
        return x + best + bucket * 3 + x[..., : self.config.window].sum()


class CappedStack(nn.Module):
    def __init__(self, config: Capped):
        super().__init__()
        self.config = config
        self.layers = nn.ModuleList([CappedLayer(config) for _ in range(config.depth)])

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for layer in self.layers:
            x = layer(x)
        return x


def test_numbers_of_forward() -> None:
    """Those that the author's line reads; an equal number that is written there stays."""
    torch.manual_seed(0)
    program = check(CappedStack(Capped()), (torch.randn(2, 5, 12),))
    assert "self.softcap = args.cap" in program.source
    assert "/ self.softcap) * self.softcap" in program.source
    assert "self.buckets // 2 - 1" in program.source
    assert "[..., : self.window]" in program.source
    assert "* 3" in program.source
    assert program.config["buckets"] == 16


def test_numbers_of_forward_can_change() -> None:
    """Another configuration changes the generated model as it changes PyTorch's."""
    torch.manual_seed(0)
    x = torch.randn(2, 5, 12) * 9
    program = compiled(CappedStack(Capped()), (x,))
    scope: dict[str, Any] = {"__file__": "model_mlx.py"}
    exec(program.source, scope)
    other = Capped(cap=5.0, window=6, buckets=8)
    model = CappedStack(other).eval()
    made = scope["CappedStack"](scope["ModelArgs"](**asdict(other) | {"top_k": 3}))
    weights = [(k, mx.array(v.numpy())) for k, v in model.state_dict().items()]
    made.load_weights(weights)
    with torch.no_grad():
        expected = model(x).numpy()
    np.testing.assert_allclose(
        np.array(made(mx.array(x.numpy()))), expected, 1e-3, 1e-4
    )


class Prompts(nn.Module):
    """A list of which only the first elements are used."""

    def __init__(self, config: Config):
        super().__init__()
        self.config = config
        self.embed = nn.ModuleList(
            [nn.Embedding(1, config.width) for _ in range(config.vocab)]
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.embed[0].weight * self.embed[1].weight


def test_a_list_of_which_a_part_is_used() -> None:
    source = check(Prompts(Config()), (torch.randn(3, 8),)).source
    assert "for _ in range(2)" in source
