"""Print how large the code is, by part: ``make size``."""

import ast
import re
import subprocess
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "src/cyclenet"
APART = {
    "drawn scenes, cache": ("data/scenes/", "data/cache", "data/prepare"),
    "download": ("data/download",),
    "compared systems": ("models/contexts/", "models/decoders/", "models/strip_pooling"),
    "Python use and export": ("deploy/",),
}
PAPERS = {"base", "aspp", "cycleaspp", "adc", "skip", "__init__"}
"""Context modules and decoders that the paper's own tables are made of."""
WIDE = 100


def tracked(*patterns: str) -> list[Path]:
    """List the tracked files of the repository."""
    command = ["git", "-C", str(ROOT), "ls-files", *patterns]
    names = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
    return [ROOT / name for name in names]


def lines_of(paths: list[Path]) -> int:
    """Count lines."""
    return sum(len(path.read_text().splitlines()) for path in paths)


def part_of(path: Path) -> str:
    """Tell which part of the package a file belongs to."""
    name = path.relative_to(PACKAGE).as_posix()
    if name.startswith("lab/"):
        return "lab"
    for part, beginnings in APART.items():
        if name.startswith(beginnings) and path.stem not in PAPERS:
            return part
    return "core"


def longest_function(paths: list[Path]) -> tuple[int, str]:
    """Return the lines and the name of the longest function."""
    found = []
    for path in paths:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                length = (node.end_lineno or 0) - node.lineno + 1
                found.append((length, f"{node.name} in {path.relative_to(ROOT)}"))
    return max(found)


def main() -> None:
    """Print the counts."""
    source = tracked("src/*.py")
    package = [path for path in source if path.is_relative_to(PACKAGE)]
    for part in ("core", *APART, "lab"):
        files = [path for path in package if part_of(path) == part]
        print(f"{part}: {lines_of(files)} lines in {len(files)} files")
    page = (ROOT / "docs/contributing.md").read_text().split("## Rules")[0]
    listed = [PACKAGE / name for name in sorted(set(re.findall(r"`([\w/]+\.py)`", page)))]
    print(
        f"an hour's reading (docs/contributing.md): {lines_of(listed)} lines in {len(listed)} files"
    )
    rest = [path for path in source if path not in package]
    print(f"scripts and the plugin's shim: {lines_of(rest)} lines in {len(rest)} files")
    print(f"tests: {lines_of(tracked('tests/*.py'))} lines")
    print(f"README.md: {lines_of([ROOT / 'README.md'])} lines")
    longest = max(source, key=lambda path: lines_of([path]))
    print(f"longest file: {lines_of([longest])} lines, {longest.relative_to(ROOT)}")
    length, name = longest_function(source)
    print(f"longest function: {length} lines, {name}")
    text = [line for path in tracked("*.py") for line in path.read_text().splitlines()]
    wide = sum(len(line) > WIDE for line in text)
    print(f"lines over {WIDE} columns in src, tests and bench: {wide} of {len(text)}")
    code = "\n".join(path.read_text() for path in source)
    any_count, ignored = len(re.findall(r"\bAny\b", code)), code.count("type: ignore")
    print(f"Any in src: {any_count}; type: ignore in src: {ignored}")


if __name__ == "__main__":
    main()
