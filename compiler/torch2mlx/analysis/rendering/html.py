"""The report as one HTML page that needs nothing else: no script, no font, no image.

Everything that comes from the model, names and source lines above all, is escaped by Jinja2 or Pygments.
"""

from __future__ import annotations

import functools
import re
from typing import Any

import jinja2
from markupsafe import Markup, escape
from pygments import highlight
from pygments.formatters import HtmlFormatter
from pygments.lexers import PythonLexer

from torch2mlx.analysis.findings import ORDER, Share, Verdict
from torch2mlx.analysis.rendering import words
from torch2mlx.analysis.rendering.tree import Node, tree
from torch2mlx.analysis.result import Analysis

# How deep the tree is open where there is nothing to look at
_OPEN = 1


def as_html(analysis: Analysis) -> str:
    """The page."""
    template = _environment().get_template("report.html.jinja")
    return template.render(
        analysis=analysis,
        headline=words.HEADLINES[analysis.status],
        bars=[
            (label, share, total)
            for label, share, total in words.shares(analysis)
            if share.total
        ],
        root=tree(analysis.modules),
        pairs=analysis.translation.pairs if analysis.translation else [],
        totals=(analysis.by_parameters.total, analysis.by_flops.total),
    )


@functools.cache
def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("torch2mlx.analysis"),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    environment.filters |= {
        "number": words.number,
        "percent": words.percent,
        "op_name": words.op_name,
        "joined": words.joined,
        "module_name": words.module_name,
        "place": words.place,
        "python": _python,
        "options": _options,
        "parts": _parts,
    }
    environment.tests["opened"] = _is_opened
    environment.globals |= {
        "WORDS": words.WORDS,
        "MARKS": words.MARKS,
        "EXPLAINED": words.EXPLAINED,
        "VERDICTS": ORDER,
    }
    return environment


def _options(text: str) -> Markup:
    """Text in which options of the command stand out and are not broken."""
    marked = r'<code class="option">\1</code>'
    return Markup(re.sub(r"(--[a-z]+)", marked, str(escape(text))))


def _python(code: str) -> Markup:
    """Code with its words marked up."""
    formatter: Any = HtmlFormatter(nowrap=True)
    return Markup(highlight(code, PythonLexer(stripnl=False), formatter).rstrip("\n"))


def _parts(share: Share) -> list[tuple[Verdict, int, str]]:
    """The verdicts that occur: the amount of each, and its width in percent."""
    return [
        (
            verdict,
            share.amounts[verdict],
            f"{100 * share.amounts[verdict] / share.total:.4f}",
        )
        for verdict in ORDER
        if share.amounts.get(verdict)
    ]


def _is_opened(node: Node, depth: int) -> bool:
    return depth <= _OPEN or not node.is_plain
