"""What several test files share and no fixture can hold."""

from __future__ import annotations

import sys
from typing import Any

_KEPT: list[Any] = []


def declare_torchvision_ops() -> None:
    """Make `import torchvision` work beside a torch build without its binary operators.

    torchvision registers fake kernels for two operators of its C++ library, which does not load on
    a CPU torch. Declaring the operators first is enough: no model that the tests use calls them.
    """
    import torch

    if "torchvision" in sys.modules:
        return
    try:
        import torchvision
    except RuntimeError:
        for name in [name for name in sys.modules if name.startswith("torchvision")]:
            del sys.modules[name]
        library = torch.library.Library("torchvision", "DEF")
        for operator in ("nms", "qnms"):
            library.define(
                f"{operator}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"
            )
        # The declaration lasts as long as this object does.
        _KEPT.append(library)
        import torchvision  # noqa: F401
