"""The advice for refused operators leads to operators that are mapped."""

from __future__ import annotations

import torch

from torch2mlx.analysis.alternatives import ALTERNATIVES, alternative, for_message
from torch2mlx.lower.registry import LAYERS, OPS

aten = torch.ops.aten
MAPPED = {str(op).rpartition(".")[0] for op in {*OPS, *LAYERS}}


def test_what_is_advised_is_mapped() -> None:
    for name, advice in ALTERNATIVES.items():
        assert advice.text
        for op in advice.ops:
            assert f"aten.{op}" in MAPPED, f"{name}: {op}"


def test_what_has_an_alternative_exists() -> None:
    for name in ALTERNATIVES:
        library, _, op = name.partition(".")
        if library == "aten":
            assert hasattr(aten, op), name


def test_by_name_argument_and_overload() -> None:
    assert alternative(aten.geqrf.default, "no entry").startswith("torch.linalg.qr(x)")
    reason = "argument `dropout_p`=0.5 is not mapped: MLX drops nothing"
    attention = aten.scaled_dot_product_attention.default
    assert alternative(attention, reason) == "leave `dropout_p` at its default"
    assert alternative(aten.add.out, "no entry").startswith("the overload aten.add.")
    assert alternative(aten.binomial.default, "no entry").startswith("torch.rand(")
    # An argument that must be given has no default to be left at
    reason = "argument `train`=True is not mapped: MLX has no alpha dropout"
    assert alternative(aten.alpha_dropout.default, reason) == "nn.Dropout"
    assert alternative(aten.dropout.default, reason) == ""
    assert alternative(aten.record_stream.default, "no entry") == ""
    assert "scaled_dot" in alternative(torch.ops.higher_order.flex_attention, "")


def test_by_the_message_of_an_error() -> None:
    message = "DynamicOutputShapeException: aten.linalg_lstsq.default"
    assert for_message(message) == "torch.linalg.pinv(a) @ b"
    assert for_message("RuntimeError: no operator, aten.add.Tensor") == ""
