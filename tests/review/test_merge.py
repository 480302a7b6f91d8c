"""Edits survive a recompile: three-way merges of texts, and of whole folders."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest
import torch

import torch2mlx
from tests.verify.models import MLP, ConvNet, build
from torch2mlx.api import Program
from torch2mlx.errors import ConflictError, InputError
from torch2mlx.review import merge as merging
from torch2mlx.review.merge import merge_into, three_way
from torch2mlx.review.record import RECORD_FILE, Record, read_record

BASE = "".join(f"line {i}\n" for i in range(1, 10))


def changed(number: int, text: str) -> str:
    return BASE.replace(f"line {number}\n", text)


def program(name: str = "MLP") -> Program:
    return torch2mlx.compile(build(MLP), (torch.randn(2, 8),), name=name)


def test_edits_at_different_places():
    merged, conflicts = three_way(changed(2, "mine\n"), BASE, changed(8, "new\n"))
    assert conflicts == 0
    assert merged == BASE.replace("line 2", "mine").replace("line 8", "new")


def test_a_conflict_holds_all_three():
    merged, conflicts = three_way(changed(5, "mine\n"), BASE, changed(5, "new\n"))
    assert conflicts == 1
    assert merged == changed(
        5,
        "<<<<<<< your edits\nmine\n||||||| generated before\nline 5\n=======\nnew\n"
        ">>>>>>> generated now\n",
    )


def test_the_same_change_twice_is_none():
    text = changed(5, "both\n")
    assert three_way(text, BASE, text) == (text, 0)


def test_line_endings_and_other_letters_stay():
    mine = changed(2, "# für später\r\n")
    merged, conflicts = three_way(mine, BASE, changed(8, "new\n"))
    assert conflicts == 0
    assert "# für später\r\n" in merged


def test_without_git(monkeypatch, tmp_path: Path):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(InputError, match="there is no git to merge with"):
        three_way("a\n", "b\n", "c\n")
    # Nothing to merge, no git needed
    assert three_way("a\n", "b\n", "b\n") == ("a\n", 0)


def test_a_record_comes_back():
    record = Record({"a.py": "x = 'ü'\n"}, ())
    assert Record.from_json(record.to_json()) == Record({"a.py": "x = 'ü'\n"}, [])
    with pytest.raises(InputError, match="not a record of torch2mlx"):
        Record.from_json("[]")


def test_an_edit_survives_a_recompile(tmp_path: Path):
    folder = program().save(tmp_path / "out")
    path = folder / "model_mlx.py"
    edit = "        x = x * 1.0  # mine\n        return self.head(x)\n"
    path.write_text(path.read_text().replace("        return self.head(x)\n", edit))
    program("Renamed").save(folder)
    text = path.read_text()
    assert edit in text
    assert text.startswith('"""Renamed in MLX')
    record = read_record(folder)
    assert record is not None
    assert record.texts["model_mlx.py"] == program("Renamed").source
    # And again: the base is what was generated, not what was merged
    program("Again").save(folder)
    assert edit in path.read_text()
    assert path.read_text().startswith('"""Again in MLX')


def test_a_conflict_is_marked_and_stops_the_next_compile(tmp_path: Path):
    folder = program().save(tmp_path / "out")
    path = folder / "model_mlx.py"
    mine = path.read_text().replace('"""MLP in MLX', '"""My MLP in MLX')
    path.write_text(mine)
    with pytest.raises(ConflictError, match="1 conflict between your edits and"):
        program("Renamed").save(folder)
    marked = path.read_text()
    assert '"""My MLP in MLX' in marked
    assert '"""Renamed in MLX' in marked
    before = {p.name: p.read_bytes() for p in folder.iterdir()}
    with pytest.raises(InputError, match="unresolved conflicts"):
        program("Third").save(folder)
    assert {p.name: p.read_bytes() for p in folder.iterdir()} == before


def test_what_was_never_generated_is_kept_aside(tmp_path: Path):
    folder = program().save(tmp_path / "out")
    (folder / RECORD_FILE).unlink()
    (folder / "model_mlx.py").write_text("by hand\n")
    program().save(folder)
    assert (folder / "model_mlx.py.orig").read_text() == "by hand\n"
    assert (folder / "model_mlx.py").read_text() == program().source
    # A name that is taken is not taken again
    (folder / RECORD_FILE).write_text("broken")
    (folder / "model_mlx.py").write_text("by hand, too\n")
    program().save(folder)
    assert (folder / "model_mlx.py.orig").read_text() == "by hand\n"
    assert (folder / "model_mlx.py.orig2").read_text() == "by hand, too\n"


def test_values_that_were_added_to_config_json_stay(tmp_path: Path):
    folder = program().save(tmp_path / "out")
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"license": "mit"}))
    program("Renamed").save(folder)
    found = json.loads(path.read_text())
    assert found == {
        "license": "mit",
        "model_file": "model_mlx.py",
        "model_type": "renamed",
    }


def test_an_edit_while_it_is_written_is_not_lost(tmp_path: Path, monkeypatch):
    folder = program().save(tmp_path / "out")
    path = folder / "model_mlx.py"
    real = merging.merge_into

    def slow(*args):
        result = real(*args)
        path.write_text("edited just now\n")
        return result

    monkeypatch.setattr("torch2mlx.writing.merge_into", slow)
    with pytest.raises(InputError, match="was changed in the meantime"):
        program("Renamed").save(folder)
    assert path.read_text() == "edited just now\n"


@pytest.mark.parametrize("stage", ["merge_into", "write_folder"])
def test_a_failure_leaves_the_old_folder(tmp_path: Path, monkeypatch, stage: str):
    folder = program().save(tmp_path / "out")
    (folder / "model_mlx.py").write_text("edited\n")
    before = {p.name: p.read_bytes() for p in folder.iterdir()}

    def broken(*args):
        raise KeyboardInterrupt

    monkeypatch.setattr(f"torch2mlx.writing.{stage}", broken)
    with pytest.raises(KeyboardInterrupt):
        program("Renamed").save(folder)
    assert {p.name: p.read_bytes() for p in folder.iterdir()} == before
    assert [p.name for p in tmp_path.iterdir()] == ["out"]


def test_git_takes_no_notice_of_the_users_settings(tmp_path: Path, monkeypatch):
    config = tmp_path / ".gitconfig"
    config.write_text("[merge]\n\tconflictStyle = zdiff3\n")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert subprocess.run(["git", "--version"], check=False).returncode == 0
    merged, _ = three_way(changed(5, "mine\n"), BASE, changed(5, "new\n"))
    assert "||||||| generated before\nline 5\n" in merged


def test_files_that_are_no_text(tmp_path: Path):
    (tmp_path / "model_mlx.py").write_bytes(b"\xff")
    with pytest.raises(InputError, match="is no UTF-8 text"):
        merge_into(tmp_path, {"model_mlx.py": "x\n"})


def test_the_same_model_gives_the_same_bytes(tmp_path: Path):
    from torch2mlx.writing import Extras

    extras = Extras(certificate=True, annotate=True, source_map=True)
    x = torch.randn(2, 3, 12, 12)
    for name in ("one", "two"):
        made = torch2mlx.compile(build(ConvNet), (x,))
        made.save(tmp_path / name, extras=extras)
    names = sorted(p.name for p in (tmp_path / "one").iterdir())
    assert names == sorted(p.name for p in (tmp_path / "two").iterdir())
    assert len(names) == 7
    for name in names:
        one, two = (
            (tmp_path / folder / name).read_bytes() for folder in ("one", "two")
        )
        assert one == two, name
