"""A text with tables and pictures as Markdown, and as one HTML page that needs no network and no other file."""

import base64
import re
from pathlib import Path


def markdown_table(head: list[str], lines: list[list[str]]) -> str:
    """Format a table whose first column is text and whose others are numbers."""
    rule = ["---"] + ["---:"] * (len(head) - 1)
    return "\n".join("| " + " | ".join(cells) + " |" for cells in (head, rule, *lines))


def write_page(parts: list[str], output: Path, title: str, refresh: float) -> Path:
    """Write ``report.md``, and ``report.html``, which a browser loads again after ``refresh`` seconds (0: never); return it."""
    text = "\n\n".join(part for part in parts if part) + "\n"
    (output / "report.md").write_text(text)
    page, new = output / "report.html", output / "report.html.tmp"
    new.write_text(_html(text, title, output, refresh))
    new.replace(page)  # Never half a page: a browser may load it at any moment.
    return page


STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; max-width: 1200px; margin: 2em auto; padding: 0 1em;
       color: #222; background: #fff; }
table { border-collapse: collapse; display: block; overflow-x: auto; }
th, td { padding: .25em .7em; border-bottom: 1px solid #ccc; font-variant-numeric: tabular-nums; }
img { max-width: 100%; height: auto; }
h2 { margin-top: 2em; }
"""


def _html(text: str, title: str, folder: Path, refresh: float = 0) -> str:
    from html import escape

    from markdown_it import MarkdownIt

    body = MarkdownIt("commonmark").enable("table").render(text)

    def embed(match: re.Match[str]) -> str:
        path = folder / match[1]
        kind = "svg+xml" if path.suffix == ".svg" else "png"
        return f'src="data:image/{kind};base64,{base64.b64encode(path.read_bytes()).decode()}"'

    body = re.sub(r'src="([\w.]+)"', embed, body)
    again = f'<meta http-equiv="refresh" content="{refresh:g}">' if refresh else ""
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">'
        f"{again}<title>{escape(title)}</title><style>{STYLE}</style></head>\n"
        f"<body>\n{body}</body></html>\n"
    )
