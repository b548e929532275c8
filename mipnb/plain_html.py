"""Plain HTML: a page with sections, a table, and the little Markdown that notebooks' sentences use."""

from __future__ import annotations

import html
import re
from collections.abc import Mapping, Sequence

__all__ = ["markdown_html", "page", "table_html"]

_STYLE = """
body{font:15px/1.45 system-ui,sans-serif;max-width:62rem;margin:2rem auto;padding:0 1rem;color:#222}
h2{border-bottom:1px solid #ccc;margin-top:2.2rem}nav a{margin-right:1rem}
table{border-collapse:collapse;font-size:13px}td,th{padding:2px 8px;text-align:left;vertical-align:top}
tr:nth-child(even){background:#f6f6f6}pre{overflow-x:auto;background:#f6f6f6;padding:.6rem;font-size:12px}
img{max-width:100%}figure{margin:1.2rem 0}figcaption{color:#555;font-size:13px}.output{overflow-x:auto;margin:.6rem 0}
"""


def page(title: str, sections: Mapping[str, str]) -> str:
    """A whole HTML document: title, links to the sections, the sections (heading -> HTML)."""
    ids = {name: re.sub(r"\W+", "-", name.lower()) for name in sections}
    links = "".join(f'<a href="#{ids[name]}">{html.escape(name)}</a>' for name in sections)
    body = "".join(
        f'<h2 id="{ids[name]}">{html.escape(name)}</h2>\n{text}\n' for name, text in sections.items()
    )
    head = f'<meta charset="utf-8"><title>{html.escape(title)}</title><style>{_STYLE}</style>'
    return (
        f'<!DOCTYPE html>\n<html lang="en"><head>{head}</head><body>'
        f"<h1>{html.escape(title)}</h1>\n<nav>{links}</nav>\n{body}</body></html>\n"
    )


def table_html(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table; the head is text, the cells are HTML."""
    top = "".join(f"<th>{html.escape(name)}</th>" for name in head)
    lines = ["<tr>" + "".join(f"<td>{cell}</td>" for cell in row) + "</tr>" for row in rows]
    return f"<table><tr>{top}</tr>{''.join(lines)}</table>"


def markdown_html(text: str) -> str:
    """Paragraphs, lists of one level, **bold** and `code` as HTML; anything else stays as it is written."""
    return "".join(_block(block) for block in re.split(r"\n\s*\n", text.strip()) if block.strip())


def _block(block: str) -> str:
    lines = block.splitlines()
    if all(re.match(r"\s*[-*] ", line) for line in lines):
        items = (re.sub(r"^\s*[-*] ", "", line) for line in lines)
        return "<ul>" + "".join(f"<li>{_inline(item)}</li>" for item in items) + "</ul>"
    return (
        "<p>"
        + "".join(_inline(line) + ("<br>" if line.endswith("  ") else "\n") for line in lines).strip()
        + "</p>"
    )


def _inline(text: str) -> str:
    text = html.escape(text.strip(), quote=False)
    return re.sub(r"`([^`]+)`", r"<code>\1</code>", re.sub(r"\*\*([^*]+)\*\*", r"<b>\1</b>", text))
