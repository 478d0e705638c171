"""The house: imports go down a list of layers, no import circle exists, the core knows no lab."""

import ast
import subprocess
import sys
from pathlib import Path

from conftest import ROOT

PACKAGE = ROOT / "src/cyclenet"
LAYERS = (
    ("cyclenet.files", "cyclenet.seeding", "cyclenet.labels", "cyclenet.devices"),
    ("cyclenet.processes", "cyclenet.environment"),
    ("cyclenet.config",),
    ("cyclenet.models",),
    ("cyclenet.data",),
    ("cyclenet.scoring",),
    ("cyclenet.plots",),
    ("cyclenet.deploy",),
    ("cyclenet.training",),
    ("cyclenet.runs",),
    ("cyclenet.lab",),
    ("cyclenet.commands",),
    ("cyclenet.__main__",),
)
"""From the bottom to the top. A module imports from its own layer and from those below."""


def name_of(path: Path) -> str:
    parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(parts).removesuffix(".__init__")


def layer_of(module: str) -> int:
    for number, names in enumerate(LAYERS):
        if any(module == name or module.startswith(name + ".") for name in names):
            return number
    assert module == "cyclenet", f"{module} is in no layer"
    return 0


def imports_of(path: Path, top_level: bool) -> set[str]:
    """The package's modules that a file imports; at the top level only, or anywhere."""
    tree = ast.parse(path.read_text())
    known = {name_of(each) for each in PACKAGE.rglob("*.py")}
    found = set()
    for node in tree.body if top_level else ast.walk(tree):
        names = []
        if isinstance(node, ast.ImportFrom) and node.module:
            names = [f"{node.module}.{alias.name}" for alias in node.names] + [node.module]
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        # The longest name that is a module: `from package import module`, or a name in a module.
        found |= {name for name in names[: len(names) - 1] or names if name in known}
        if not found & set(names) and names and names[-1] in known:
            found.add(names[-1])
    return {name for name in found if name.startswith("cyclenet")}


def test_no_arrow_goes_up():
    wrong = [
        f"{name_of(path)} -> {module}"
        for path in PACKAGE.rglob("*.py")
        if path != PACKAGE / "__init__.py"  # Its `load` is from above, when it is asked for.
        for module in imports_of(path, top_level=False)
        if layer_of(module) > layer_of(name_of(path))
    ]
    assert not wrong


def test_the_core_never_names_the_lab():
    for path in PACKAGE.rglob("*.py"):
        if not name_of(path).startswith(("cyclenet.lab.", "cyclenet.commands")):
            imported = imports_of(path, top_level=False)
            assert not any(name.startswith("cyclenet.lab.") for name in imported), path


def test_there_is_no_import_circle():
    graph = {name_of(path): imports_of(path, top_level=True) for path in PACKAGE.rglob("*.py")}
    done: set[str] = set()

    def visit(module: str, above: tuple[str, ...]) -> None:
        assert module not in above, " -> ".join([*above, module])
        if module not in done:
            for each in graph.get(module, ()):
                visit(each, (*above, module))
            done.add(module)

    for module in graph:
        visit(module, ())


def test_nothing_outside_models_asks_for_a_modules_class():
    from cyclenet.config.choices import CONTEXTS, DECODERS

    rows = [*CONTEXTS.values(), *DECODERS.values()]
    classes = {row.builder.split(":")[1] for row in rows}
    for path in PACKAGE.rglob("*.py"):
        if name_of(path).startswith("cyclenet.models"):
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "isinstance":
                named = {each.id for each in ast.walk(node.args[1]) if isinstance(each, ast.Name)}
                assert not named & classes, path


def test_nothing_posix_is_imported_with_the_package():
    """Every module of the package can be imported where the POSIX modules do not exist."""
    hidden = ["fcntl", "resource", "grp", "pwd", "termios"]
    modules = sorted(name_of(path) for path in PACKAGE.rglob("*.py"))
    # Hydra, filelock and the like are imported first: they know what to do on Windows.
    code = f"""
import sys
import hydra, filelock, lightning, wandb, timm, albumentations, uvicorn, scipy.stats
for name in {hidden}:
    sys.modules[name] = None
for name in {modules}:
    if name != "cyclenet.__main__":
        __import__(name)
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)


def test_files_are_not_too_long():
    for path in (ROOT / "src").rglob("*.py"):
        assert len(path.read_text().splitlines()) <= 350, path


def test_the_tests_are_the_same_tree():
    packages = {path.parent.relative_to(PACKAGE) for path in PACKAGE.rglob("*.py")}
    tests = ROOT / "tests"
    folders = {path.parent.relative_to(tests) for path in tests.rglob("test_*.py")}
    assert folders <= packages


def test_the_readme_lists_the_layers_in_their_order():
    """From the top to the bottom."""
    block = (ROOT / "README.md").read_text().split("```text")[1].split("```")[0]
    words = [line.split()[0].removeprefix("src/cyclenet/") for line in block.split("\n") if line]
    listed = [f"cyclenet.{word[:-1]}" for word in words if word[-1] == "/"]
    listed = [name for name in listed if name not in ("cyclenet.conf", "cyclenet.tests")]
    order = [names[0] for names in reversed(LAYERS) if names[0] in listed]
    assert len(listed) == 10 and listed == order
