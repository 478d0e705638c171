"""README and docs: every link leads somewhere, every command in a block runs, every example too."""

import re
import shlex
import shutil
from pathlib import Path

import numpy as np
import pytest

from conftest import ROOT, TINY, noise_image, run, write
from made import CLASSES

PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
LINKED = [*PAGES, ROOT / "LOG.md", *ROOT.glob("results/*/README.md")]

SHRINK = [
    *(word for word in TINY if word.startswith(("model.", "dataset."))),
    "trainer.accelerator=cpu",
    "trainer.devices=1",
    "trainer.num_nodes=1",
    "trainer.max_epochs=1",
    "trainer.num_workers=0",
    "trainer.progress_bar=false",
    "logger.wandb=disabled",
    "dataset.train_limit=2",
    "dataset.val_limit=2",
    "dataset.cache=never",
    "extra_protocols=[]",
]
"""What makes a documented training small enough for a test."""

NOT_RUN = {
    "make test": "This is the suite itself.",
    "make demo": ".ci/run runs it, shortened.",
    "make test-web": ".ci/run runs it.",
    "make notebooks": ".ci/run runs it.",
    "make chaos": "tests/training/test_resume.py runs its short form.",
    "make fuzz": "It takes a quarter of an hour.",
    "make audit": "It takes minutes; tests/test_faults.py has files of these kinds.",
    "make test-oracles": ".ci/run runs it.",
    "make test-slow": "It needs a C++ compiler and minutes.",
    "make test-slurm": "It needs SLURM's programs and root.",
    "make size": "test_size_counts runs its script.",
    "make format": "It changes files.",
    "make gpu-check": "It needs a GPU; tests/commands/test_gpu_check.py runs it at toy size.",
    "python src/train.py -m hydra/sweeper=optuna": (
        "tests/lab/sweeps/test_sweep.py runs such a search of two trials."
    ),
    "make table1": "tests/lab/cost/test_complexity.py computes the table.",
    "make report-camvid": "test_the_published_report_can_be_made_again makes one of its two.",
    "make reproduce-camvid ARM=cycleaspp SEED=0": "It needs CamVid and half an hour.",
    "python src/train.py experiment=heads": (
        "It needs CamVid's drives and hours; tests/training/test_frozen.py trains such heads."
    ),
    "python src/train.py experiment=zoo_heads": (
        "It needs CamVid's drives and hours; test_zoo.py builds every job."
    ),
    "python src/report.py runs=runs/heads": (
        "Its runs take hours; tests/lab/report/test_cross_validation.py makes such a report."
    ),
    "torchrun": "It starts processes on two machines; tests/training/test_parallel.py has two.",
    "python src/explore.py": "It serves until Ctrl-C; test_explorer.py calls it.",
    "python src/train.py experiment=ablation_cycle hydra/launcher=submitit_slurm": (
        "It needs SLURM; tests/lab/sweeps/test_slurm.py runs one."
    ),
}
"""Commands that this test does not run, by their beginnings, and why."""


def commands() -> list[str]:
    """All commands of fenced bash blocks, without their comments, each once."""
    found = {}
    for page in PAGES:
        for block in re.findall(r"```bash\n(.*?)```", page.read_text(), re.S):
            for line in block.splitlines():
                command = re.sub(r"\s+#.*", "", line).strip()
                if command and not command.startswith("export "):
                    found[command] = None
    return list(found)


def reason_not_to_run(command: str) -> str:
    return next((why for start, why in NOT_RUN.items() if command.startswith(start)), "")


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder in which the documented names exist: RUN, FOLDER, DIR, street.jpg, points.csv."""
    path = tmp_path_factory.mktemp("docs")
    rng = np.random.default_rng(0)
    run("train", *SHRINK, "hydra.run.dir=runs/camvid/RUN", cwd=path)
    shutil.copytree(path / "runs/camvid", path / "runs/ablation")
    shutil.copytree(path / "runs/camvid", path / "runs/camvid_ablation")
    (path / "RUN").symlink_to(path / "runs/camvid/RUN")
    write(path / "street.jpg", noise_image(rng, 240, 160))
    write(path / "street.png", noise_image(rng, 240, 160))
    write(path / "FOLDER/a.png", noise_image(rng, 64, 96))
    (path / "points.csv").write_text("image,x,y\na,10,20\n")
    return path


def root_of(command: str, request) -> Path | None:
    """Make small files of the data set that a command names."""
    for name in ("cityscapes", "ade20k", "camvid"):
        if f"={name}" in command or f"={name}_" in command:
            return request.getfixturevalue(name)
    if "experiment=ablation" in command and "dataset=" not in command:
        return request.getfixturevalue("cityscapes")
    if "dataset=folder" in command:
        folder = request.getfixturevalue("tmp_path") / "folder"
        rng = np.random.default_rng(0)
        for split in ("train", "val"):
            for i in range(2):
                write(folder / f"images/{split}/{i}.jpg", noise_image(rng, 72, 96))
                labels = rng.integers(0, 4, (72, 96), dtype=np.uint8)
                write(folder / f"masks/{split}/{i}.png", labels)
        (folder / "classes.txt").write_text("\n".join(CLASSES))
        return folder
    return None


@pytest.mark.docs
@pytest.mark.parametrize("command", [c for c in commands() if not reason_not_to_run(c)])
def test_a_documented_command_runs(command, place, request):
    words = shlex.split(command)
    assert words[0] == "python" and words[1].startswith("src/"), f"No test runs {command}."
    name, words = Path(words[1]).stem, words[2:]
    root = root_of(command, request)
    environment = {}
    if root is not None:
        words = [f"dataset.root={root}" if w == "dataset.root=DIR" else w for w in words]
        variable = "CITYSCAPES"
        for each in ("camvid", "ade20k", "folder"):
            variable = each.upper() if each in command else variable
        environment[f"{variable}_ROOT"] = str(root)
        environment["CITYSCAPES_ROOT"] = str(root)
    if name == "train" and "--help" not in words:
        words = [w for w in words if not w.startswith("seed=")] + SHRINK
        if "experiment=ablation" in command or "camvid_ablation" in command or "-m" in words:
            words = [w for w in words if not w.startswith("arm=")]
            words += ["arm=cycleaspp", "hydra.sweep.dir=sweep"]
            words += ["model.feedback=1"] if "feedback" in command else []
            words += ["seed=0"]
        else:
            words.append("hydra.run.dir=run-of-docs")
            shutil.rmtree(place / "run-of-docs", ignore_errors=True)
        shutil.rmtree(place / "sweep", ignore_errors=True)
    if name == "report":  # The place has one arm, which is no baseline.
        words = [w for w in words if not w.startswith("baseline=")]
    if name == "submit":
        words += ["split=val"]
    if name == "visualize":
        words += ["formats=png", "dataset.val_limit=1"]
    if name == "prepare":
        words.append(f"dataset.cache_root={place / 'cache'}")
    output = run(name, *words, cwd=place, **environment)
    assert "error" not in output.lower().replace("errors in white", ""), output
    # A word that replaces an experiment's axis leaves no jobs that are alike.
    assert "jobs were one run" not in output, output


@pytest.mark.docs
def test_the_published_report_can_be_made_again(tmp_path):
    recipe = (ROOT / "Makefile").read_text().split("\nreport-camvid:")[1].split("\n\n")[0]
    command = recipe.replace("\\\n", " ").splitlines()[-1].split("src/report.py")[1]
    published = "results/camvid/report-windows"
    words = [word.replace(published, str(tmp_path)) for word in shlex.split(command)]
    words = [word.replace("=results/", f"={ROOT}/results/") for word in words]
    run("report", *words, cwd=tmp_path)
    assert (tmp_path / "report.md").read_text() == (ROOT / published / "report.md").read_text()


def test_every_command_runs_or_says_why_not():
    assert len(commands()) > 30
    for start in NOT_RUN:
        assert any(command.startswith(start) for command in commands()), (
            f"{start} is not documented"
        )


def test_every_command_is_documented():
    text = "\n".join(page.read_text() for page in PAGES)
    for path in (ROOT / "src").glob("*.py"):
        assert f"python src/{path.name}" in text, path.name


def anchors(page: Path) -> set[str]:
    headings = re.findall(
        r"^#+ (.*)$", re.sub(r"```.*?```", "", page.read_text(), flags=re.S), re.M
    )
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", LINKED, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_links_and_anchors_lead_somewhere(page):
    text = re.sub(r"```.*?```", "", page.read_text(), flags=re.S)
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if target.startswith(("http://", "https://")):
            continue
        name, _, anchor = target.partition("#")
        other = (page.parent / name).resolve() if name else page
        assert other.exists(), f"{page.name}: {target}"
        if anchor:
            assert anchor in anchors(other), f"{page.name}: {target}"


def test_files_that_the_pages_name_exist():
    for page in PAGES:
        for name in re.findall(
            r"`((?:src|tests|conf|docs|bench|results)/[\w./-]+)`", page.read_text()
        ):
            if "NAME" not in name and "<" not in name:
                assert (ROOT / name).exists(), f"{page.name}: {name}"


def test_the_readme_is_short():
    assert len((ROOT / "README.md").read_text().splitlines()) <= 150


def test_python_examples_run(place, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    shutil.copyfile(place / "RUN/checkpoints/last.ckpt", tmp_path / "last.ckpt")
    shutil.copyfile(place / "street.jpg", tmp_path / "street.jpg")
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "docs/python.md").read_text(), re.S)
    assert len(blocks) == 4
    for block in blocks:
        exec(compile(block, "docs/python.md", "exec"), {})


def test_the_options_that_the_paper_leaves_open_are_documented():
    text = (ROOT / "docs/design.md").read_text()
    for arm in (ROOT / "conf/arm").glob("option_*.yaml"):
        assert f"`{arm.stem}`" in text


def test_size_counts():
    import subprocess
    import sys

    command = [sys.executable, str(ROOT / "tests/size.py")]
    output = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert "core: " in output and "lines over 100 columns in src, tests and bench: 0 of" in output
