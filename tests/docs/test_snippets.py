"""Every block of code in the README and the documentation does what the page says."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from tests.docs import pages

PAGES = [pages.ROOT / "README.md", *sorted((pages.ROOT / "docs").glob("*.md"))]


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """An empty current folder that can be imported from, and is forgotten afterwards."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("COLUMNS", "88")
    before = set(sys.modules)
    yield
    for name in set(sys.modules) - before:
        # A folder without __init__.py has a path, but no file
        found = vars(sys.modules[name])
        if str(tmp_path) in f"{found.get('__file__')} {found.get('__path__')}":
            del sys.modules[name]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_page(page: Path, update_golden: bool) -> None:
    pages.run(page, update_golden)


def test_what_does_not_hold_is_found(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    for text in (
        "```python\nprint(1)\n```\n```text\n2\n```\n",
        "```python\n# a.py\nclass A:\n    x = 1\n```\n```python\n# a.py: A\nclass A:\n```\n",
        "```console\n$ torch2mlx-compile --version\ntorch2mlx 99\n```\n",
        "```python\nassert False\n```\n",
    ):
        page.write_text(text)
        with pytest.raises(AssertionError):
            pages.run(page)


def test_excerpts_are_updated(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    code = "class A:\n    x = 1\n\n\n@print\ndef f():\n    return 2\n"
    page.write_text(
        f"```python\n# a.py\n{code}```\n```python\n# a.py: f, A\n```\nend\n"
    )
    pages.run(page, update=True)
    shown = "@print\ndef f():\n    return 2\n\n\nclass A:\n    x = 1\n"
    assert page.read_text().endswith(f"```python\n# a.py: f, A\n{shown}```\nend\n")
    pages.run(page)


def test_links_lead_somewhere() -> None:
    for page in [*PAGES, pages.ROOT / "CONTRIBUTING.md"]:
        for target in pages.links(page):
            assert (page.parent / target).exists(), f"{page.name}: {target}"
