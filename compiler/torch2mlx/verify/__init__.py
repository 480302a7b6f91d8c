"""Run the PyTorch model and the generated one on the same inputs and compare what they return."""

from torch2mlx.verify.driver import verify
from torch2mlx.verify.result import (
    Case,
    Culprit,
    NotFinite,
    Operator,
    OutputError,
    Statement,
    Verification,
)

__all__ = [
    "Case",
    "Culprit",
    "NotFinite",
    "Operator",
    "OutputError",
    "Statement",
    "Verification",
    "verify",
]
