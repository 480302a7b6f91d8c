"""Names of a transformers checkpoint as the model's state dict has them: the library renames while it loads."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch


def renamed(model: Any, keys: Iterable[str]) -> dict[str, str] | None:
    """Checkpoint key -> state dict key, in the way of `from_pretrained`.

    Args:
        model: A model of transformers.
        keys: The keys of the checkpoint.

    Returns:
        The names; None where the library would do more than rename, such as fuse the experts of a mixture,
        or is a version that names it otherwise.
    """
    try:
        from transformers.conversion_mapping import get_model_conversion_mapping
        from transformers.core_model_loading import (
            WeightConverter,
            WeightRenaming,
            rename_source_key,
        )

        mapping = get_model_conversion_mapping(model)
        renamings = [item for item in mapping if isinstance(item, WeightRenaming)]
        converters = [item for item in mapping if isinstance(item, WeightConverter)]
        own: dict[str, torch.Tensor] = model.state_dict()
        found: dict[str, str] = {}
        for key in keys:
            name, computed = rename_source_key(
                key, renamings, converters, model.base_model_prefix, own
            )
            if computed is not None:
                return None
            found[key] = name
    except (ImportError, AttributeError, TypeError):
        return None
    return found if len(set(found.values())) == len(found) else None


def keeps_its_dtype(model: Any, dtype: torch.dtype) -> bool:
    """Whether `from_pretrained` gives every weight that dtype: some stay in float32."""
    plan = getattr(model, "_get_dtype_plan", None)
    if plan is not None:
        return not plan(dtype)
    return dtype == torch.float32 or not model._keep_in_fp32_modules
