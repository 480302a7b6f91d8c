"""How long the model in a file is, without what keeps a cache or loads it: for generated files and for hand ports.

    .venv/bin/python benchmarks/code_size.py FILE ...

The file's syntax tree is cut down and printed again, formatted by black, so that comments, docstrings and the author's
own line breaks count on neither side. What is cut away:

- imports, docstrings, what stands at the top level beside functions and classes, and classes named `Tokenizer`;
- the functions in `LOADING`, and properties, which mlx-lm's ports have for its cache and its loader;
- parameters and keywords named as in `CACHES`, statements that assign only to such a name, and of an `if` that asks
  whether a cache is there the branch where it is.
"""

from __future__ import annotations

import ast
import sys
from pathlib import Path
from typing import Any

import black

CACHES = {"cache", "kv_cache"}
LOADING = {
    *("load_model", "sanitize", "from_dict", "from_pretrained", "shard"),
    *("make_cache", "quant_predicate", "cast_predicate", "generate", "run"),
}


class _Cut(ast.NodeTransformer):
    """Removes what does not count."""

    def visit_Module(self, node: ast.Module) -> Any:
        kinds = (ast.ClassDef, ast.FunctionDef)
        node.body = [item for item in node.body if isinstance(item, kinds)]
        return self.generic_visit(node)

    def visit_ClassDef(self, node: ast.ClassDef) -> Any:
        if node.name == "Tokenizer":
            return None
        self.generic_visit(node)
        node.body = node.body or [ast.Pass()]
        return node

    def visit_FunctionDef(self, node: ast.FunctionDef) -> Any:
        is_property = any(ast.unparse(d) == "property" for d in node.decorator_list)
        if node.name in LOADING or is_property:
            return None
        self.generic_visit(node)
        node.body = node.body or [ast.Pass()]
        return node

    def visit_arguments(self, node: ast.arguments) -> Any:
        needed = len(node.args) - len(node.defaults)
        defaults = [None] * needed + list(node.defaults)
        pairs = zip(node.args, defaults, strict=True)
        kept = [(a, d) for a, d in pairs if a.arg not in CACHES]
        node.args = [a for a, _ in kept]
        node.defaults = [d for _, d in kept if d is not None]
        return self.generic_visit(node)

    def visit_Call(self, node: ast.Call) -> Any:
        node.keywords = [k for k in node.keywords if k.arg not in CACHES]
        node.args = [a for a in node.args if not _is_cache(a)]
        return self.generic_visit(node)

    def visit_Assign(self, node: ast.Assign) -> Any:
        if all(map(_is_cache, node.targets)):
            return None
        return self.generic_visit(node)

    def visit_Expr(self, node: ast.Expr) -> Any:
        return (
            None if isinstance(node.value, ast.Constant) else self.generic_visit(node)
        )

    def visit_If(self, node: ast.If) -> Any:
        match node.test:
            case ast.Compare(left, [operator], [ast.Constant(None)]) if _is_cache(left):
                kept = node.body if isinstance(operator, ast.Is) else node.orelse
                visited = (self.visit(statement) for statement in kept)
                flat = (v if isinstance(v, list) else [v] for v in visited)
                return [s for part in flat for s in part if s is not None]
        self.generic_visit(node)
        return node if node.body else None


def _is_cache(node: ast.AST) -> bool:
    """Whether an expression is a cache, or the cache of one layer."""
    if isinstance(node, ast.Subscript):
        return _is_cache(node.value)
    return isinstance(node, ast.Name) and node.id in CACHES


def model_code(source: str) -> str:
    """What counts of a file, formatted."""
    text = ast.unparse(_Cut().visit(ast.parse(source)))
    return black.format_str(text, mode=black.Mode(magic_trailing_comma=False))


def code_size(source: str) -> tuple[int, int]:
    """Lines that are not blank, and classes that are modules, of what counts."""
    code = model_code(source)
    lines = sum(bool(text.strip()) for text in code.splitlines())
    return lines, code.count("(nn.Module):")


def main() -> None:
    """Print lines and classes of each file that the command line names."""
    for name in sys.argv[1:]:
        lines, classes = code_size(Path(name).read_text())
        print(name, lines, classes)


if __name__ == "__main__":
    main()
