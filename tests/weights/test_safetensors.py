"""Our reader and writer against the `safetensors` library and MLX, and on broken files."""

from __future__ import annotations

import json
import math
import tracemalloc
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
import pytest
import safetensors
import safetensors.numpy
from hypothesis import given
from hypothesis import strategies as st

from torch2mlx.errors import InputError
from torch2mlx.weights import (
    DTYPES,
    WeightEntry,
    WeightPlan,
    apply,
    blocks,
    open_file,
    write,
)

RAW = ("BF16", *(name for name in DTYPES if name.startswith("F8")))
NATIVE = [name for name in DTYPES if name not in RAW]


def random_bits(dtype: str, shape: tuple[int, ...], seed: int = 0) -> np.ndarray:
    """Any bit pattern of the dtype, NaN and infinity too."""
    carrier = DTYPES[dtype]
    size = math.prod(shape) * carrier.itemsize
    bits = np.random.default_rng(seed).integers(0, 256, size, np.uint8)
    if dtype == "BOOL":
        bits &= 1
    return bits.view(carrier).reshape(shape)


def save(path: Path, arrays: dict[str, tuple[str, np.ndarray]], **kwargs: Any) -> None:
    tensors = [(key, dtype, array.shape) for key, (dtype, array) in arrays.items()]
    write(path, tensors, lambda key: arrays[key][1], **kwargs)


def header_of(path: Path) -> dict[str, Any]:
    data = path.read_bytes()
    return json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])


def same_bits(first: np.ndarray, second: np.ndarray) -> bool:
    return first.shape == second.shape and first.tobytes() == second.tobytes()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(), (0,), (3, 0, 2), (1,), (5, 3), (2, 3, 4, 5)])
def test_what_we_write_we_read(tmp_path: Path, dtype: str, shape: tuple[int, ...]):
    array = random_bits(dtype, shape)
    save(tmp_path / "w", {"x": (dtype, array)})
    file = open_file(tmp_path / "w")
    assert file.tensors["x"].dtype == dtype
    assert file["x"].dtype == DTYPES[dtype]
    assert same_bits(file["x"], array)


def test_the_library_reads_what_we_write(tmp_path: Path):
    arrays = {
        f"{name}.{shape}": (name, random_bits(name, shape))
        for name in NATIVE
        for shape in [(), (0, 3), (3, 5)]
    }
    save(tmp_path / "w", arrays)
    loaded = safetensors.numpy.load_file(tmp_path / "w")
    assert loaded.keys() == arrays.keys()
    for key, (dtype, array) in arrays.items():
        assert loaded[key].dtype == DTYPES[dtype]
        assert same_bits(loaded[key], array)


@pytest.mark.parametrize("dtype", RAW)
def test_the_library_reads_our_raw_dtypes(tmp_path: Path, dtype: str):
    array = random_bits(dtype, (7, 3))
    save(tmp_path / "w", {"x": (dtype, array)})
    [(key, info)] = safetensors.deserialize((tmp_path / "w").read_bytes())
    assert (key, info["dtype"], info["shape"]) == ("x", dtype, [7, 3])
    assert bytes(info["data"]) == array.tobytes()


def test_we_read_what_the_library_writes(tmp_path: Path):
    arrays = {
        f"{name}.{shape}": random_bits(name, shape)
        for name in NATIVE
        for shape in [(), (0, 3), (3, 5)]
    }
    safetensors.numpy.save_file(arrays, tmp_path / "w", metadata={"of": "tests"})
    file = open_file(tmp_path / "w")
    assert file.metadata == {"of": "tests"}
    assert len(file) == len(arrays) and set(file) == set(arrays)
    for key, array in arrays.items():
        assert same_bits(file[key], array)


def test_we_read_the_library_s_raw_dtypes(tmp_path: Path):
    arrays = {name: random_bits(name, (3, 4)) for name in RAW}
    flat = {
        name: {"dtype": name, "shape": [3, 4], "data": array.tobytes()}
        for name, array in arrays.items()
    }
    (tmp_path / "w").write_bytes(_serialize(flat))
    file = open_file(tmp_path / "w")
    for name, array in arrays.items():
        assert file.tensors[name].dtype == name
        assert same_bits(file[name], array)


def _serialize(flat: dict[str, dict[str, Any]]) -> bytes:
    header, data = {}, b""
    for name, info in flat.items():
        end = len(data) + len(info["data"])
        header[name] = {
            "dtype": info["dtype"],
            "shape": info["shape"],
            "data_offsets": [len(data), end],
        }
        data += info["data"]
    text = json.dumps(header).encode()
    content = len(text).to_bytes(8, "little") + text + data
    assert len(safetensors.deserialize(content)) == len(flat)
    return content


def test_mlx_reads_what_we_write(tmp_path: Path):
    arrays = {
        "odd": ("U8", random_bits("U8", (3,))),
        "bf16": ("BF16", random_bits("BF16", (4, 5))),
        "conv": ("F32", random_bits("F32", (4, 3, 2, 2)).transpose(0, 2, 3, 1)),
        "scalar": ("I64", np.array(-7)),
        "half": ("F16", random_bits("F16", (2, 2))),
        "mask": ("BOOL", random_bits("BOOL", (9,))),
    }
    path = tmp_path / "model.safetensors"
    save(path, arrays)
    loaded, metadata = mx.load(str(path), return_metadata=True)
    assert metadata == {"format": "mlx"}
    assert loaded["bf16"].dtype == mx.bfloat16
    for key, (_, array) in arrays.items():
        got = loaded[key].view(mx.uint16) if key == "bf16" else loaded[key]
        assert same_bits(np.array(got), array), key


def test_we_read_what_mlx_writes(tmp_path: Path):
    path = tmp_path / "model.safetensors"
    values = mx.array([[1.5, -2.0], [0.0, 3.140625]])
    arrays = {"a": values, "b": values.astype(mx.bfloat16), "c": mx.array(3)}
    mx.save_safetensors(str(path), arrays, {"format": "mlx"})
    file = open_file(path)
    assert file["a"].tolist() == values.tolist()
    assert file["b"].tolist() == [[0x3FC0, 0xC000], [0, 0x4049]]
    assert file.tensors["b"].dtype == "BF16"
    assert file["c"].item() == 3


def test_file_layout(tmp_path: Path):
    arrays = {
        "z": ("F32", np.ones((2, 2), "f4")),
        "é": ("U8", np.arange(3, dtype="u1")),
        "a": ("F16", np.zeros((), "f2")),
    }
    save(tmp_path / "w", arrays)
    data = (tmp_path / "w").read_bytes()
    length = int.from_bytes(data[:8], "little")
    assert length % 8 == 0
    assert header_of(tmp_path / "w") == {
        "__metadata__": {"format": "mlx"},
        "z": {"dtype": "F32", "shape": [2, 2], "data_offsets": [0, 16]},
        "é": {"dtype": "U8", "shape": [3], "data_offsets": [16, 19]},
        "a": {"dtype": "F16", "shape": [], "data_offsets": [19, 21]},
    }
    assert list(header_of(tmp_path / "w")) == ["__metadata__", "z", "é", "a"]
    assert data[8 + length :] == np.ones(4, "f4").tobytes() + b"\0\1\2\0\0"
    assert list(open_file(tmp_path / "w")) == ["z", "é", "a"]


def test_no_tensors_and_no_metadata(tmp_path: Path):
    save(tmp_path / "w", {}, metadata={})
    assert (tmp_path / "w").read_bytes() == (8).to_bytes(8, "little") + b"{}      "
    assert dict(open_file(tmp_path / "w")) == {}
    assert safetensors.numpy.load_file(tmp_path / "w") == {}


@given(
    st.lists(st.integers(0, 5), max_size=4).map(tuple),
    st.data(),
    st.integers(1, 64),
    st.sampled_from(["U8", "BF16", "F32", "F64"]),
)
def test_any_strides(
    tmp_path_factory: pytest.TempPathFactory,
    shape: tuple[int, ...],
    data: st.DataObject,
    block: int,
    dtype: str,
):
    array = random_bits(dtype, shape).transpose(
        data.draw(st.permutations(range(len(shape))))
    )
    for axis in range(array.ndim):
        step = data.draw(st.sampled_from([1, -1, 2]))
        array = array[(slice(None),) * axis + (slice(None, None, step),)]
    path = tmp_path_factory.mktemp("any") / "w"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(blocks, "BLOCK", block)
        save(path, {"x": (dtype, array)})
    assert same_bits(open_file(path)["x"], array)


def test_a_broadcast_array_is_written_out(tmp_path: Path):
    array = np.broadcast_to(np.array([1, 2], "f4"), (3, 2))
    save(tmp_path / "w", {"x": ("F32", array)})
    assert open_file(tmp_path / "w")["x"].tolist() == [[1, 2], [1, 2], [1, 2]]


def test_progress_counts_the_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(blocks, "BLOCK", 100)
    arrays = {
        "a": ("F32", np.zeros((10, 10), "f4")),
        "b": ("F32", np.zeros((10, 10), "f4").T),
        "c": ("U8", np.zeros((0,), "u1")),
    }
    steps: list[int] = []
    save(tmp_path / "w", arrays, progress=steps.append)
    assert steps == [100] * 4 + [80] * 5


@pytest.mark.parametrize("transposed", [False, True])
def test_memory_is_one_tensor(
    tmp_path: Path, transposed: bool, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(blocks, "BLOCK", 1 << 16)
    size = 1 << 20

    def produce(_: str) -> np.ndarray:
        array = np.zeros((512, size // 512), "u1")
        return array.T if transposed else array

    shape = (size // 512, 512) if transposed else (512, size // 512)
    tensors = [(f"x{i}", "U8", shape) for i in range(8)]
    tracemalloc.start()
    write(tmp_path / "w", tensors, produce)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    # One tensor, the one before it until it is released, and a block
    assert peak < 2.5 * size
    assert (tmp_path / "w").stat().st_size > 8 * size


def test_reading_is_by_memory_map(tmp_path: Path):
    save(tmp_path / "w", {"x": ("U8", np.zeros(1 << 20, "u1"))})
    tracemalloc.start()
    array = open_file(tmp_path / "w")["x"]
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 1 << 18
    assert not array.flags.owndata and not array.flags.writeable
    # The array keeps the map alive, also when the file is gone
    (tmp_path / "w").unlink()
    assert array.sum() == 0


def test_a_plan_is_written_from_a_mapped_file(tmp_path: Path):
    weight = random_bits("BF16", (4, 3, 2, 2))
    bias = random_bits("F32", (4,))
    save(tmp_path / "from", {"conv.weight": ("BF16", weight), "bias": ("F32", bias)})
    source = open_file(tmp_path / "from")
    perm = (0, 2, 3, 1)
    steps = (("transpose", perm),)
    plan = WeightPlan(
        (
            WeightEntry("w", ("conv.weight",), "BF16", ((4, 3, 2, 2),), steps),
            WeightEntry("b", ("bias",), "F32", ((4,),)),
        )
    )
    write(tmp_path / "to", plan.tensors(), lambda key: apply(plan[key], source))
    result = open_file(tmp_path / "to")
    assert same_bits(result["w"], weight.transpose(perm))
    assert same_bits(result["b"], bias)


@pytest.mark.parametrize(
    ("tensors", "message"),
    [
        ([("a", "F3", (2,))], "tensor 'a': safetensors has no dtype 'F3'"),
        ([("a", "F4", (3,))], r"tensor 'a' .* F4 \[3\] takes no whole number of bytes"),
        ([("a", "U8", ()), ("a", "U8", ())], "tensor 'a' .* the key occurs twice"),
        ([("__metadata__", "U8", ())], "tensor '__metadata__' .* the name is reserved"),
    ],
)
def test_unwritable_tensors(tmp_path: Path, tensors: Any, message: str):
    with pytest.raises(InputError, match=message):
        write(tmp_path / "w", tensors, lambda key: np.zeros((), "u1"))
    with pytest.raises(InputError, match=message):
        write(tmp_path / "w", tensors, lambda key: np.zeros((), "u1"), metadata={})
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "wrong", [np.zeros(3, "f4"), np.zeros(2, "f8"), np.zeros(2, ">f4")]
)
def test_a_wrong_array_leaves_the_old_file(tmp_path: Path, wrong: np.ndarray):
    (tmp_path / "w").write_text("old")
    with pytest.raises(ValueError, match=r"^'x': .* instead of F32 \(2,\)"):
        write(tmp_path / "w", [("x", "F32", (2,))], lambda key: wrong)
    assert [p.name for p in tmp_path.iterdir()] == ["w"]
    assert (tmp_path / "w").read_text() == "old"


def test_unwritable_places(tmp_path: Path):
    (tmp_path / "file").write_text("")
    for path, why in {
        tmp_path / "file" / "w": "Not a directory",
        tmp_path / "missing" / "w": "No such file or directory",
        Path("/dev/full"): "it is not a regular file",
        tmp_path: "it is not a regular file",
    }.items():
        with pytest.raises(InputError, match=f"^cannot write {path}: {why}$"):
            save(path, {})


def raw_file(header: Any, data: bytes = b"", length: int | None = None) -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return (len(text) if length is None else length).to_bytes(8, "little") + text + data


def tensor(
    start: Any, stop: Any, shape: Any = (4,), dtype: Any = "U8"
) -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "data_offsets": [start, stop]}


CORRUPT = {
    "empty": (b"", "0 bytes are too short for a safetensors file"),
    "seven bytes": (b"\2" + b"\0" * 6, "7 bytes are too short"),
    "length over the file": (
        raw_file(b"{}", length=3),
        "a header of 3 bytes, but only 2 are there",
    ),
    "length over the limit": (
        raw_file(b"{}", length=100_000_001),
        "a header of 100000001 bytes, over the limit",
    ),
    "absurd length": (
        raw_file(b"{}", length=2**64 - 1),
        "a header of 18446744073709551615 bytes, over",
    ),
    "no header": (raw_file(b""), "the header is not JSON"),
    "a zip file": (b"PK\3\4" + b"\0" * 100, "a header of 67324752 bytes, but only 96"),
    "pickle": (b"\x80\2\0\0\0\0\0\0" + b"." * 640, "the header is not JSON"),
    "cut header": (raw_file(b'{"a": '), "the header is not JSON"),
    "not UTF-8": (raw_file(b'{"\xff": 1}'), "the header is not JSON"),
    "NaN": (raw_file(b'{"a": NaN}'), r"the header is not JSON \(NaN is not JSON\)"),
    "infinity": (raw_file(b'{"a": -Infinity}'), "-Infinity is not JSON"),
    "deep": (raw_file(b"[" * 1_000_000), "the header is not JSON"),
    "digits": (raw_file(b'{"a": ' + b"9" * 5000 + b"}"), "the header is not JSON"),
    "list": (raw_file([]), "the header is not a JSON object"),
    "duplicate key": (raw_file(b'{"a": 1, "a": 2}'), "the key 'a' occurs twice"),
    "metadata list": (raw_file({"__metadata__": []}), "__metadata__ does not map"),
    "metadata number": (
        raw_file({"__metadata__": {"a": 1}}),
        "__metadata__ does not map",
    ),
    "tensor number": (
        raw_file({"a": 1}),
        "tensor 'a' lacks dtype, shape or data_offsets",
    ),
    "no dtype": (
        raw_file({"a": {"shape": [], "data_offsets": [0, 1]}}, b"0"),
        "tensor 'a' lacks",
    ),
    "one offset": (
        raw_file({"a": {"dtype": "U8", "shape": [], "data_offsets": [0]}}),
        "tensor 'a' lacks",
    ),
    "dtype": (
        raw_file({"a": tensor(0, 4, dtype="U7")}, b"1234"),
        "tensor 'a' has the unknown dtype 'U7'",
    ),
    "dtype list": (
        raw_file({"a": tensor(0, 4, dtype=["U8"])}, b"1234"),
        "tensor 'a' lacks",
    ),
    "negative size": (
        raw_file({"a": tensor(0, 4, [-2, -2])}, b"1234"),
        "tensor 'a' has a size or offset that",
    ),
    "fraction": (
        raw_file({"a": tensor(0, 4, [4.0])}, b"1234"),
        "tensor 'a' has a size or offset that",
    ),
    "boolean": (
        raw_file({"a": tensor(0, True, [])}, b"1"),
        "tensor 'a' has a size or offset that",
    ),
    "negative offset": (
        raw_file({"a": tensor(-4, 0)}, b"1234"),
        "tensor 'a' has a size or offset that",
    ),
    "sizes overflow": (
        raw_file({"a": tensor(0, 0, [2**62, 4, 0])}),
        "tensor 'a' is too large",
    ),
    "wrap round to 0": (
        raw_file({"a": tensor(0, 0, [2**32, 2**32])}),
        "tensor 'a' is too large",
    ),
    "65 axes": (
        raw_file({"a": tensor(0, 1, [1] * 65)}, b"1"),
        "tensor 'a' is too large",
    ),
    "wrong size": (
        raw_file({"a": tensor(0, 4, [5])}, b"1234"),
        r"tensor 'a': U8 \[5\] takes 5 bytes, its offsets say 4",
    ),
    "wrong dtype size": (
        raw_file({"a": tensor(0, 4, dtype="F32")}, b"1234"),
        r"F32 \[4\] takes 16 bytes, its offsets say 4",
    ),
    "offsets reversed": (raw_file({"a": tensor(4, 0)}, b"1234"), "its offsets say -4"),
    "truncated": (
        raw_file({"a": tensor(0, 4)}, b"123"),
        "tensor 'a' ends at byte 4 of 3: the file is cut short",
    ),
    "overlap": (
        raw_file({"a": tensor(0, 4), "b": tensor(3, 7)}, b"1234567"),
        r"tensor 'b' overlaps .* \(byte 3, not 4\)",
    ),
    "same bytes": (
        raw_file({"a": tensor(0, 4), "b": tensor(0, 4)}, b"1234"),
        "tensor 'b' overlaps",
    ),
    "gap": (
        raw_file({"a": tensor(0, 4), "b": tensor(5, 9)}, b"123456789"),
        r"tensor 'b' follows a gap \(byte 5, not 4\)",
    ),
    "gap at the start": (
        raw_file({"a": tensor(1, 5)}, b"12345"),
        "tensor 'a' follows a gap",
    ),
    "trailing bytes": (
        raw_file({"a": tensor(0, 4)}, b"123456"),
        "2 bytes after the last tensor",
    ),
}


@pytest.mark.parametrize("name", CORRUPT)
def test_corrupt_files(tmp_path: Path, name: str):
    content, message = CORRUPT[name]
    path = tmp_path / "bad.safetensors"
    path.write_bytes(content)
    with pytest.raises(InputError) as caught:
        open_file(path)
    text = str(caught.value)
    caught.match(f"is not a valid safetensors file: .*{message}")
    assert text.startswith(f"{path} is") and "\n" not in text
    assert path.read_bytes() == content


def test_order_in_the_header_is_free(tmp_path: Path):
    header = {"b": tensor(4, 8), "none": tensor(4, 4, [0]), "a": tensor(0, 4)}
    (tmp_path / "w").write_bytes(raw_file(header, b"12345678"))
    file = open_file(tmp_path / "w")
    assert list(file) == ["a", "none", "b"]
    assert file["b"].tobytes() == b"5678"


@pytest.mark.parametrize("cut", range(1, 40, 3))
def test_every_truncation_is_refused(tmp_path: Path, cut: int):
    save(
        tmp_path / "w",
        {"x": ("F32", np.zeros(4, "f4")), "y": ("U8", np.zeros(3, "u1"))},
    )
    data = (tmp_path / "w").read_bytes()
    (tmp_path / "w").write_bytes(data[:-cut])
    with pytest.raises(InputError):
        open_file(tmp_path / "w")


@given(st.binary(max_size=40))
def test_noise_is_refused(tmp_path_factory: pytest.TempPathFactory, noise: bytes):
    path = tmp_path_factory.mktemp("noise") / "w"
    path.write_bytes(len(noise).to_bytes(8, "little") + noise + b"!")
    with pytest.raises(InputError, match="not a valid safetensors file"):
        open_file(path)


def test_unreadable_files(tmp_path: Path):
    with pytest.raises(
        InputError, match="^cannot read .*/none: No such file or directory$"
    ):
        open_file(tmp_path / "none")
    with pytest.raises(InputError, match="^cannot read .*: Is a directory$"):
        open_file(tmp_path)
