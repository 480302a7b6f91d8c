"""How transformers makes a model's state dict of a checkpoint: it renames, and puts weights together or apart."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import replace
from typing import Any

import torch

from torch2mlx.source.rearranging import Rearranging
from torch2mlx.source.weights import DTYPES
from torch2mlx.weights import Checkpoint, WeightEntry, WeightPlan
from torch2mlx.weights.casting import FLOATS

UNUSED = "transformers does not load it into this model"
NAMES = {dtype: name for name, dtype in DTYPES.items()}


def conversion(
    model: Any, checkpoint: Checkpoint, dtype: torch.dtype
) -> WeightPlan | None:
    """What `from_pretrained` does to a checkpoint, found by running that on tensors without values.

    Args:
        model: A model of transformers; its weights need no values.
        checkpoint: The checkpoint.
        dtype: The dtype that the model is loaded in.

    Returns:
        The plan: the keys of the model's state dict, and the checkpoint's keys that each is made of. None
        where the library computes with the values, or is a version that names all this otherwise.
    """
    try:
        return _Conversion(model, checkpoint, dtype).plan()
    except (ImportError, AttributeError, KeyError, TypeError, ValueError):
        return None


class _Conversion:
    def __init__(self, model: Any, checkpoint: Checkpoint, dtype: torch.dtype):
        from transformers.conversion_mapping import get_model_conversion_mapping
        from transformers.core_model_loading import WeightConverter, WeightRenaming

        mapping = get_model_conversion_mapping(model)
        self.renamings = [m for m in mapping if isinstance(m, WeightRenaming)]
        self.converters = [m for m in mapping if isinstance(m, WeightConverter)]
        self.model, self.checkpoint = model, checkpoint
        self.own: dict[str, torch.Tensor] = model.state_dict()
        self.dtypes = model._get_dtype_plan(dtype)
        self.entries: dict[str, WeightEntry] = {}
        self.unused: dict[str, str] = {}

    def plan(self) -> WeightPlan | None:
        from transformers.core_model_loading import dot_natural_key

        by_pattern = {p: c for c in self.converters for p in c.source_patterns}
        groups: dict[str, Any] = {}
        with Rearranging() as rearranging:
            for key in sorted(self.checkpoint, key=dot_natural_key):
                name, pattern = self._name(key)
                info = self.checkpoint.tensors[key]
                if name not in self.own:
                    self.unused[key] = UNUSED
                elif pattern is None:
                    self._add(name, WeightEntry("", (key,), info.dtype, (info.shape,)))
                else:
                    tensor = rearranging.source(key, info.dtype, info.shape)
                    group = groups.setdefault(name, deepcopy(by_pattern[pattern]))
                    group.add_tensor(name, key, pattern, lambda tensor=tensor: tensor)
            for name, group in groups.items():
                made = group.convert(name, model=self.model, config=self.model.config)
                for target, tensor in made.items():
                    tensor = tensor[0] if isinstance(tensor, list) else tensor
                    self._add(target, rearranging.made(tensor))
        return WeightPlan(tuple(self.entries.values()), self.unused)

    def _name(self, key: str) -> tuple[str, str | None]:
        """Its name in the state dict, and the pattern of the converter that it is for."""
        from transformers.core_model_loading import rename_source_key

        prefix = self.model.base_model_prefix
        found = rename_source_key(
            key, self.renamings, self.converters, prefix, self.own
        )
        if found[0] not in self.own and key in self.own:
            return rename_source_key(key, [], [], prefix, self.own)
        return found

    def _add(self, name: str, entry: WeightEntry | None) -> None:
        if entry is None or name in self.entries:
            raise ValueError(name)
        own = self.own[name]
        target = NAMES[self._dtype(name, own.dtype)]
        if entry.out_shape != own.shape:
            raise ValueError(name)
        casts = None if entry.dtype == target else target
        if casts and not {entry.dtype, target} <= {*FLOATS}:
            raise ValueError(name)
        self.entries[name] = replace(entry, key=name, target=casts)

    def _dtype(self, name: str, own: torch.dtype) -> torch.dtype:
        """What `from_pretrained` loads a weight in."""
        from transformers.core_model_loading import build_glob_alternation

        if not self.dtypes:
            return own
        pattern, globs, _ = build_glob_alternation([*self.dtypes])
        match = pattern.search(name)
        return own if match is None else self.dtypes[globs[match.lastgroup]]
