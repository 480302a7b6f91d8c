"""Memory and speed of the weight pass, beside a plain copy and beside the usual way.

    python benchmarks/weights.py --folder /somewhere/with/12/GB --sizes 1 2 4

Synthetic checkpoints, in which no bytes or 40 % of them are 3x3 convolutions, are brought into MLX's
layout. Each run is a process of its own; the methods take turns, so that they share the machine's moods.

- `copy`: shutil.copyfile, nothing transposed.
- `torch2mlx`: the plan, applied by `save_folder`, with the original's sharding.
- `usual`: safetensors.torch.load_file, permute, contiguous, save_file.

"private" is memory that the process holds for itself (RssAnon), beyond what its imports take; the peak
of the resident set also counts mapped pages of files, which the system can take back at any time.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import shutil
import statistics
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np

from torch2mlx.weights import (
    DTYPES,
    WeightEntry,
    WeightPlan,
    apply,
    open_checkpoint,
    save_folder,
    write_model,
)
from torch2mlx.weights.shards import Tensor

METHODS = ("copy", "torch2mlx", "usual")
LAYERS = 24
SHARD = 1 << 29


def tensors(size: int, dtype: str, convolutions: float) -> list[Tensor]:
    """Layers of one square matrix and, if wanted, one 3x3 convolution."""
    layer = size / LAYERS / DTYPES[dtype].itemsize
    channels = round(math.sqrt(layer * convolutions / 9))
    width = round(math.sqrt(layer * (1 - convolutions)))
    found: list[Tensor] = []
    for i in range(LAYERS):
        if channels:
            found.append((f"{i}.conv.weight", dtype, (channels, channels, 3, 3)))
        found.append((f"{i}.linear.weight", dtype, (width, width)))
    return found


def make(folder: Path, made: list[Tensor], shard: int) -> None:
    """Writes a checkpoint with random bytes that are finite numbers."""
    noise = np.random.default_rng(0).integers(0, 60, 1 << 22, np.uint8)
    by_key = {key: (dtype, shape) for key, dtype, shape in made}

    def array(key: str) -> np.ndarray[Any, Any]:
        dtype, shape = by_key[key]
        carrier = DTYPES[dtype]
        return (
            np.resize(noise, math.prod(shape) * carrier.itemsize)
            .view(carrier)
            .reshape(shape)
        )

    folder.mkdir(parents=True, exist_ok=True)
    write_model(folder, made, array, metadata={"format": "pt"}, limit=shard)


def plan_of(made: list[Tensor]) -> WeightPlan:
    """Convolutions go channels-last."""
    steps = (("transpose", (0, 2, 3, 1)),)
    return WeightPlan(
        tuple(
            WeightEntry(key, (key,), dtype, (shape,), steps if len(shape) == 4 else ())
            for key, dtype, shape in made
        )
    )


class Memory(threading.Thread):
    """The peak of the private memory, sampled."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.begin = self.peak = self.private()
        self.done = threading.Event()

    @staticmethod
    def private() -> int:
        status = Path("/proc/self/status").read_text()
        return next(
            int(l.split()[1]) for l in status.splitlines() if l.startswith("RssAnon")
        )

    def run(self) -> None:
        while not self.done.wait(0.005):
            self.peak = max(self.peak, self.private())

    def stop(self) -> dict[str, float]:
        self.done.set()
        self.join()
        status = Path("/proc/self/status").read_text()
        peak = next(
            int(l.split()[1]) for l in status.splitlines() if l.startswith("VmHWM")
        )
        return {"private": (self.peak - self.begin) / 1024, "resident": peak / 1024}


def run(
    method: str, source: Path, target: Path, made: list[Tensor], shard: int
) -> dict[str, float]:
    """One pass in this process: seconds without and with syncing to disk, and memory."""
    if method == "usual":
        import safetensors.torch
        import torch  # noqa: F401
    synced = 0.0
    real = os.fsync

    def sync(descriptor: int) -> None:
        nonlocal synced
        begin = time.perf_counter()
        real(descriptor)
        synced += time.perf_counter() - begin

    os.fsync = sync
    memory = Memory()
    memory.start()
    begin = time.perf_counter()
    if method == "torch2mlx":
        plan, checkpoint = plan_of(made), open_checkpoint(source)

        def weights(stage: Path) -> None:
            write_model(
                stage, plan.tensors(), lambda k: apply(plan[k], checkpoint), limit=shard
            )

        save_folder(target, {}, weights)
    else:
        target.mkdir()
        for file in source.iterdir():
            if method == "copy":
                shutil.copyfile(file, target / file.name)
            elif file.suffix == ".safetensors":
                state = safetensors.torch.load_file(file)
                state = {
                    k: v.permute(0, 2, 3, 1).contiguous() if v.ndim == 4 else v
                    for k, v in state.items()
                }
                safetensors.torch.save_file(state, target / file.name)
                del state
            with open(
                target / file.name if (target / file.name).exists() else file, "rb"
            ) as f:
                sync(f.fileno())
    total = time.perf_counter() - begin
    return {"seconds": total - synced, "synced": total, **memory.stop()}


def measure(
    options: argparse.Namespace,
    size: int,
    dtype: str,
    convolutions: float,
    sharded: bool,
) -> str:
    """One line of the table."""
    made = tensors(int(size * 1e9), dtype, convolutions)
    source, target = options.folder / "source", options.folder / "target"
    shutil.rmtree(source, ignore_errors=True)
    shard = SHARD if sharded else 1 << 50
    make(source, made, shard)
    rows: dict[str, list[dict[str, float]]] = {method: [] for method in METHODS}
    task = json.dumps([str(source), str(target), made, shard])
    methods = METHODS if size <= options.usual else METHODS[:-1]
    for _ in range(options.repeat):
        for method in methods:
            shutil.rmtree(target, ignore_errors=True)
            os.sync()
            command = [sys.executable, __file__, "--child", method, task]
            done = subprocess.run(command, capture_output=True, text=True, check=True)
            rows[method].append(json.loads(done.stdout))
    shutil.rmtree(source)
    shutil.rmtree(target, ignore_errors=True)

    def speed(method: str, what: str) -> float:
        return statistics.median(size * 1e3 / row[what] for row in rows[method])

    def share(what: str) -> float:
        pairs = zip(rows["torch2mlx"], rows["copy"], strict=True)
        return statistics.median(copy[what] / ours[what] for ours, copy in pairs)

    def peak(method: str, what: str) -> float:
        return max(row[what] for row in rows[method])

    cells: list[str] = [
        f"{size} GB {dtype}{', sharded' if sharded else ''}",
        f"{convolutions:.0%}",
        f"{speed('copy', 'seconds'):.0f}",
        f"{speed('torch2mlx', 'seconds'):.0f}",
        f"{speed('usual', 'seconds'):.0f}" if rows["usual"] else "",
        f"{share('seconds'):.2f}",
        f"{share('synced'):.2f}",
        f"{peak('torch2mlx', 'private'):.0f}",
        f"{peak('torch2mlx', 'resident'):.0f}",
        f"{peak('usual', 'private'):.0f}" if rows["usual"] else "",
        f"{peak('usual', 'resident'):.0f}" if rows["usual"] else "",
    ]
    return f"| {' | '.join(cells)} |"


def main() -> None:
    if sys.argv[1:2] == ["--child"]:
        source, target, made, shard = json.loads(sys.argv[3])
        tensors_ = [(key, dtype, tuple(shape)) for key, dtype, shape in made]
        print(json.dumps(run(sys.argv[2], Path(source), Path(target), tensors_, shard)))
        return
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--sizes", type=int, nargs="+", default=[1, 2, 4])
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument(
        "--usual", type=int, default=2, help="the largest GB for the usual way"
    )
    options = parser.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    print(
        "| checkpoint | 3x3 convolutions | copy MB/s | torch2mlx MB/s | usual MB/s | of the copy | "
        "of the copy, synced | private MB | resident MB | usual private MB | usual resident MB |"
    )
    print("| --- " + "| ---: " * 10 + "|")
    for size in options.sizes:
        for dtype in ("F32", "BF16"):
            for convolutions in (0.0, 0.4):
                for sharded in (False, True):
                    print(
                        measure(options, size, dtype, convolutions, sharded), flush=True
                    )


if __name__ == "__main__":
    main()
