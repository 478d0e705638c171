"""Give hostile files to every command and watch what it does: ``make audit`` (minutes).

A hook of the interpreter notes every file that is opened for writing, renamed or removed outside
the trial, every connection and every program that is started. The environment holds a secret that
must appear in no output and no file. The report is opened in Chromium, if there is one.
"""

import json
import os
import shutil
import sys
import tempfile
import time
import zipfile
from functools import partial
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from made import make_run, run_config
from warm import run_forked
from world import COMMANDS, copy_world, make_world

SECRET = "hunter2-the-secret"
SCRIPT = "<script>document.title='owned';fetch('http://evil.example/')</script>"
IMAGE = "![x](http://evil.example/x.png)<img src=x onerror=alert(1)>"
LINK = "[x](javascript:alert(1)) ${oc.env:AUDIT_SECRET} `"
EVIL = f"{SCRIPT} {IMAGE} {LINK} $\\frac{{1}}{{0}}$ | ../../outside"
CONFIGS: dict[str, dict[str, Any]] = {
    "protocol.name": {"protocol": {"name": EVIL}},
    "protocol.path": {"protocol": {"name": "../../../outside/x"}},
    "dataset.root": {"dataset": {"root": "${oc.env:AUDIT_SECRET}"}},
    "dataset.split": {"dataset": {"val_split": "../../outside"}},
    "download": {"dataset": {"name": "camvid", "root": "../outside", "download": True}},
    "weights": {"model": {"backbone_weights": "../outside/weights.pth"}},
    "huge": {"model": {"feedback": 10**9}},
    "wide": {"model": {"head_channels": 8000, "reduce_channels": 8000}},
    "scales": {"protocol": {"scales": [8.0] * 32}},
}
WRITES = {"os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.link", "os.symlink", "os.truncate"}
STARTS = {"subprocess.Popen", "os.system", "os.exec", "os.posix_spawn", "os.spawn", "pty.spawn"}


def watch(allowed: list[Path], notes: Path) -> None:
    """Note in a file what the process does that it should not."""
    roots = [os.fsencode(path.resolve()) for path in allowed]
    out = os.open(notes, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    busy = False

    def inside(path: Any) -> bool:
        if isinstance(path, int) or path is None:
            return True
        try:
            whole = os.fsencode(Path(os.fsdecode(path)).resolve())
        except (OSError, ValueError, RuntimeError):
            return True
        return any(whole.startswith(root) for root in roots)

    def hook(event: str, args: tuple[Any, ...]) -> None:
        nonlocal busy
        if busy:
            return
        busy = True
        try:
            bad = event in STARTS
            if event == "open" and isinstance(args[2], int) and args[2] & (os.O_WRONLY | os.O_RDWR):
                bad = not inside(args[0])
            elif event in WRITES:
                bad = not all(inside(each) for each in args[:2] if isinstance(each, str | bytes))
            elif event == "socket.connect":
                address = args[1]
                bad = isinstance(address, tuple) and address[0] not in ("127.0.0.1", "::1")
            elif event == "socket.getaddrinfo":
                bad = args[0] not in (None, "localhost", "127.0.0.1")
            if bad:
                os.write(out, f"{event} {args}\n".encode(errors="replace"))
        finally:
            busy = False

    sys.addaudithook(hook)


def hostile_checkpoint(world: Path, target: Path, changes: dict[str, Any]) -> None:
    """Write a checkpoint whose configuration and class names were changed by hand."""
    checkpoint = torch.load(world / "model.ckpt", weights_only=True)
    for part, values in changes.items():
        checkpoint["hyper_parameters"]["cfg"][part] |= values
    torch.save(checkpoint, target)


def make_hostile(trial: Path) -> None:
    """Fill a copy of the world with hostile runs, data, plan and archive."""
    (trial / "data/classes.txt").write_text(f"{EVIL.replace('/', '_')}\nsky\n")
    for split in ("train", "val"):
        evil = trial / f"data/images/{split}" / "<img src=x onerror=alert(1)> `$_$ ${HOME}.png"
        shutil.copy(trial / f"data/images/{split}/im0.png", evil)
        shutil.copy(
            trial / f"data/masks/{split}/im0.png", trial / f"data/masks/{split}" / evil.name
        )
    shutil.copy(trial / "photos/a.png", trial / "photos/<script>alert(1)<_script>.png")
    bomb = Image.new("1", (20_000, 20_000))
    bomb.save(trial / "photos/bomb.png")
    (trial / "photos/eps.png").write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n")
    run = make_run(trial / "runs", run_config(2), number=2)
    run.rename(run.with_name("`<script>alert(1)<_script>`"))
    failed = make_run(trial / "runs", run_config(3), number=3, status="failed") / "result.json"
    failed.write_text(json.dumps(json.loads(failed.read_text()) | {"error": EVIL}))
    result = trial / "runs/run1/result.json"
    values = json.loads(result.read_text())
    values["evaluations"] |= {"evil": "../../../outside", EVIL: "evaluate/../../x"}
    result.write_text(json.dumps(values))
    for path in trial.glob("runs/run0/evaluate/*/scores.json"):
        changed = {"protocol": EVIL, "checkpoint": "../../outside", "counts": "../../../outside/x"}
        path.write_text(json.dumps(json.loads(path.read_text()) | changed))
    claim = {"claim": EVIL, "arm": EVIL, "than": EVIL, "score": "mIoU"}
    (trial / "plan.yaml").write_text(json.dumps([claim]))
    config = trial / "runs/run1/config.yaml"
    config.write_text(config.read_text() + "name: ${oc.env:AUDIT_SECRET}\n")
    with zipfile.ZipFile(trial / "camvid.zip", "w") as archive:
        archive.writestr("../outside/archive.txt", "written outside")


def snapshot(folder: Path) -> dict[str, bytes]:
    """Return all files of a folder."""
    return {str(path): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def try_all(root: Path) -> tuple[list[str], Path]:
    """Run every command on hostile files; return what went wrong, and the folder of a report."""
    world, outside = make_world(root / "world"), root / "outside"
    outside.mkdir()
    (outside / "mine.txt").write_text("mine")
    before, wrong = snapshot(outside), []
    trials = [(command, "files", {}) for command in COMMANDS]
    for name, changes in CONFIGS.items():
        trials += [(command, name, changes) for command in ("evaluate", "predict", "visualize")]
    report = root / "report"
    for command, name, changes in trials:
        trial, notes = copy_world(world, root / "trial"), root / "notes"
        if name == "files":
            make_hostile(trial)
        else:
            hostile_checkpoint(world, trial / "model.ckpt", changes)
        script, words = COMMANDS[command]
        home = Path.home() / ".cache"
        scratch = root / "tmp"
        scratch.mkdir(exist_ok=True)
        allowed = [trial, scratch, Path("/dev"), home, Path("/proc")]
        environment = {"AUDIT_SECRET": SECRET, "TMPDIR": str(scratch)}
        watching = partial(watch, allowed, notes)
        code, output = run_forked(script, words, trial, 60, watching, **environment)
        said = f"{command}, {name}"
        print(f"{said}: exit code {code}", flush=True)
        if code is None or code < 0 or "Traceback" in output:
            wrong.append(f"{said}: exit code {code}: {output[-800:]}")
        if notes.exists():
            wrong += [f"{said}: {line}" for line in notes.read_text().splitlines()]
            notes.unlink()
        if SECRET in output or any(SECRET.encode() in d for d in snapshot(trial).values()):
            wrong.append(f"{said}: the secret was read")
        if snapshot(outside) != before:
            wrong.append(f"{said}: files outside were changed")
        if command == "report" and (trial / "report").is_dir():
            shutil.move(trial / "report", report)
        shutil.rmtree(trial)
    return wrong, report


def open_in_browser(page: Path) -> list[str]:
    """Open a page in Chromium; return what it did beside showing itself."""
    from playwright.sync_api import sync_playwright

    chromium = next(filter(None, map(shutil.which, ("chromium", "chromium-browser"))), None)
    if not chromium:
        print("There is no Chromium: the report was not opened (make test-web installs it).")
        return []
    wrong: list[str] = []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        tab = browser.new_page()
        tab.on("dialog", lambda dialog: wrong.append(f"dialog: {dialog.message}"))
        tab.on(
            "request",
            lambda r: None if r.url.startswith(("data:", page.as_uri())) else wrong.append(r.url),
        )
        tab.goto(page.as_uri())
        tab.wait_for_timeout(500)
        if tab.title() == "owned" or tab.locator("script").count():
            wrong.append("a script is in the page")
        if tab.locator("a[href^='javascript']").count():
            wrong.append("a link runs a script")
        browser.close()
    return wrong


def main() -> None:
    """Run the audit and print what went wrong."""
    torch.set_num_threads(1)
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        wrong, report = try_all(Path(folder))
        page = report / "report.html"
        wrong += open_in_browser(page) if page.exists() else ["no report was written"]
    print(*wrong, sep="\n")
    print(f"{len(wrong)} findings in {time.monotonic() - began:.0f} s")
    raise SystemExit(1 if wrong else 0)


if __name__ == "__main__":
    main()
