"""A text with tables and pictures as Markdown, and as one HTML page that needs no other file."""

import base64
import re
from html import escape
from pathlib import Path

from markdown_it import MarkdownIt

from cyclenet.files import write_text

POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
"""What a browser may do in the page: show it."""

STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; max-width: 1200px; margin: 2em auto; padding: 0 1em;
       color: #222; background: #fff; }
table { border-collapse: collapse; display: block; overflow-x: auto; }
th, td { padding: .25em .7em; border-bottom: 1px solid #ccc; font-variant-numeric: tabular-nums; }
img { max-width: 100%; height: auto; }
h2 { margin-top: 2em; }
"""


def check_replaceable(folder: Path) -> None:
    """Refuse a folder with a report that was not written here.

    Raises:
        ValueError: ``report.md`` or ``report.html`` is there, and may be the user's own.
    """
    marks = {folder / "report.html": POLICY, folder / "report.md": "\n\nProtocols: "}
    there = [path for path in marks if path.exists()]
    # A published report has no page, and the first report of runs in progress no protocols.
    if there and not any(marks[path] in path.read_text("utf-8", "replace") for path in there):
        raise ValueError(f"{there[0]} was not written by a report: give another output.")


def write_page(parts: list[str], output: Path, title: str, refresh: float) -> Path:
    """Write ``report.html``, then ``report.md``; return the page.

    Args:
        parts: paragraphs, tables and headings; empty ones are left out.
        output: folder, which holds the pictures.
        title: title of the page.
        refresh: seconds after which a browser loads the page again; 0 for never.
    """
    text = "\n\n".join(part for part in parts if part) + "\n"
    page = output / "report.html"
    write_text(page, _html(text, title, output, refresh))
    write_text(output / "report.md", text)
    return page


def _html(text: str, title: str, folder: Path, refresh: float) -> str:
    body = MarkdownIt("commonmark", {"html": False}).enable("table").render(text)

    def embed(match: re.Match[str]) -> str:
        path = folder / match[1]
        if not path.is_file():
            return "src"
        kind = "svg+xml" if path.suffix == ".svg" else "png"
        data = base64.b64encode(path.read_bytes()).decode()
        return f'src="data:image/{kind};base64,{data}"'

    body = re.sub(r'src="([\w.]+)"', embed, body)
    again = f'<meta http-equiv="refresh" content="{refresh:g}">' if refresh else ""
    head = f'<meta charset="utf-8"><meta http-equiv="Content-Security-Policy" content="{POLICY}">'
    head += '<meta name="viewport" content="width=device-width">' + again
    return (
        f'<!doctype html>\n<html lang="en"><head>{head}'
        f"<title>{escape(title)}</title><style>{STYLE}</style></head>\n"
        f"<body>\n{body}</body></html>\n"
    )
