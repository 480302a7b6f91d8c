"""The code blocks of a documentation page, and how each kind is run.

- `python`: executed, all blocks of a page in one namespace; a `text` block right after it is the output.
- `python` that begins with `# net.py`: written to that file instead.
- `python` that begins with `# net_mlx/model_mlx.py: Net, Block`: the text of these classes or functions
  of that file, which is in the current folder or in the repository.
- `console`: every `$ torch2mlx-compile` or `$ python` is run, and what it prints compared with the
  lines below it, if there are any. `...` stands for anything.

Blocks of other kinds are only shown.
"""

from __future__ import annotations

import ast
import contextlib
import doctest
import io
import re
import runpy
import shlex
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch2mlx.cli import main

ROOT = Path(__file__).parents[2]
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
HEAD = re.compile(r"# ([\w./-]+)(?:: ([\w, ]+))?")
UPDATE = "pytest tests/docs --update-golden writes this into the page:"
OPTIONS = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE


@dataclass(frozen=True)
class Block:
    """One fenced block.

    Attributes:
        language: What follows the fence.
        text: Its lines.
        line: Where it begins in the page.
        output: The `text` block right after it, None where there is none.
    """

    language: str
    text: str
    line: int
    output: str | None


def blocks(page: Path) -> Iterator[Block]:
    """The fenced blocks of `page`."""
    text = page.read_text()
    found = list(FENCE.finditer(text))
    for this, following in zip(found, [*found[1:], None], strict=False):
        output = None
        if following is not None and following[1] == "text":
            between = text[this.end() : following.start()]
            output = None if between.strip() else following[2]
        line = text.count("\n", 0, this.start()) + 1
        yield Block(this[1], this[2], line, output)


def run(page: Path, update: bool = False) -> None:
    """Run every block of `page`; files are written to the current folder.

    Args:
        page: The page.
        update: Write the current text of classes and functions into the page.

    Raises:
        AssertionError: An output or an excerpt is not as the page says.
    """
    namespace: dict[str, Any] = {"__name__": "__main__"}
    text = page.read_text()
    for block in blocks(page):
        where = f"{page.name}:{block.line}"
        first, _, rest = block.text.partition("\n")
        head = HEAD.fullmatch(first)
        if block.language == "console":
            _run_console(block, where)
        elif block.language != "python":
            continue
        elif head is None:
            _run_python(block, where, namespace)
        elif head[2] is None:
            Path(head[1]).write_text(rest)
        else:
            current = f"{first}\n{excerpt(Path(head[1]), head[2].split(', '))}"
            assert update or block.text == current, f"{where}: {UPDATE}\n{current}"
            text = text.replace(block.text, current)
    if update:
        page.write_text(text)


def links(page: Path) -> list[str]:
    """The files that a page links to."""
    text = re.sub(r"`[^`\n]+`", "", FENCE.sub("", page.read_text()))
    targets = re.findall(r"\]\(([^)#\s]+)[^)]*\)", text)
    return [target for target in targets if not target.startswith("http")]


def excerpt(path: Path, names: list[str]) -> str:
    """The text of classes and functions of a file."""
    text = (path if path.is_file() else ROOT / path).read_text()
    lines = text.splitlines(keepends=True)
    found: dict[str, str] = {}
    for node in ast.parse(text).body:
        if isinstance(node, ast.ClassDef | ast.FunctionDef):
            first = min([node, *node.decorator_list], key=lambda n: n.lineno).lineno
            found[node.name] = "".join(lines[first - 1 : node.end_lineno])
    return "\n\n".join(found[name] for name in names)


def _run_python(block: Block, where: str, namespace: dict[str, Any]) -> None:
    # Blank lines in front make the line numbers of a traceback those of the page
    code = compile("\n" * block.line + block.text, where, "exec")
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        exec(code, namespace)
    if block.output is not None:
        _check_output(printed.getvalue(), block.output, where)


def _run_console(block: Block, where: str) -> None:
    for part in re.split(r"^\$ ", block.text, flags=re.MULTILINE)[1:]:
        command, _, expected = part.replace("\\\n", "").partition("\n")
        program, *arguments = shlex.split(command)
        if program in ("torch2mlx-compile", "python"):
            printed = _called(program, arguments)
            if expected.strip():
                _check_output(printed, expected, where)


def _called(program: str, arguments: list[str]) -> str:
    """What a command prints on stdout and stderr."""
    printed = io.StringIO()
    with (
        contextlib.redirect_stdout(printed),
        contextlib.redirect_stderr(printed),
        # argparse leaves by an exception, and a script may
        contextlib.suppress(SystemExit),
    ):
        if program == "torch2mlx-compile":
            main(arguments)
        else:
            _run_script(arguments)
    return printed.getvalue()


def _run_script(arguments: list[str]) -> None:
    before = sys.argv
    sys.argv = arguments
    try:
        runpy.run_path(arguments[0], run_name="__main__")
    finally:
        sys.argv = before


def _check_output(printed: str, expected: str, where: str) -> None:
    # doctest takes an empty line for the end of the expected output
    checker, example = doctest.OutputChecker(), doctest.Example("", expected)
    if not checker.check_output(expected, printed, OPTIONS):
        difference = checker.output_difference(example, printed, OPTIONS)
        raise AssertionError(f"{where}\n{difference}")
