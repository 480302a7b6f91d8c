"""What a folder remembers of its making: the texts as they were generated, and its example inputs.

A recompile tells by it what has been edited since. It is a hidden file, which nothing else reads.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from torch2mlx.errors import InputError

RECORD_FILE = ".torch2mlx.json"


@dataclass(frozen=True)
class InputRecord:
    """One array that the generated model takes.

    Attributes:
        key: The parameter of `__call__`, and the indices and keys below it: `x`, `states.0`.
        shape: The shape of the example, as the generated model takes it.
        dtype: MLX's name of its dtype.
        low: The smallest value of an example of integers or booleans.
        high: The largest one.
    """

    key: str
    shape: tuple[int, ...]
    dtype: str
    low: int = 0
    high: int = 0


@dataclass(frozen=True)
class Record:
    """How a folder was made.

    Attributes:
        texts: File name -> the text as it was generated.
        inputs: The example inputs.
    """

    texts: Mapping[str, str] = field(default_factory=dict)
    inputs: Sequence[InputRecord] = ()

    def to_json(self) -> str:
        """The record as JSON; the same record gives the same text."""
        inputs = [asdict(item) for item in self.inputs]
        return (
            json.dumps({"inputs": inputs, "texts": dict(self.texts)}, indent=1) + "\n"
        )

    @classmethod
    def from_json(cls, text: str) -> Record:
        """Reads what `to_json` wrote.

        Raises:
            InputError: `text` is no record.
        """
        try:
            data = json.loads(text)
            inputs = [
                InputRecord(**{**item, "shape": tuple(item["shape"])})
                for item in data["inputs"]
            ]
            return cls({str(k): str(v) for k, v in data["texts"].items()}, inputs)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise InputError(f"not a record of torch2mlx: {error}") from error


def read_record(folder: Path) -> Record | None:
    """The record of a folder; None where it has none, or one that cannot be read."""
    try:
        return Record.from_json((folder / RECORD_FILE).read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, InputError):
        return None
