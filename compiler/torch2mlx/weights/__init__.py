"""From a checkpoint to the generated module's weights: the plan, the file format, the folder.

Needs numpy and the standard library only.
"""

from torch2mlx.weights.folder import check_folder, save_folder
from torch2mlx.weights.plan import WeightEntry, WeightPlan, apply
from torch2mlx.weights.safetensors import DTYPES, SafetensorsFile, open_file, write

__all__ = [
    "DTYPES",
    "SafetensorsFile",
    "WeightEntry",
    "WeightPlan",
    "apply",
    "check_folder",
    "open_file",
    "save_folder",
    "write",
]
