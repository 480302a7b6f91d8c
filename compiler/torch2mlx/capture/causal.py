"""Transformers whose masks are taken as they are."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

from torch.nn.modules import transformer


@contextlib.contextmanager
def masks_as_given() -> Iterator[None]:
    """While this is open, `nn.Transformer` does not look at a mask's values to see if it is causal.

    It would only choose another kernel; a capture cannot branch on values.
    """
    before = transformer._detect_is_causal_mask
    transformer._detect_is_causal_mask = _is_causal
    try:
        yield
    finally:
        transformer._detect_is_causal_mask = before


def _is_causal(mask: Any, is_causal: bool | None = None, size: Any = None) -> bool:
    return is_causal is True
