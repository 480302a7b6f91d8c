"""The public API: what `compile` gives, and what its folder holds."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import mlx.core as mx
import mlx.nn
import numpy as np
import pytest
import torch
from mlx.utils import tree_flatten
from torch import nn

import torch2mlx
from tests.golden.models import MLP
from tests.lowering import to_mlx, to_numpy
from torch2mlx.api import STAGES
from torch2mlx.emit.weights import StateDict
from torch2mlx.errors import CaptureError, InputError, UnsupportedError
from torch2mlx.weights import apply, open_file

# What a user's process without the compiler looks like.
BLOCK = """
import sys
class Block:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {blocked}:
            raise ModuleNotFoundError("No module named " + repr(name), name=name)
sys.meta_path.insert(0, Block())
"""
TOOLS = {
    "torch",
    "torch2mlx",
    "torch2mlx_templates",
    "transformers",
    "numpy",
    "jinja2",
    "black",
}
EXTRAS = {"torch", "mlx", "jinja2", "black", "rich", "networkx"}


def python(
    code: str, *arguments: str, blocked: set[str] | None = None, **env: str
) -> str:
    """Run code in a new process; its standard output."""
    head = BLOCK.format(blocked=sorted(blocked)) if blocked else ""
    done = subprocess.run(
        [sys.executable, "-c", head + code, *arguments],
        capture_output=True,
        text=True,
        env={**os.environ, **env},
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)
        self.norm = nn.BatchNorm2d(4)
        self.fc = nn.Linear(4, 2)

    def forward(self, x):
        return self.fc(self.norm(self.conv(x)).mean((2, 3)))


@pytest.fixture(scope="module")
def net() -> Net:
    torch.manual_seed(0)
    return Net().eval()


@pytest.fixture(scope="module")
def image() -> torch.Tensor:
    return torch.randn(2, 3, 7, 5, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def folder(
    net: Net, image: torch.Tensor, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    return torch2mlx.compile(net, (image,)).save(tmp_path_factory.mktemp("net") / "out")


def expected(net: nn.Module, *args: Any) -> np.ndarray:
    with torch.no_grad():
        return net(*args).numpy()


def test_the_folder_needs_only_mlx(
    net: Net, image: torch.Tensor, folder: Path, tmp_path: Path
):
    np.save(tmp_path / "x.npy", image.permute(0, 2, 3, 1).numpy())
    code = """
import sys
import mlx.core as mx
sys.path.insert(0, sys.argv[1])
from model_mlx import load_model
y = load_model()(mx.load(sys.argv[2] + "/x.npy"))
mx.save(sys.argv[2] + "/y.npy", y)
"""
    python(code, str(folder), str(tmp_path), blocked=TOOLS)
    found = np.load(tmp_path / "y.npy")
    np.testing.assert_allclose(found, expected(net, image), rtol=1e-5, atol=1e-5)


def test_what_the_folder_holds(folder: Path) -> None:
    names = {name for name in os.listdir(folder) if name != "__pycache__"}
    assert names == {
        ".torch2mlx.json",
        "config.json",
        "model.safetensors",
        "model_mlx.py",
        "weights.json",
    }
    assert (
        json.loads((folder / "config.json").read_text())["model_file"] == "model_mlx.py"
    )
    weights = open_file(folder / "model.safetensors")
    assert weights.metadata == {"format": "mlx"}
    assert weights["conv.weight"].shape == (4, 3, 3, 3)
    assert "norm.num_batches_tracked" not in weights


def test_mlx_lm_loads_the_folder(net: Net, image: torch.Tensor, folder: Path) -> None:
    from mlx_lm.utils import load_model

    model, config = load_model(folder, trust_remote_code=True)
    assert config["model_file"] == "model_mlx.py"
    found = to_numpy(model(to_mlx(image.permute(0, 2, 3, 1))))
    np.testing.assert_allclose(found, expected(net, image), rtol=1e-5, atol=1e-5)


def test_the_model_is_left_as_it_was(image: torch.Tensor) -> None:
    net = Net().train()
    before = {key: value.clone() for key, value in net.state_dict().items()}
    torch2mlx.compile(net, (image,))
    assert all(module.training for module in net.modules())
    assert all(
        torch.equal(value, before[key]) for key, value in net.state_dict().items()
    )


def test_io_layout_torch(net: Net, image: torch.Tensor) -> None:
    program = torch2mlx.compile(net, (image,), io_layout="torch")
    found = to_numpy(program.load()(to_mlx(image)))
    np.testing.assert_allclose(found, expected(net, image), rtol=1e-5, atol=1e-5)
    assert len(program.report.transposes) == 1
    with pytest.raises(InputError, match="io_layout is 'mlx' or 'torch', not 'nchw'"):
        torch2mlx.compile(net, (image,), io_layout="nchw")  # type: ignore[arg-type]


def test_fixed_sizes_are_refused_by_the_file(net: Net, image: torch.Tensor) -> None:
    module = torch2mlx.compile(net, (image,), dynamic=False).load()
    with pytest.raises(
        ValueError, match=r"x must be \[2, 7, 5, 3\], not \[3, 7, 5, 3\]"
    ):
        module(mx.zeros((3, 7, 5, 3)))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_dtypes(dtype: torch.dtype, tmp_path: Path) -> None:
    torch.manual_seed(0)
    net = MLP().to(dtype).eval()
    x = torch.randn(2, 16).to(dtype)
    program = torch2mlx.compile(net, (x,))
    found = program.load()(to_mlx(x))
    want = {torch.float16: mx.float16, torch.bfloat16: mx.bfloat16}.get(
        dtype, mx.float32
    )
    assert found.dtype == want
    np.testing.assert_allclose(
        to_numpy(found.astype(mx.float32)),
        (
            expected(net, x.double())
            if dtype == torch.float64
            else net(x).detach().float().numpy()
        ),
        rtol=2e-2,
        atol=2e-2,
    )
    stored = open_file(program.save(tmp_path / "out") / "model.safetensors").tensors
    kind = {torch.float16: "F16", torch.bfloat16: "BF16"}.get(dtype, "F32")
    assert {info.dtype for info in stored.values()} == {kind}


def test_meta_device(net: Net, tmp_path: Path) -> None:
    """The source needs no values; the weights do, and their absence is said before anything is written."""
    with torch.device("meta"):
        program = torch2mlx.compile(Net(), (torch.empty(2, 3, 7, 5),))
    assert program.source == torch2mlx.compile(net, (torch.randn(2, 3, 7, 5),)).source
    with pytest.raises(InputError, match="weight 'conv.bias' is on the meta device"):
        program.save(tmp_path / "out")
    assert not os.listdir(tmp_path)


class Unmapped(nn.Module):
    def __init__(self):
        super().__init__()
        self.inner = nn.ModuleList([Uncommon(), Uncommon()])

    def forward(self, x):
        for module in self.inner:
            x = module(x)
        return torch.nonzero(x)


class Uncommon(nn.Module):
    def forward(self, x):
        return torch.geqrf(x)[0] + torch.geqrf(-x)[0]


def test_every_unsupported_operator_is_listed() -> None:
    with pytest.raises(UnsupportedError) as caught:
        torch2mlx.compile(Unmapped(), (torch.randn(2, 3),))
    entries = {(entry.op, entry.module): entry for entry in caught.value.entries}
    geqrf = entries["aten.geqrf.default", "inner.0 (Uncommon)"]
    assert geqrf.count == 2
    assert "test_api.py" in geqrf.source_line and "geqrf(x)" in geqrf.source_line
    assert geqrf.hint
    assert ("aten.geqrf.default", "inner.1 (Uncommon)") in entries


class Branches(nn.Module):
    def forward(self, x):
        return x if x.sum() > 0 else -x


def test_what_cannot_be_captured_says_where() -> None:
    with pytest.raises(CaptureError, match="torch.export cannot capture the model"):
        torch2mlx.compile(Branches(), (torch.randn(2, 3),))


def test_inputs_that_do_not_fit() -> None:
    with pytest.raises(InputError, match="the inputs do not fit forward"):
        torch2mlx.compile(MLP(), (torch.randn(2, 16), torch.randn(2)))


def test_the_same_bytes_in_another_process(tmp_path: Path) -> None:
    code = """
import sys, torch, torch2mlx
from tests.test_api import Net
torch.manual_seed(0)
net = Net()
torch2mlx.compile(net, (torch.zeros(2, 3, 7, 5),)).save(sys.argv[1])
"""
    for seed in ("1", "2"):
        python(code, str(tmp_path / seed), PYTHONHASHSEED=seed)
    for name in os.listdir(tmp_path / "1"):
        assert (tmp_path / "1" / name).read_bytes() == (
            tmp_path / "2" / name
        ).read_bytes()


def test_import_is_fast_and_needs_the_core_alone() -> None:
    code = """
import time
begin = time.process_time()
import torch2mlx
print(time.process_time() - begin)
import torch2mlx.weights, torch2mlx.errors
try:
    torch2mlx.compile
except ModuleNotFoundError as error:
    print(error)
"""
    seconds, message = python(code, blocked=EXTRAS).splitlines()
    assert float(seconds) < 0.2
    assert message.endswith("pip install 'torch2mlx[compile]'")
    assert message.startswith("torch2mlx.compile needs")


def test_hostile_names_are_renamed(tmp_path: Path) -> None:
    """Names that MLX or Python need for themselves, or that try to be code."""
    torch.manual_seed(0)

    class Hostile(nn.Module):
        def __init__(self):
            super().__init__()
            for name in NAMES:
                self.add_module(name, nn.Linear(4, 4))

        def forward(self, x):
            for name in NAMES:
                x = torch.tanh(getattr(self, name)(x))
            return x

    net, x = Hostile().eval(), torch.randn(2, 4)
    program = torch2mlx.compile(net, (x,))
    found = to_numpy(program.load()(to_mlx(x)))
    np.testing.assert_allclose(found, expected(net, x), rtol=1e-5, atol=1e-5)
    assert {
        source for entry in program.plan.entries for source in entry.sources
    } == set(net.state_dict())


NAMES = [
    "keys",
    "update",
    "class",
    "None",
    "self",
    "_hidden",
    "my-layer",
    "x y",
    "keys_",
    "é",
    "__import__('os')",
    '"""',
    "a\nb",
]


@pytest.mark.parametrize("make", [Net, MLP])
def test_gradients_agree(make: type[nn.Module]) -> None:
    """Every parameter of the generated module gets PyTorch's gradient."""
    torch.manual_seed(0)
    net = make().eval()
    x = torch.randn(2, 3, 7, 5) if make is Net else torch.randn(2, 16)
    program = torch2mlx.compile(net, (x,))
    (net(x) ** 2).sum().backward()
    module = program.load()
    array = to_mlx(x.permute(0, 2, 3, 1) if make is Net else x)
    loss = mlx.nn.value_and_grad(module, lambda m: (m(array) ** 2).sum())
    found = dict(tree_flatten(loss(module)[1]))
    gradients = StateDict({key: p.grad for key, p in net.named_parameters()})
    entries = [entry for entry in program.plan.entries if entry.sources[0] in gradients]
    assert {entry.key for entry in entries} == set(found)
    for entry in entries:
        wanted = apply(entry, gradients)
        np.testing.assert_allclose(
            to_numpy(found[entry.key]), wanted, rtol=1e-3, atol=1e-4
        )


def test_training_mode_updates_the_statistics(net: Net, image: torch.Tensor) -> None:
    module = torch2mlx.compile(net, (image,)).load()
    before = mx.array(module.norm.running_mean)
    module.train()
    mx.eval(module(to_mlx(image.permute(0, 2, 3, 1))))
    twin = Net()
    twin.load_state_dict(net.state_dict())
    twin.train()(image)
    after = to_numpy(module.norm.running_mean)
    assert not np.allclose(after, to_numpy(before))
    np.testing.assert_allclose(
        after, twin.norm.running_mean.numpy(), rtol=1e-4, atol=1e-5
    )


def test_what_metal_refuses_is_noted() -> None:
    class Count(nn.Module):
        def forward(self, ids):
            return torch.zeros(8, dtype=torch.int64).index_add(
                0, ids, torch.ones_like(ids)
            )

    program = torch2mlx.compile(Count(), (torch.arange(6),))
    assert any(
        note.startswith("not on a Metal GPU: ") and "64-bit integers" in note
        for note in program.report.notes
    )


def test_every_stage_can_be_dumped(net: Net, image: torch.Tensor) -> None:
    program = torch2mlx.compile(net, (image,))
    for stage in STAGES:
        assert program.dump(stage).strip()
    assert program.dump("emit") == program.source
    assert "largest difference" in program.dump("verify")
    with pytest.raises(
        InputError, match="unknown stage 'link'; the stages are capture, passes"
    ):
        program.dump("link")
