"""Loss functions against PyTorch, with every reduction."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F

from tests.lowering import run_lowered
from tests.ops.cases import case

X, Y = torch.randn(4, 5), torch.randn(4, 5)
P, Q = torch.rand(4, 5), torch.rand(4, 5)
CLASSES = torch.tensor([0, 4, 2, 2])
SIGNS = torch.tensor([1.0, -1.0, 1.0, -1.0])
IMAGE, LABELS = torch.randn(2, 5, 3, 4), torch.randint(0, 5, (2, 3, 4))
W = torch.rand(5) + 0.5


@pytest.mark.filterwarnings("ignore:reduction. 'mean' divides:UserWarning")
@pytest.mark.parametrize("reduction", ["none", "mean", "sum"])
@pytest.mark.parametrize(
    ("function", "args"),
    [
        case("mse", F.mse_loss, X, Y),
        case("l1", F.l1_loss, X, Y),
        case(
            "smooth l1", lambda x, y, **o: F.smooth_l1_loss(x, y, beta=0.4, **o), X, Y
        ),
        case(
            "smooth l1 of beta 0",
            lambda x, y, **o: F.smooth_l1_loss(x, y, beta=0, **o),
            X,
            Y,
        ),
        case("huber", lambda x, y, **o: F.huber_loss(x, y, delta=0.4, **o), X, Y),
        case("bce", F.binary_cross_entropy, P, Q),
        case("bce at the ends", F.binary_cross_entropy, P.round(), Q.round()),
        case(
            "bce weighted",
            lambda x, y, w, **o: F.binary_cross_entropy(x, y, w, **o),
            P,
            Q,
            W,
        ),
        case("logits", F.binary_cross_entropy_with_logits, X * 30, Q),
        case(
            "logits weighted",
            lambda x, y, w, **o: F.binary_cross_entropy_with_logits(
                x, y, w, pos_weight=w, **o
            ),
            X,
            Q,
            W,
        ),
        case("kl", F.kl_div, X, P),
        case(
            "kl of logs", lambda x, y, **o: F.kl_div(x, y, log_target=True, **o), X, Y
        ),
        case("kl of zeros", F.kl_div, X, P.round()),
        case("soft margin", F.soft_margin_loss, X[:, 0], SIGNS),
        case(
            "hinge",
            lambda x, y, **o: F.hinge_embedding_loss(x, y, margin=0.5, **o),
            X[:, 0],
            SIGNS,
        ),
        case(
            "ranking",
            lambda x, y, s, **o: F.margin_ranking_loss(x, y, s, margin=0.2, **o),
            X[:, 0],
            Y[:, 0],
            SIGNS,
        ),
        case(
            "poisson",
            lambda x, y, **o: F.poisson_nll_loss(x, y, full=True, **o),
            X,
            Q * 5,
        ),
        case(
            "poisson of rates",
            lambda x, y, **o: F.poisson_nll_loss(x, y, log_input=False, **o),
            P,
            Q,
        ),
        case(
            "cosine",
            lambda x, y, s, **o: F.cosine_embedding_loss(x, y, s, margin=0.1, **o),
            X,
            Y,
            SIGNS,
        ),
        case(
            "triplet",
            lambda x, y, z, **o: F.triplet_margin_loss(x, y, z, swap=True, **o),
            X,
            Y,
            P,
        ),
        case("nll", F.nll_loss, X, CLASSES),
        case("nll of images", F.nll_loss, IMAGE, LABELS),
        case(
            "nll weighted",
            lambda x, y, w, **o: F.nll_loss(x, y, w, ignore_index=2, **o),
            X,
            CLASSES,
            W,
        ),
        case("cross entropy", F.cross_entropy, X, CLASSES),
        case("cross entropy of one", F.cross_entropy, X[0], CLASSES[0]),
        case(
            "cross entropy of images",
            lambda x, y, w, **o: F.cross_entropy(x, y, w, **o),
            IMAGE,
            LABELS,
            W,
        ),
        case(
            "cross entropy ignoring",
            lambda x, y, **o: F.cross_entropy(x, y, ignore_index=2, **o),
            X,
            CLASSES,
        ),
        case(
            "cross entropy smoothed",
            lambda x, y, w, **o: F.cross_entropy(
                x, y, w, label_smoothing=0.2, ignore_index=4, **o
            ),
            X,
            CLASSES,
            W,
        ),
        case(
            "soft cross entropy",
            lambda x, y, w, **o: F.cross_entropy(x, y, w, label_smoothing=0.2, **o),
            X,
            P.softmax(1),
            W,
        ),
        case(
            "multi margin",
            lambda x, y, w, **o: F.multi_margin_loss(
                x, y, p=2, margin=0.7, weight=w, **o
            ),
            X,
            CLASSES,
            W,
        ),
        case(
            "multilabel margin",
            F.multilabel_margin_loss,
            X[:2],
            torch.tensor([[1, 3, -1, 0, 2], [4, -1, 4, 4, 4]]),
        ),
        case("multi margin of one row", F.multi_margin_loss, X[0], CLASSES[:1]),
        case("multilabel soft margin", F.multilabel_soft_margin_loss, X, P.round()),
    ],
)
def test_loss(
    function: Callable[..., Any], args: tuple[Any, ...], reduction: str
) -> None:
    run_lowered(lambda *a: function(*a, reduction=reduction), args, tolerance=2e-5)


@pytest.mark.parametrize("p", [1, 2, 3.0])
def test_distances(p: float) -> None:
    run_lowered(lambda x, y: F.pairwise_distance(x, y, p, keepdim=True), (X, Y))
    run_lowered(lambda x, y: F.cosine_similarity(x, y, 1), (X, Y))
    run_lowered(lambda x, y: F.cosine_similarity(x[:, None], y[None], -1), (X, Y))
    run_lowered(lambda x, y: F.cosine_similarity(x, y, 0), (X[0, 0], Y[0, 0]))


@pytest.mark.parametrize(
    ("loss", "target"),
    [
        (F.multi_margin_loss, torch.tensor(3)),
        (F.multilabel_margin_loss, torch.tensor([3, 0, -1, 1, 1])),
    ],
)
def test_margins_of_one_row(loss: Callable[..., Any], target: torch.Tensor) -> None:
    run_lowered(loss, (X[0], target))
    run_lowered(loss, (X[0, 0], torch.tensor(0)))
    run_lowered(lambda x, y: loss(x, y, reduction="none"), (X[0], target))


@pytest.mark.parametrize("reduction", ["none", "mean", "sum"])
def test_linear_cross_entropy(reduction: str) -> None:
    def chunked(x: Any, w: Any, y: Any, b: Any, c: Any) -> Any:
        ops, options = torch.ops.torch_nn, (2, "disabled", torch.float32)
        if reduction == "none":
            return ops._linear_cross_entropy_batch_chunked_no_reduction(
                x, w, y, b, c, 2, *options
            )
        return ops._linear_cross_entropy_batch_chunked(
            x, w, y, b, c, reduction, 2, 0.0, *options, False, False, False, False
        )[0]

    run_lowered(
        chunked, (X, torch.randn(5, 5), CLASSES, torch.randn(5), W), tolerance=2e-5
    )
