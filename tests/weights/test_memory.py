"""What the weight pass holds in memory: not the model."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from torch2mlx.weights import write_model

CODE = """
import json, sys
from pathlib import Path
from torch2mlx.weights import WeightEntry, WeightPlan, apply, open_checkpoint, save_folder, write_model

def private():
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("RssAnon"))

checkpoint = open_checkpoint(sys.argv[1])
steps = (("transpose", (0, 2, 3, 1)),)
experts = [key for key in checkpoint if key.startswith("e")]
entries = [
    WeightEntry(key, (key,), info.dtype, (info.shape,), steps if len(info.shape) == 4 else ())
    for key, info in checkpoint.tensors.items() if key not in experts
]
if experts:
    shapes = tuple(checkpoint.tensors[key].shape for key in experts)
    turn = (("transpose", (0, 2, 1)),)
    entries.append(
        WeightEntry("e", tuple(experts), "F32", shapes, turn, merge="stack", group=2)
    )
plan = WeightPlan(tuple(entries))
peak = begin = private()

def watch(count):
    global peak
    peak = max(peak, private())

save_folder(sys.argv[2], {}, lambda stage: write_model(
    stage, plan.tensors(), lambda key: apply(plan[key], checkpoint), progress=watch, limit=1 << 26
))
print(json.dumps(peak - begin))
"""


def private_kilobytes(tmp_path: Path, shapes: dict[str, tuple[int, ...]]) -> int:
    """What the pass needs above what it begins with."""
    tensors = [(key, "F32", shape) for key, shape in shapes.items()]
    (tmp_path / "from").mkdir()
    write_model(
        tmp_path / "from",
        tensors,
        lambda key: np.ones(shapes[key], "f4"),
        limit=1 << 26,
    )
    command = [sys.executable, "-c", CODE, str(tmp_path / "from"), str(tmp_path / "to")]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return json.loads(done.stdout)


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_private_memory_does_not_grow_with_the_model(tmp_path: Path):
    shapes = [(256, 256, 3, 3), (1024, 1024)] * 12
    found = private_kilobytes(tmp_path, {f"{i}": s for i, s in enumerate(shapes)})
    # The checkpoint has 79 MB in two files, its largest tensor 4 MB
    assert found < 12_000
    assert len(list((tmp_path / "to").glob("*.safetensors"))) == 2


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_experts_are_in_memory_once(tmp_path: Path):
    """Of 16 pairs of 2 MB each, 64 MB in all, one array is made."""
    shapes = {f"e{i:02}": (512, 1024) for i in range(32)}
    assert private_kilobytes(tmp_path, shapes) < 64 << 10 | 8 << 10
