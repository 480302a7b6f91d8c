"""From a checkpoint to the generated module's weights: the plan, the file format, the folder.

Needs numpy and the standard library only.
"""

from torch2mlx.weights.checkpoint import Checkpoint, open_checkpoint
from torch2mlx.weights.folder import check_folder, save_folder
from torch2mlx.weights.inverse import Inverse
from torch2mlx.weights.plan import WeightEntry, WeightPlan, apply
from torch2mlx.weights.safetensors import DTYPES, SafetensorsFile, open_file, write
from torch2mlx.weights.shards import write_model

__all__ = [
    "DTYPES",
    "Checkpoint",
    "Inverse",
    "SafetensorsFile",
    "WeightEntry",
    "WeightPlan",
    "apply",
    "check_folder",
    "open_checkpoint",
    "open_file",
    "save_folder",
    "write",
    "write_model",
]
