"""`--input` specs: what they mean, and exactly what is said about bad ones."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from torch2mlx.errors import InputError
from torch2mlx.source.inputs import (
    DTYPES,
    describe,
    fill,
    name_positions,
    parse,
    parse_all,
)


class Pair(nn.Module):
    def forward(self, tokens, scale=None, *rest, mask=None, **options):
        return tokens


@pytest.mark.parametrize(
    ("spec", "name", "shape", "dtype"),
    [
        ("2,3,224,224", None, (2, 3, 224, 224), torch.float32),
        (" 2 , 3 ", None, (2, 3), torch.float32),
        ("7", None, (7,), torch.float32),
        ("int64[2,16]", None, (2, 16), torch.int64),
        ("bool[4]", None, (4,), torch.bool),
        ("float32[]", None, (), torch.float32),
        ("x=2,3", "x", (2, 3), torch.float32),
        ("input_ids=int64[2,16]", "input_ids", (2, 16), torch.int64),
        ("_x1 = bfloat16[2, 3]", None, None, None),
    ],
)
def test_parse(spec, name, shape, dtype):
    if shape is None:
        # The equal sign takes no blanks around it
        with pytest.raises(InputError, match="a dtype and its sizes are written"):
            parse(spec)
        return
    (one,) = parse(spec)
    assert (one.name, one.shape, one.dtype, one.value) == (name, shape, dtype, None)


@pytest.mark.parametrize(
    ("spec", "why"),
    [
        (
            "",
            "it is empty; give 2,3,224,224 or int64[2,16] or input_ids=int64[2,16] or inputs.npz",
        ),
        (
            "x=",
            "it is empty; give 2,3,224,224 or int64[2,16] or input_ids=int64[2,16] or inputs.npz",
        ),
        (
            "2x3",
            "'2x3' is not a size; give 2,3,224,224 or int64[2,16] or "
            "input_ids=int64[2,16] or inputs.npz",
        ),
        (
            "2,,3",
            "'' is not a size; give 2,3,224,224 or int64[2,16] or "
            "input_ids=int64[2,16] or inputs.npz",
        ),
        (
            "-1,3",
            "'-1' is not a size; give 2,3,224,224 or int64[2,16] or "
            "input_ids=int64[2,16] or inputs.npz",
        ),
        ("0,3", "sizes must be at least 1"),
        ("65536,65536", "4,294,967,296 numbers are too many for an example"),
        ("int64", "'int64' has no sizes; write int64[2,16]"),
        ("int64[2,16", "a dtype and its sizes are written like int64[2,16]"),
        ("[2,16]", "a dtype and its sizes are written like int64[2,16]"),
        ("long[2]", f"unknown dtype 'long'; it is one of {', '.join(DTYPES)}"),
        ("none.npz", "there is no file none.npz"),
    ],
)
def test_bad_spec(spec: str, why: str):
    with pytest.raises(InputError) as caught:
        parse(spec)
    assert str(caught.value) == f"--input {spec!r}: {why}"


def test_npz(tmp_path: Path):
    path = tmp_path / "in.npz"
    x, tokens = np.arange(6, dtype=np.float32).reshape(2, 3), np.array([[1, 2]])
    np.savez(path, x, input_ids=tokens)
    by_name = {one.name: one for one in parse(str(path))}
    assert set(by_name) == {None, "input_ids"}
    assert torch.equal(by_name[None].value, torch.from_numpy(x))
    assert torch.equal(by_name["input_ids"].value, torch.from_numpy(tokens))


def test_npy_keeps_its_rank_and_takes_a_name(tmp_path: Path):
    path = tmp_path / "scale.npy"
    np.save(path, np.array(2.5, dtype=np.float32))
    (one,) = parse(f"scale={path}")
    assert (one.name, one.shape, float(one.value)) == ("scale", (), 2.5)


def test_npz_with_a_name(tmp_path: Path):
    path = tmp_path / "in.npz"
    np.savez(path, np.zeros(2))
    with pytest.raises(InputError, match=r"names its arrays itself; leave out 'x='$"):
        parse(f"x={path}")


@pytest.mark.parametrize("content", [b"", b"not a file of arrays", b"PK\x03\x04broken"])
def test_damaged_npz(tmp_path: Path, content: bytes):
    path = tmp_path / "bad.npz"
    path.write_bytes(content)
    with pytest.raises(InputError) as caught:
        parse(str(path))
    text = str(caught.value)
    assert text.startswith(f"--input {str(path)!r}: {path} cannot be read as NumPy")
    assert "\n" not in text


def test_damaged_member(tmp_path: Path):
    path = tmp_path / "bad.npz"
    np.savez_compressed(path, x=np.arange(1000))
    data = bytearray(path.read_bytes())
    data[200:260] = bytes(60)
    path.write_bytes(data)
    with pytest.raises(InputError, match="array 'x' cannot be read"):
        parse(str(path))


def test_text_arrays_and_pickles_are_refused(tmp_path: Path):
    path = tmp_path / "in.npz"
    np.savez(path, words=np.array(["a", "b"]))
    with pytest.raises(InputError, match="array 'words' has the dtype <U1, which is"):
        parse(str(path))
    np.savez(path, things=np.array([object()], dtype=object))
    with pytest.raises(InputError, match="array 'things' cannot be read: Object"):
        parse(str(path))


def test_a_name_comes_once():
    with pytest.raises(InputError, match=r"^--input: 'x' is given twice$"):
        parse_all(["x=2,3", "4", "x=2,3"])


def test_positions_get_their_names():
    specs = parse_all(["2,3", "1", "5", "mask=bool[2]", "other=4"])
    assert name_positions(Pair(), specs) == [
        "tokens",
        "scale",
        "rest",
        "mask",
        "other",
    ]


class One(nn.Module):
    def forward(self, x):
        return x


@pytest.mark.parametrize(
    ("specs", "why"),
    [
        (["2", "3"], "too many positional arguments"),
        (["y=2"], "missing a required argument: 'x'"),
        (["2", "x=2"], "multiple values for argument 'x'"),
        (["2", "y=2"], "got an unexpected keyword argument 'y'"),
    ],
)
def test_specs_that_do_not_fit(specs: list[str], why: str):
    with pytest.raises(InputError) as caught:
        name_positions(One(), parse_all(specs))
    assert str(caught.value) == f"--input: {why}; forward() of One takes x"


def test_fill_is_reproducible_and_keeps_values(tmp_path: Path):
    path = tmp_path / "x.npy"
    np.save(path, np.arange(4.0))
    specs = parse_all([str(path), "3,2", "mask=int64[2,3]"])
    names = ["x", "y", "mask"]
    args, kwargs = fill(specs, names, {})
    again, _ = fill(specs, names, {})
    assert torch.equal(args[0], torch.arange(4, dtype=torch.float64))
    assert args[1].shape == (3, 2)
    assert torch.equal(args[1], again[1])
    assert torch.equal(kwargs["mask"], torch.ones(2, 3, dtype=torch.int64))


@pytest.mark.parametrize(
    ("spec", "limits", "top"),
    [
        ("int64[1000]", {"tokens": 7, "": 3}, 6),
        ("int32[1000]", {"": 3}, 2),
        ("uint8[1000]", {"tokens": 100_000}, 254),
        ("int64[1000]", {}, 1),
    ],
)
def test_integers_stay_below_the_limit(spec: str, limits: dict[str, int], top: int):
    (tokens,), _ = fill(parse_all([spec]), ["tokens"], limits)
    assert tokens.min() == 0
    assert tokens.max() <= top
    if top < 100:
        assert tokens.max() == top


@pytest.mark.parametrize("name", [name for name in DTYPES if name != "int64"])
def test_every_dtype_is_filled(name: str):
    (value,), _ = fill(parse_all([f"{name}[2,3]"]), ["x"], {"": 5})
    assert value.dtype is DTYPES[name]
    assert value.shape == (2, 3)


def test_describe():
    assert describe("x", (2, 3), torch.float32) == "x: float32 [2, 3]"
    assert describe(None, (), torch.int64) == "int64 []"
