import json

import pytest

from conftest import ROOT

NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_holds_no_outputs(path):
    for cell in json.loads(path.read_text())["cells"]:
        if cell["cell_type"] == "code":
            assert not cell["outputs"] and cell["execution_count"] is None


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    """A copy of the project, in which no runs of before are found; 03 goes on with what 02 trained,
    as for a user.
    """
    folder = tmp_path_factory.mktemp("project")
    (folder / "notebooks").mkdir()
    for name in ("src", "conf"):
        (folder / name).symlink_to(ROOT / name)
    (folder / "notebooks/shared.py").symlink_to(ROOT / "notebooks/shared.py")
    return folder


@pytest.mark.notebook
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_runs(path, project):
    """In a kernel of its own."""
    import nbclient
    import nbformat

    notebook = nbformat.read(path, as_version=4)
    nbclient.NotebookClient(
        notebook, timeout=280, resources={"metadata": {"path": str(project / "notebooks")}}
    ).execute()
    shown = [output for cell in notebook.cells for output in cell.get("outputs", ())]
    assert any(
        "image/png" in output.get("data", ()) or "text/markdown" in output.get("data", ())
        for output in shown
    )
