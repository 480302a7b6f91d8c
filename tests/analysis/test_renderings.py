"""The renderings: all say the same, and nothing of the model's gets out of its place."""

from __future__ import annotations

import io
import json
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest
from rich.console import Console

from tests.analysis import models
from torch2mlx import Analysis, InputError
from torch2mlx.analysis.rendering import FORMS, print_analysis
from torch2mlx.analysis.rendering.words import number, op_name, percent, place

VOID = {"meta", "br", "img", "link", "input", "hr", "base"}


class Page(HTMLParser):
    """Reads a page strictly: every element is closed, in order."""

    def __init__(self, text: str):
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.tags: set[str] = set()
        self.attributes: list[tuple[str, str, str]] = []
        self.text: list[str] = []
        self.ids: list[str] = []
        self.feed(text)
        self.close()
        assert not self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes += [(tag, name, value or "") for name, value in attrs]
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open and self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] != "style":
            self.text.append(data)

    @property
    def words(self) -> str:
        return " ".join("".join(self.text).split())


def test_the_page_is_whole_and_needs_nothing_else(analysis: Analysis) -> None:
    text = FORMS[".html"](analysis)
    page = Page(text)
    assert text.startswith("<!doctype html>")
    forbidden = {"script", "img", "link", "iframe", "object", "embed", "base", "form"}
    assert not page.tags & forbidden
    for _, name, _ in page.attributes:
        assert not name.startswith("on") and name not in ("src", "href", "srcset")
    style = text[text.index("<style>") : text.index("</style>")]
    assert "url(" not in style and "@import" not in style
    assert "prefers-color-scheme: dark" in style
    viewport = ("meta", "content", "width=device-width, initial-scale=1")
    assert viewport in page.attributes
    assert ("html", "lang", "en") in page.attributes


def test_the_page_says_it_all(analysis: Analysis) -> None:
    words = Page(FORMS[".html"](analysis)).words
    assert analysis.meaning in words and analysis.model in words
    assert percent(analysis.coverage) in words
    for refusal in analysis.refused:
        for text in (refusal.op, refusal.hint, refusal.alternative):
            assert " ".join(text.split()) in words
        assert " ".join(place(refusal.source_line)[1].split()) in words
    for failure in analysis.failures:
        for text in (failure.module, failure.cause, failure.rewrite):
            assert text in words
    for row in analysis.ops:
        assert op_name(row.op) in words
    for pair in analysis.translation.pairs if analysis.translation else []:
        assert " ".join(pair.generated.split()) in words
        assert pair.original and " ".join(pair.original.split()) in words


def test_markup_of_the_model_stays_text(hostile: Analysis) -> None:
    text = FORMS[".html"](hostile)
    page = Page(text)
    assert models.Hostile.NAME in page.words
    assert '"</code><script>alert(1)</script>"' in page.words
    assert "onerror=alert(1)>" not in text
    assert "<script" not in text


def test_markdown_tables_keep_their_columns(analysis: Analysis) -> None:
    text = FORMS[".md"](analysis)
    width = 0
    for line in text.splitlines():
        if not line.startswith("|"):
            width = 0
            continue
        bars = len(re.findall(r"(?<!\\)\|", line))
        assert bars == (width or bars), line
        width = bars
    for refusal in analysis.refused:
        assert f"`{refusal.op}`" in text
    assert "<script" not in re.sub(r"(`+).*?\1", "", text)


def test_json_has_the_figures(analysis: Analysis) -> None:
    found = json.loads(FORMS[".json"](analysis))
    assert found["status"] == analysis.status
    assert found["coverage"] == analysis.coverage
    assert sum(found["calls"].values()) == len(analysis.calls)
    assert sum(row["calls"] for row in found["ops"]) == len(analysis.calls)
    assert [row["path"] for row in found["modules"]] == [
        row.path for row in analysis.modules
    ]
    assert [entry["op"] for entry in found["refused"]] == [
        entry.op for entry in analysis.refused
    ]


def test_text_is_what_the_terminal_shows(analysis: Analysis) -> None:
    text = str(analysis)
    words = " ".join(text.split())
    assert " ".join(analysis.meaning.split()) in words
    for row in analysis.ops:
        assert op_name(row.op) in text
    assert not any(line != line.rstrip() for line in text.splitlines())
    assert max(map(len, text.splitlines())) <= 100
    out = io.StringIO()
    print_analysis(
        Console(file=out, width=60, force_terminal=True, color_system="truecolor"),
        analysis,
    )
    assert "\x1b[" in out.getvalue()


def test_files_are_written_by_their_endings(
    compiles: Analysis, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    names = [f"report{ending}" for ending in FORMS]
    Path("report.md").write_text("an older one")
    compiles.save(*names)
    for name, form in zip(names, FORMS.values(), strict=True):
        assert Path(name).read_text() == form(compiles)
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted(names)


def test_refused_files(compiles: Analysis, tmp_path: Path) -> None:
    (tmp_path / "a.html").mkdir()
    fine = tmp_path / "fine.md"
    for bad, why in (
        (tmp_path / "report.pdf", "a report's name ends in .md, .json, .html, .txt"),
        (tmp_path / "a.html", "it is a folder"),
        (tmp_path / "none" / "a.md", "no folder"),
    ):
        with pytest.raises(InputError, match=why):
            compiles.save(fine, bad)
        assert not fine.exists()


def test_percentages_are_full_or_nothing_only_where_they_are() -> None:
    assert [percent(x) for x in (0.0, 1e-9, 2 / 3, 0.9996, 1.0)] == [
        "0 %",
        "0.1 %",
        "66.7 %",
        "99.9 %",
        "100 %",
    ]


def test_numbers_and_places() -> None:
    assert [number(n) for n in (0, 999, 1000, 25_557_032, 2 * 10**12)] == [
        "0",
        "999",
        "1 k",
        "25.6 M",
        "2 T",
    ]
    file = str(Path.cwd() / "net.py")
    assert place(f"{file}:3: x = a[1:2]") == ("net.py:3", "x = a[1:2]")
    assert place("/x/site-packages/timm/a.py:7: y") == ("timm/a.py:7", "y")
    assert place("no place") == ("", "no place")
    assert op_name("aten.conv2d.default") == "conv2d"
    assert op_name("torch2mlx.swiglu.default") == "swiglu (fused)"
