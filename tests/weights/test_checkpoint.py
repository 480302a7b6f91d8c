"""Checkpoints in several files: reading, writing, and what is wrong with broken ones."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from torch2mlx.errors import InputError
from torch2mlx.weights import open_checkpoint, open_file, write, write_model
from torch2mlx.weights.shards import is_weights_file, shards

ARRAYS = {f"k{i}": np.full((4, 2), i, "f4") for i in range(5)}
TENSORS = [(key, "F32", (4, 2)) for key in ARRAYS]
INDEX = "model.safetensors.index.json"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Three shards: two of two tensors, one of one."""
    write_model(tmp_path, TENSORS, ARRAYS.__getitem__, limit=64)
    return tmp_path


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_shards_have_mlx_lm_s_names_and_index(folder: Path):
    assert names(folder) == [
        "model-00001-of-00003.safetensors",
        "model-00002-of-00003.safetensors",
        "model-00003-of-00003.safetensors",
        INDEX,
    ]
    index = json.loads((folder / INDEX).read_text())
    assert index["metadata"] == {"total_size": 160, "total_parameters": 40}
    assert index["weight_map"]["k2"] == "model-00002-of-00003.safetensors"
    assert list(index["weight_map"]) == sorted(ARRAYS)
    loaded: dict[str, Any] = {}
    for path in folder.glob("model*.safetensors"):
        assert open_file(path).metadata == {"format": "mlx"}
        loaded |= mx.load(str(path))
    assert {key: array.tolist() for key, array in loaded.items()} == {
        key: array.tolist() for key, array in ARRAYS.items()
    }


def test_divided_as_mlx_lm_does():
    from mlx_lm.utils import make_shards

    sizes = [300, 800, 100, 100, 900, 1200, 5]
    tensors = [(f"{i}", "U8", (size << 20,)) for i, size in enumerate(sizes)]

    class Sized:
        def __init__(self, size: int):
            self.nbytes = size << 20

    theirs = make_shards({f"{i}": Sized(size) for i, size in enumerate(sizes)}, 1)
    ours = shards(tensors, 1 << 30)
    assert [[key for key, _, _ in shard] for shard in ours] == [
        [*shard] for shard in theirs if shard
    ]


def test_one_file_has_no_index(tmp_path: Path):
    write_model(tmp_path, TENSORS, ARRAYS.__getitem__)
    assert names(tmp_path) == ["model.safetensors"]
    assert all(
        map(is_weights_file, [INDEX, "model.safetensors", "model-1.safetensors"])
    )
    assert not any(
        map(is_weights_file, ["weights.json", "model_mlx.py", "x.safetensors"])
    )


@pytest.mark.parametrize("name", ["", INDEX])
def test_several_files_read_as_one(folder: Path, name: str):
    checkpoint = open_checkpoint(folder / name)
    assert set(checkpoint) == set(checkpoint.tensors) == ARRAYS.keys()
    assert len(checkpoint) == 5 and checkpoint.metadata == {"format": "mlx"}
    for key, array in ARRAYS.items():
        assert checkpoint[key].tolist() == array.tolist()


def test_what_a_folder_may_hold(tmp_path: Path):
    with pytest.raises(InputError, match="holds no safetensors file"):
        open_checkpoint(tmp_path)
    save_file({"x": torch.zeros(2)}, tmp_path / "pytorch.safetensors")
    assert set(open_checkpoint(tmp_path)) == {"x"}
    save_file({"y": torch.zeros(2)}, tmp_path / "adapter.safetensors")
    with pytest.raises(
        InputError, match="several .* and no model.*: name one"
    ) as caught:
        open_checkpoint(tmp_path)
    assert "(adapter.safetensors, pytorch.safetensors)" in str(caught.value)
    save_file({"z": torch.zeros(2)}, tmp_path / "model.safetensors")
    assert set(open_checkpoint(tmp_path)) == {"z"}
    assert set(open_checkpoint(tmp_path / "adapter.safetensors")) == {"y"}
    with pytest.raises(InputError, match="^cannot read .*none: No such file"):
        open_checkpoint(tmp_path / "none")


def first_shard(weight_map: dict[str, str]) -> str:
    return sorted(weight_map.values())[0]


BROKEN: dict[str, tuple[Any, str]] = {
    "no JSON": (b"{", r"not JSON \(Expecting property name"),
    "NaN": (b'{"weight_map": {}, "metadata": NaN}', "NaN is not JSON"),
    "a key twice": (
        b'{"weight_map": {"a": "x", "a": "x"}}',
        "the key 'a' occurs twice",
    ),
    "a list": ([], "it has no weight_map from keys to files"),
    "no map": ({"metadata": {}}, "it has no weight_map from keys to files"),
    "numbers": ({"weight_map": {"a": 1}}, "it has no weight_map"),
    "a file outside": (
        {"weight_map": {"a": "../a.safetensors"}},
        "'../a.safetensors' is no name of a file beside it",
    ),
    "an absolute file": ({"weight_map": {"a": "/etc/passwd"}}, "'/etc/passwd' is no"),
    "dots": ({"weight_map": {"a": ".."}}, "'..' is no name"),
    "a missing file": (
        {"weight_map": {"a": "a.safetensors"}},
        "it names a.safetensors, which does not exist",
    ),
}


@pytest.mark.parametrize("name", BROKEN)
def test_broken_indices(folder: Path, name: str):
    content, message = BROKEN[name]
    data = content if isinstance(content, bytes) else json.dumps(content).encode()
    (folder / INDEX).write_bytes(data)
    with pytest.raises(InputError, match=f"{INDEX} is not a valid index: .*{message}"):
        open_checkpoint(folder)
    assert (folder / INDEX).read_bytes() == data


def test_indices_that_contradict_their_files(folder: Path):
    index = json.loads((folder / INDEX).read_text())
    weight_map = index["weight_map"]
    first = weight_map["k0"]

    def refused(changed: dict[str, str]) -> str:
        (folder / INDEX).write_text(json.dumps({"weight_map": changed}))
        with pytest.raises(InputError) as caught:
            open_checkpoint(folder)
        return str(caught.value).partition("index: ")[2]

    assert refused(weight_map | {"more": first}) == (
        f"it places 'more' in {first}, which lacks it"
    )
    less = {key: name for key, name in weight_map.items() if key != "k1"}
    assert refused(less) == f"{first} holds 'k1', which it does not place there"
    (folder / first).write_bytes(b"cut")
    (folder / INDEX).write_text(json.dumps(index))
    with pytest.raises(InputError, match=f"{first} is not a valid safetensors file"):
        open_checkpoint(folder)


def test_a_key_in_two_files(folder: Path):
    weight_map = json.loads((folder / INDEX).read_text())["weight_map"]
    file = folder / weight_map["k4"]
    write(file, [("k0", "F32", (4, 2))], ARRAYS.__getitem__)
    text = {key: name for key, name in weight_map.items() if key != "k4"}
    (folder / INDEX).write_text(json.dumps({"weight_map": text | {"k0": file.name}}))
    with pytest.raises(InputError, match="holds 'k0', which it does not place there"):
        open_checkpoint(folder)


def test_pages_are_given_back(folder: Path, monkeypatch: pytest.MonkeyPatch):
    """What was read is read again, and right."""
    from torch2mlx.weights import safetensors

    monkeypatch.setattr(safetensors, "RESIDENT", 10)
    checkpoint = open_checkpoint(folder)
    kept = checkpoint["k0"]
    for _ in range(2):
        for key, array in ARRAYS.items():
            assert checkpoint[key].tolist() == array.tolist()
    assert kept.tolist() == ARRAYS["k0"].tolist()


@pytest.mark.parametrize(
    ("dtype", "shape", "size"), [("F4", (3, 4), 6), ("F6_E2M3", (4, 2), 6)]
)
def test_packed_dtypes(tmp_path: Path, dtype: str, shape: tuple[int, ...], size: int):
    raw = np.arange(size, dtype="u1")
    write(tmp_path / "w", [("x", dtype, shape)], lambda key: raw)
    file = open_file(tmp_path / "w")
    assert file.tensors["x"][:2] == (dtype, shape)
    assert file["x"].tolist() == raw.tolist()
