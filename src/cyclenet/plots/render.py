"""How every figure is made and saved: without pyplot, and with the same bytes every time."""

import io
from pathlib import Path
from typing import Any

from matplotlib import rc_context, rcParams
from matplotlib.figure import Figure

from cyclenet.files import atomic_write

# Names of classes and files may have $ signs, which mean no mathematics.
rcParams["text.parse_math"] = False


# Okabe and Ito's colours, which the colour-blind can tell apart, with a darker yellow for thin
# lines; then grey.
COLORS = (
    "#000000",
    "#e69f00",
    "#56b4e9",
    "#009e73",
    "#d55e00",
    "#0072b2",
    "#cc79a7",
    "#b8a800",
    "#888888",
)


def color_of_part(number: int) -> str:
    """Return the colour of a part of a network; neighbours differ clearly."""
    return COLORS[(2 + 3 * number) % len(COLORS)]


# Dates and random ids are left out: the same figure is the same file.
_METADATA: dict[str, dict[str, Any]] = {
    "png": {"Software": None},
    "pdf": {"CreationDate": None},
    "svg": {"Date": None},
}


def new_figure(width: float, height: float) -> Figure:
    """Return an empty figure of a size in inches."""
    return Figure(figsize=(width, height), layout="constrained")


def render(figure: Figure, ending: str, dpi: int = 300, **options: Any) -> bytes:
    """Return a figure as the bytes of a png, pdf or svg file."""
    buffer = io.BytesIO()
    stable = {"svg.hashsalt": "cyclenet", "pdf.fonttype": 42}
    with rc_context(stable | options.pop("rc", {})):
        figure.savefig(buffer, format=ending, dpi=dpi, metadata=_METADATA[ending], **options)
    return buffer.getvalue()


def save_figure(figure: Figure, path: Path, dpi: int = 110) -> None:
    """Write a figure; the path's ending is the format."""
    with atomic_write(path) as part:
        part.write_bytes(render(figure, path.suffix[1:], dpi))
