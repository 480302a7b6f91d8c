"""Folders appear whole or not at all: with failures injected at every step, and kills."""

from __future__ import annotations

import errno
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from torch2mlx.errors import InputError
from torch2mlx.weights import (
    folder,
    open_checkpoint,
    open_file,
    save_folder,
    staging,
    write,
)

OLD = {"model_mlx.py": b"old", "config.json": b"old", "notes/mine.txt": b"mine"}
FILES = {"model_mlx.py": "new é", "config.json": b"new"}
NEW = {
    "model_mlx.py": "new é".encode(),
    "config.json": b"new",
    "model.safetensors": b"weights",
}
BOTH = NEW | {"notes/mine.txt": b"mine"}


def put_weights(stage: Path) -> None:
    (stage / "model.safetensors").write_bytes(b"weights")


def contents(path: Path) -> dict[str, bytes]:
    return {
        str(file.relative_to(path)): file.read_bytes()
        for file in sorted(path.rglob("*"))
        if file.is_file()
    }


@pytest.fixture
def parent(tmp_path: Path) -> Path:
    """A folder that holds nothing but what the test saves."""
    (tmp_path / "parent").mkdir()
    return tmp_path / "parent"


@pytest.fixture
def old(parent: Path) -> Path:
    path = parent / "out"
    (path / "notes").mkdir(parents=True)
    for name, content in OLD.items():
        (path / name).write_bytes(content)
    return path


@pytest.fixture(params=["atomic", "renames"])
def exchange(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Both ways of putting the new folder in the place of the old one."""
    if request.param == "renames":
        monkeypatch.setattr(folder, "_exchange_atomically", lambda stage, target: False)
    return request.param


def only(parent: Path, *names: str) -> bool:
    return sorted(os.listdir(parent)) == sorted(names)


def test_new_folder(parent: Path):
    path = parent / "a" / "b"
    assert save_folder(path, FILES, put_weights) == path
    assert contents(path) == NEW
    assert only(parent / "a", "b")


def test_mode_follows_the_umask(parent: Path):
    before = os.umask(0o027)
    try:
        save_folder(parent / "out", FILES)
    finally:
        os.umask(before)
    assert (parent / "out").stat().st_mode & 0o777 == 0o750
    assert (parent / "out" / "config.json").stat().st_mode & 0o777 == 0o640


def test_existing_folder_keeps_the_other_files(old: Path, exchange: str):
    (old / "link").symlink_to("nowhere")
    (old / "notes" / "run.sh").write_text("run")
    (old / "notes" / "run.sh").chmod(0o755)
    old.chmod(0o711)
    mine = (old / "notes" / "mine.txt").stat()
    save_folder(old, FILES, put_weights)
    assert contents(old) == BOTH | {"notes/run.sh": b"run"}
    assert only(old.parent, "out")
    assert os.readlink(old / "link") == "nowhere"
    assert (old / "notes" / "run.sh").stat().st_mode & 0o777 == 0o755
    assert old.stat().st_mode & 0o777 == 0o711
    assert (old / "notes" / "mine.txt").stat().st_ino == mine.st_ino


def test_file_systems_without_hard_links(old: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(os, "link", failing(os.link, OSError(errno.EPERM, "no")))
    os.utime(old / "notes" / "mine.txt", (1000, 1000))
    save_folder(old, FILES, put_weights)
    assert contents(old) == BOTH
    assert (old / "notes" / "mine.txt").stat().st_mtime == 1000


def test_save_twice(parent: Path, exchange: str):
    for _ in range(3):
        save_folder(parent / "out", FILES, put_weights)
    assert contents(parent / "out") == NEW
    assert only(parent, "out")


def test_a_linked_folder_stays_a_link(old: Path, exchange: str):
    link = old.parent / "link"
    link.symlink_to("out")
    save_folder(link, FILES, put_weights)
    assert link.is_symlink()
    assert contents(old) == BOTH
    assert only(old.parent, "out", "link")


def test_what_is_mapped_from_the_old_folder_stays_readable(parent: Path):
    """A folder is compiled onto itself: its weights are read while it is replaced."""
    path = parent / "out"
    values = np.arange(4, dtype="f4")

    def doubled(stage: Path) -> None:
        write(
            stage / "model.safetensors",
            [("x", "F32", (4,))],
            lambda _: 2 * open_file(path / "model.safetensors")["x"],
        )

    save_folder(
        path,
        {},
        lambda stage: write(
            stage / "model.safetensors", [("x", "F32", (4,))], lambda _: values
        ),
    )
    before = open_file(path / "model.safetensors")["x"]
    save_folder(path, {}, doubled)
    assert open_file(path / "model.safetensors")["x"].tolist() == [0, 2, 4, 6]
    assert before.tolist() == [0, 1, 2, 3]


def failing(real: Callable[..., Any], error: BaseException, at: int = 0) -> Any:
    """`real`, but its call number `at` (from 0) and all later ones raise."""
    calls = iter(range(1000))

    def call(*args: Any, **kwargs: Any) -> Any:
        if next(calls) >= at:
            raise error
        return real(*args, **kwargs)

    return call


def once(real: Callable[..., Any], error: BaseException, at: int) -> Any:
    """`real`, but its call number `at` (from 0) raises."""
    calls = iter(range(1000))

    def call(*args: Any, **kwargs: Any) -> Any:
        if next(calls) == at:
            raise error
        return real(*args, **kwargs)

    return call


FULL = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
# (replacing a folder, object, attribute, number of the call that fails)
STEPS = [
    (False, Path, "mkdir", 0),
    (False, Path, "mkdir", 1),
    (False, Path, "write_bytes", 0),
    (False, Path, "write_bytes", 1),
    (False, os, "fsync", 0),
    (False, os, "fsync", 2),
    (False, os, "rename", 0),
    (True, Path, "mkdir", 1),
    (True, Path, "write_bytes", 1),
    (True, os, "fsync", 2),
    (True, shutil, "copystat", 0),
    (True, shutil, "copystat", 1),
    (True, shutil, "copy2", 0),
    (True, folder, "_exchange_atomically", 0),
    (True, os, "rename", 0),
    (True, os, "rename", 1),
]


@pytest.mark.parametrize(
    "error", [FULL, KeyboardInterrupt()], ids=["full", "interrupt"]
)
@pytest.mark.parametrize(("exists", "where", "name", "at"), STEPS)
def test_a_failure_at_any_step(
    old: Path,
    exists: bool,
    where: Any,
    name: str,
    at: int,
    error: BaseException,
    monkeypatch: pytest.MonkeyPatch,
):
    if not exists:
        shutil.rmtree(old)
    with monkeypatch.context() as patch:
        if name == "copy2":
            patch.setattr(os, "link", failing(os.link, OSError(errno.EPERM, "no")))
        if name == "rename":
            patch.setattr(folder, "_exchange_atomically", lambda *_: False)
        patch.setattr(where, name, once(getattr(where, name), error, at))
        expected = InputError if error is FULL else KeyboardInterrupt
        with pytest.raises(expected) as caught:
            save_folder(old, FILES, put_weights)
    if error is FULL:
        assert str(caught.value) == f"cannot write {old}: No space left on device"
    if exists:
        assert contents(old) == OLD
        assert only(old.parent, "out")
    else:
        assert only(old.parent)


@pytest.mark.parametrize(
    "error",
    [InputError("a bad checkpoint"), KeyboardInterrupt(), ValueError("a fault")],
)
def test_failing_weights(old: Path, error: BaseException):
    def weights(stage: Path) -> None:
        (stage / "model.safetensors").write_bytes(b"half")
        raise error

    with pytest.raises(type(error)) as caught:
        save_folder(old, FILES, weights)
    assert caught.value is error
    assert contents(old) == OLD
    assert only(old.parent, "out")


def test_an_interrupt_after_the_exchange(
    old: Path, exchange: str, monkeypatch: pytest.MonkeyPatch
):
    with monkeypatch.context() as patch:
        real = shutil.rmtree
        patch.setattr(shutil, "rmtree", once(real, KeyboardInterrupt(), at=0))
        with pytest.raises(KeyboardInterrupt):
            save_folder(old, FILES, put_weights)
    assert contents(old) == BOTH


def test_the_old_folder_is_never_lost(old: Path, monkeypatch: pytest.MonkeyPatch):
    """Neither the new folder nor the old one can be renamed into place: the message says where it is."""
    monkeypatch.setattr(folder, "_exchange_atomically", lambda *_: False)
    broken = OSError(errno.EIO, os.strerror(errno.EIO))
    with monkeypatch.context() as patch:
        patch.setattr(os, "rename", failing(os.rename, broken, at=1))
        with pytest.raises(InputError, match="the old folder is now ") as caught:
            save_folder(old, FILES, put_weights)
    aside = Path(str(caught.value).rsplit(" ", 1)[1])
    assert contents(aside) == OLD
    assert only(old.parent, aside.name)


@pytest.mark.parametrize("code", [errno.ENOSYS, errno.EINVAL, errno.ENOTSUP])
def test_systems_without_an_exchange(
    old: Path, code: int, monkeypatch: pytest.MonkeyPatch
):
    class Library:
        def renameat2(self, *_: Any) -> int:
            return -1

        renamex_np = renameat2

    monkeypatch.setattr(folder.ctypes, "CDLL", lambda *_, **__: Library())
    monkeypatch.setattr(folder.ctypes, "get_errno", lambda: code)
    save_folder(old, FILES, put_weights)
    assert contents(old) == BOTH
    assert only(old.parent, "out")


def test_c_libraries_without_an_exchange(old: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(folder.ctypes, "CDLL", lambda *_, **__: object())
    save_folder(old, FILES, put_weights)
    assert contents(old) == BOTH


def test_a_refused_exchange(old: Path, monkeypatch: pytest.MonkeyPatch):
    class Library:
        def renameat2(self, *_: Any) -> int:
            return -1

        renamex_np = renameat2

    monkeypatch.setattr(folder.ctypes, "CDLL", lambda *_, **__: Library())
    monkeypatch.setattr(folder.ctypes, "get_errno", lambda: errno.EBUSY)
    with pytest.raises(
        InputError, match=f"^cannot write {old}: {os.strerror(errno.EBUSY)}$"
    ):
        save_folder(old, FILES, put_weights)
    assert contents(old) == OLD
    assert only(old.parent, "out")


def test_places_that_are_refused(old: Path, monkeypatch: pytest.MonkeyPatch):
    file = old / "config.json"
    (old / "model.safetensors").mkdir()
    cases = {
        file: "cannot write the folder {}: a file is in its place",
        file / "out": f"cannot write {{}}: {file} is not a folder",
        file / "deep" / "out": f"cannot write {{}}: {file} is not a folder",
        old: "cannot write {}/model.safetensors: a folder is in its place",
        Path(
            "/proc"
        ): "cannot write {}: a mount point cannot be replaced, name a folder inside it",
        old.parent / ("x" * 300): "cannot write {}: File name too long",
    }
    for path, text in cases.items():
        with pytest.raises(InputError) as caught:
            save_folder(path, FILES, put_weights)
        assert str(caught.value) == text.format(path)
    monkeypatch.chdir(old / "notes")
    with pytest.raises(InputError, match=f"^cannot write {old}: the current folder"):
        save_folder(old, FILES)
    monkeypatch.chdir(old.parent)
    monkeypatch.setattr(os, "access", lambda *_: False)
    with pytest.raises(InputError, match=f"^cannot write {old}: Permission denied$"):
        save_folder(old, FILES)
    assert contents(old) == OLD
    assert only(old.parent, "out")


def child(code: str, *args: str) -> subprocess.Popen[str]:
    env = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-c", code, *args]
    return subprocess.Popen(
        command, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


LIMITED = """
import resource, sys
from pathlib import Path
import numpy as np
from torch2mlx.errors import InputError
from torch2mlx.weights import save_folder, write

resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, 1 << 20))
zeros = lambda key: np.zeros(1 << 19, "u1")
tensors = [(f"x{i}", "U8", (1 << 19,)) for i in range(4)]
try:
    save_folder(sys.argv[1], {}, lambda stage: write(stage / "w", tensors, zeros))
except InputError as error:
    print(error)
"""


def test_the_system_refuses_a_write_midway(old: Path):
    """A real failure half way through the weights: the message names the final place."""
    process = child(LIMITED, str(old))
    out, err = process.communicate(timeout=60)
    assert (out, err) == (f"cannot write {old}/w: File too large\n", "")
    assert contents(old) == OLD
    assert only(old.parent, "out")


def test_what_killed_runs_left_is_cleared(parent: Path):
    """Files and folders; but neither those of a run that goes on, nor anything else."""
    left = parent / ".torch2mlx-0123456789ab"
    (left / "deep").mkdir(parents=True)
    (parent / ".torch2mlx-ba9876543210").write_bytes(b"half")
    others = [".torch2mlx-old-0123456789ab", ".torch2mlx-mine", "out"]
    for name in others[:2]:
        (parent / name).mkdir()

    def weights(stage: Path) -> None:
        assert only(parent, *others[:2], stage.name)
        # Another run meanwhile
        write(parent / "w", [], lambda key: np.zeros(0))
        save_folder(parent / "other", {})
        assert stage.exists()

    save_folder(parent / "out", FILES, weights)
    assert only(parent, *others, "other", "w")


def test_systems_without_locks(parent: Path, monkeypatch: pytest.MonkeyPatch):
    """Nothing is cleared there: it may be in use."""
    (parent / ".torch2mlx-0123456789ab").mkdir()

    def refused(*_: Any) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(staging.fcntl, "flock", refused)
    save_folder(parent / "out", FILES)
    monkeypatch.setattr(staging, "fcntl", None)
    save_folder(parent / "out", FILES)
    assert only(parent, ".torch2mlx-0123456789ab", "out")


def test_a_place_that_another_run_took_for_left_over(
    parent: Path, monkeypatch: pytest.MonkeyPatch
):
    real, calls = staging._lock, iter(range(9))

    def lock(place: Path) -> int | None:
        if next(calls) == 0:
            place.rmdir()
        return real(place)

    monkeypatch.setattr(staging, "_lock", lock)
    save_folder(parent / "out", FILES)
    assert only(parent, "out")


LOOP = """
import itertools, sys
from torch2mlx.weights import folder, save_folder

print("ready", flush=True)
for i in itertools.count(1):
    text = str(i) * 1000
    save_folder(sys.argv[1], {"a": text}, lambda stage: (stage / "b").write_text(text))
"""


def test_killed_at_any_moment(parent: Path):
    """The two files of the folder always come from the same save, and the user's file is there."""
    path = parent / "out"
    rounds = set()
    for delay in (0.0, 0.003, 0.01, 0.02, 0.05):
        shutil.rmtree(path, ignore_errors=True)
        save_folder(path, {"a": "0" * 1000, "b": "0" * 1000, "mine": "mine"})
        process = child(LOOP, str(path))
        assert process.stdout is not None and process.stdout.readline() == "ready\n"
        time.sleep(delay)
        process.send_signal(signal.SIGKILL)
        process.communicate(timeout=60)
        found = contents(path)
        assert found.keys() == {"a", "b", "mine"}
        assert found["a"] == found["b"] and found["mine"] == b"mine"
        rounds.add(found["a"])
    assert rounds != {b"0" * 1000}


LARGE = """
import sys
import numpy as np
from torch2mlx.weights import save_folder, write_model

value, size = int(sys.argv[2]), 16 << 20
tensors = [(f"x{i}", "U8", (size,)) for i in range(16)]
print("ready", flush=True)
save_folder(
    sys.argv[1],
    {"a": str(value)},
    lambda stage: write_model(stage, tensors, lambda key: np.full(size, value, "u1"), limit=1 << 26),
)
print("done", flush=True)
"""


@pytest.mark.slow
def test_killed_while_a_large_checkpoint_is_written(parent: Path):
    """256 MB in shards: the old one or the new one, whole, and nothing else after the next run."""
    path, rng = parent / "out", random.Random(0)

    def state() -> int:
        value = int((path / "a").read_text())
        tensors = open_checkpoint(path)
        assert len(tensors) == 16
        assert all((array == value).all() for array in tensors.values())
        return value

    begin = time.monotonic()
    assert child(LARGE, str(path), "1").communicate(timeout=300) == (
        "ready\ndone\n",
        "",
    )
    whole, killed = time.monotonic() - begin, 0
    for value in range(2, int(os.environ.get("KILLS", "4")) + 2):
        before = state()
        process = child(LARGE, str(path), str(value))
        assert process.stdout is not None and process.stdout.readline() == "ready\n"
        time.sleep(rng.uniform(0, whole))
        process.send_signal(signal.SIGKILL)
        done = "done" in process.communicate(timeout=300)[0]
        killed += not done
        assert state() in ((value,) if done else (before, value))
    save_folder(path, {"b": ""}, stale=lambda name: name == "a")
    assert killed and only(parent, "out")
