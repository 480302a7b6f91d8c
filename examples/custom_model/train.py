"""Compile `model.py:GatedNet` and train the result in MLX, on random images.

python train.py [FOLDER]
"""

from __future__ import annotations

import sys
from pathlib import Path

import mlx.core as mx
import mlx.nn as nn
import mlx.optimizers as optim

from torch2mlx.cli import main as torch2mlx_compile

STEPS = 30


def main() -> int:
    """Compile and train; 1 if the loss does not fall to half of what it was."""
    here = Path(__file__).parent
    default = here.parents[1] / "build" / "gated_net"
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else default
    source = f"{here / 'model.py'}:GatedNet"
    if status := torch2mlx_compile([source, "--input", "4,3,32,32", "-o", str(folder)]):
        return status

    sys.path.insert(0, str(folder))
    from model_mlx import load_model  # type: ignore[import-not-found]

    losses = train(load_model())
    for step in range(0, STEPS, 5):
        print(f"step {step:2}  loss {losses[step]:.3f}")
    print(f"step {STEPS - 1}  loss {losses[-1]:.3f}")
    return 0 if losses[-1] < losses[0] / 2 else 1


def train(model: nn.Module) -> list[float]:
    """Fit 16 random images with random labels; gives the loss of every step."""
    mx.random.seed(0)
    images = mx.random.normal((16, 24, 24, 3))  # channels-last
    labels = mx.random.randint(0, 10, (16,))

    def loss(images: mx.array, labels: mx.array) -> mx.array:
        return nn.losses.cross_entropy(model(images), labels, reduction="mean")

    step = nn.value_and_grad(model, loss)
    optimizer = optim.Adam(learning_rate=1e-2)
    model.train()
    losses = []
    for _ in range(STEPS):
        value, gradients = step(images, labels)
        optimizer.update(model, gradients)
        mx.eval(model.parameters(), optimizer.state)
        losses.append(value.item())
    return losses


if __name__ == "__main__":
    sys.exit(main())
