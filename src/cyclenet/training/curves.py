"""Read the rows of a run's ``metrics.csv``, in a resumed run and in a report."""

import csv
from pathlib import Path
from typing import Any


def read_metrics(path: Path) -> list[dict[str, str]]:
    """Read the rows of a metrics.csv: numbers by column. Damaged rows are left out."""
    rows = []
    with path.open(newline="", encoding="utf-8", errors="replace") as file:
        # A NUL would end the reader.
        for row in csv.DictReader(line.replace("\0", "") for line in file):
            values = {key: value for key, value in row.items() if key and value}
            if values.get("step", "").isdecimal() and all(map(_is_number, values.values())):
                rows.append(values)
    return rows


def _is_number(text: Any) -> bool:
    try:
        float(text)
    except (TypeError, ValueError):
        return False
    return True
