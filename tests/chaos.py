"""Kill trainings where it hurts, resume each by the same command, and compare with a training that
nobody disturbed.

``make chaos`` runs all of it (minutes); `tests/test_resume.py` a short form. What must be equal,
bit by bit: weights, optimizer, learning rate, the best checkpoint, and every row of metrics.csv.
"""

import argparse
import hashlib
import json
import os
import random
import signal
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch

import warm
from conftest import ROOT, TINY
from cyclenet.training.callbacks import ProgressFile

BASE = [
    *TINY,
    "dataset.scenes_train=32",
    "dataset.scenes_val=6",
    "dataset.scenes_size=[64,96]",
    "trainer.max_epochs=3",
    "trainer.checkpoint_every_steps=5",
    "logger.every_n_steps=1",
    "model.head_channels=256",  # Checkpoints of some size, so that a save takes time.
]


LIMIT = 240
"""Seconds that one start of the command may take."""


def digest(value: Any) -> str:
    """Return the sha256 of nested plain values and tensors."""
    whole = hashlib.sha256()

    def add(part: Any) -> None:
        if isinstance(part, dict):
            for key, each in part.items():
                add(key), add(each)
        elif isinstance(part, (list, tuple)):
            for each in part:
                add(each)
        elif isinstance(part, torch.Tensor):
            whole.update(part.numpy().tobytes())
        else:
            whole.update(repr(part).encode())

    add(value)
    return whole.hexdigest()


def fingerprint(folder: Path) -> dict[str, str]:
    """Digest all that must not depend on interruptions."""
    last, best = (
        torch.load(folder / f"checkpoints/{name}.ckpt", weights_only=True)
        for name in ("last", "best")
    )
    result = json.loads((folder / "result.json").read_text())
    assert result["status"] == "finished"
    return {
        "weights": digest(last["state_dict"]),
        "optimizer": digest([last["optimizer_states"], last["lr_schedulers"], last["global_step"]]),
        "best": digest([best["state_dict"], best["global_step"]]),
        "metrics.csv": hashlib.sha256((folder / "metrics.csv").read_bytes()).hexdigest(),
        "metrics": digest(result["metrics"]),
    }


def start(words: list[str], cwd: Path) -> int:
    """Start ``src/train.py``, by a fork of this process, which has imported everything; return its
    process number.
    """
    job = {
        "script": str(ROOT / "src/train.py"),
        "words": words,
        "cwd": str(cwd),
        "env": {**os.environ, "OMP_NUM_THREADS": "1"},
    }
    child = os.fork()
    if child == 0:
        os.setpgrp()
        torch.set_num_threads(1)
        ProgressFile.every_seconds = 0
        warm.command({**job, "output": str(cwd / "output.log")})
    return child


def ended(process: int) -> int | None:
    """Return the exit code of a process that has ended, negative for a signal."""
    number, status = os.waitpid(process, os.WNOHANG)
    return os.waitstatus_to_exitcode(status) if number else None


def finish(words: list[str], cwd: Path) -> None:
    """Run the command to its end."""
    process, until = start(words, cwd), time.monotonic() + LIMIT
    while (code := ended(process)) is None and time.monotonic() < until:
        time.sleep(0.05)
    if code is None:
        os.kill(process, signal.SIGKILL)
    assert code == 0, (cwd / "output.log").read_text()[-3000:]


def progress(folder: Path | None) -> dict[str, Any]:
    try:
        return json.loads((folder / "progress.json").read_text()) if folder else {}
    except (OSError, ValueError):
        return {}


def run_folder(cwd: Path) -> Path | None:
    found = [path for path in cwd.glob("runs/*/*") if (path / "run.lock").exists()]
    return found[0] if found else None


def at_moment(where: str, cwd: Path, began: float, after: float) -> bool:
    """Tell whether the moment to kill has come: ``after`` seconds of training, or a stage of it."""
    folder = run_folder(cwd)
    now = progress(folder)
    if where == "start":
        return time.monotonic() - began > after
    if where == "save":
        return folder is not None and bool(now) and any(folder.glob("checkpoints/*.tmp*"))
    if where == "training":
        return now.get("stage") == "training" and now["step"] >= after
    return now.get("stage") == where


def kill_one(
    words: list[str], cwd: Path, where: str, rng: random.Random, victim: str, number: int
) -> dict[str, Any]:
    """Start or resume the command and kill it at a moment; tell what was lost."""
    folder = run_folder(cwd)
    if folder:
        (folder / "progress.json").unlink(missing_ok=True)
    process = start(words, cwd)
    began = time.monotonic()
    before = saved_step(folder)
    after = rng.uniform(0, 1.5) if where == "start" else rng.randint(before + 6, before + 12)
    while not at_moment(where, cwd, began, after):
        code = ended(process)
        assert time.monotonic() - began < LIMIT, (cwd / "output.log").read_text()[-3000:]
        if code is not None:
            raise SystemExit(
                f"The run ended (exit code {code}) before the moment came: {where}, {after}."
            )
        time.sleep(0.0005)
    time.sleep(rng.uniform(0, 0.01) if where in ("save", "validating") else 0)
    now = progress(run_folder(cwd))
    target = process
    if victim == "rank 1":
        target = rank_one(process) or process
    os.kill(target, number)
    os.waitpid(process, 0)
    saved = saved_step(run_folder(cwd))
    return {
        "where": f"{now.get('stage', 'start')}" if where != "save" else "save",
        "step": now.get("step", 0),
        "saved": saved,
    }


def rank_one(parent: int) -> int | None:
    """Find the second process of a run."""
    for path in Path("/proc").glob("[0-9]*"):
        try:
            ppid = int((path / "stat").read_text().rsplit(")", 1)[1].split()[1])
            if ppid == parent and b"LOCAL_RANK=1" in (path / "environ").read_bytes():
                return int(path.name)
        except OSError:
            continue
    return None


def saved_step(folder: Path | None) -> int:
    for name in ("last", "previous"):
        try:
            return (
                torch.load(folder / f"checkpoints/{name}.ckpt", weights_only=True)["global_step"]
                if folder
                else 0
            )
        except Exception:  # Missing, or damaged on purpose.
            continue
    return 0


def campaign(
    title: str,
    words: list[str],
    kills: list[tuple[str, str, int]],
    root: Path,
    rng: random.Random,
    vary: list[list[str]],
) -> list[dict[str, Any]]:
    """Compare a run that is killed again and again with an undisturbed one; return a row a kill."""
    whole, cut = root / f"{title}-whole", root / f"{title}-cut"
    for cwd in (whole, cut):
        cwd.mkdir(parents=True)
    finish(words, whole)
    expected = fingerprint(run_folder(whole) or whole)
    rows = []
    for where, victim, number in kills:
        if where == "damage":
            last = (run_folder(cut) or cut) / "checkpoints/last.ckpt"
            data = bytearray(last.read_bytes())
            data[len(data) // 2] ^= 1
            last.write_bytes(data)
            rows.append(
                {"run": title, "where": "one bit of last.ckpt flipped", "step": None, "by": ""}
            )
            continue
        row = kill_one([*words, *rng.choice(vary)], cut, where, rng, victim, number)
        print(
            f"{title}: killed in {row['where']}, step {row['step']}, saved {row.get('saved')}",
            flush=True,
        )
        rows.append({"run": title, **row, "by": f"{signal.Signals(number).name} {victim}".strip()})
    finish([*words, *rng.choice(vary)], cut)
    found = fingerprint(run_folder(cut) or cut)
    different = [key for key in expected if found[key] != expected[key]]
    for row in rows:
        row["equal"] = "no: " + ", ".join(different) if different else "yes"
    return rows


KILL, TERM, INT = signal.SIGKILL, signal.SIGTERM, signal.SIGINT


def campaigns(
    short: bool,
) -> list[tuple[str, list[str], list[tuple[str, str, int]], list[list[str]]]]:
    """List runs to disturb: title, command, kills (where, victim, signal), and what may differ at
    each start.
    """
    workers = [["trainer.num_workers=0"], ["trainer.num_workers=2"]]
    if short:
        kills = [
            ("training", KILL),
            ("save", KILL),
            ("training", TERM),
            ("damage", KILL),
            ("validating", KILL),
        ]
        return [("short", BASE, alone(kills), workers)]
    one = [
        ("start", KILL),
        ("training", KILL),
        ("save", KILL),
        ("training", TERM),
        ("validating", KILL),
        ("training", INT),
    ]
    one += [
        ("damage", KILL),
        ("save", KILL),
        ("training", KILL),
        ("validating", TERM),
        ("training", KILL),
        ("evaluating", KILL),
    ]
    options = [
        "trainer.precision=bf16-mixed",
        "trainer.accumulate_grad_batches=2",
        "trainer.gradient_clip_norm=1",
    ]
    few = [
        ("training", KILL),
        ("save", KILL),
        ("training", TERM),
        ("training", KILL),
        ("validating", KILL),
    ]
    ranks = [
        ("training", "rank 0", KILL),
        ("training", "rank 1", KILL),
        ("save", "rank 0", KILL),
        ("training", "rank 0", TERM),
    ]
    return [
        ("one process", [*BASE, "trainer.max_epochs=6"], alone(one), workers),
        ("bf16, accumulated", [*BASE, *options, "trainer.max_epochs=6"], alone(few), workers),
        ("two processes", [*BASE, "trainer.devices=2"], ranks, [[]]),
    ]


def alone(kills: list[tuple[str, int]]) -> list[tuple[str, str, int]]:
    """Fill in the victim: the only process."""
    return [(where, "", number) for where, number in kills]


def kill_a_sweep(root: Path, rng: random.Random, kills: int) -> list[dict[str, Any]]:
    """Kill the parent of a sweep of two jobs; its jobs must end with it, and the repeated command
    must finish all.
    """
    words = [*BASE, "trainer.max_epochs=6"]
    whole, cut = root / "sweep-whole", root / "sweep-cut"
    for cwd in (whole, cut):
        cwd.mkdir()
    for seed in (0, 1):
        finish([*words, f"seed={seed}"], whole)
    rows = []
    for turn in range(kills):
        process = start(["-m", "seed=0,1", *words], cut)
        name = f"*-seed{turn % 2}-*"
        while not any(progress(path).get("step", 0) >= 3 for path in cut.glob(f"runs/*/{name}")):
            assert ended(process) is None, (cut / "output.log").read_text()[-3000:]
            time.sleep(0.02)
        time.sleep(rng.uniform(0, 1))
        os.kill(process, KILL)
        os.waitpid(process, 0)
        until = time.monotonic() + 20
        while orphans(cut) and time.monotonic() < until:
            time.sleep(0.1)
        left = orphans(cut)
        folder = next(path for path in cut.glob(f"runs/*/{name}"))
        rows.append(
            {
                "run": "sweep",
                "where": f"parent, in job {turn % 2}",
                "by": "SIGKILL",
                "step": progress(folder).get("step"),
            }
        )
        rows[-1] |= {"saved": saved_step(folder), "orphans": len(left)}
        assert not left, f"processes are left behind: {left}"
    finish(["-m", "seed=0,1", *words], cut)
    pairs = zip(
        sorted(whole.glob("runs/*/scenes*")), sorted(cut.glob("runs/*/scenes*")), strict=True
    )
    equal = all(fingerprint(a) == fingerprint(b) for a, b in pairs)
    return [{**row, "equal": "yes" if equal else "no"} for row in rows]


def orphans(cwd: Path) -> list[int]:
    """List processes that still work in a folder."""
    found = []
    for path in Path("/proc").glob("[0-9]*"):
        try:
            if (path / "cwd").readlink() == cwd and int(path.name) != os.getpid():
                found.append(int(path.name))
        except OSError:
            continue
    return found


def main() -> None:
    """Run the campaigns and print a table; exit with 1 if a run came out different."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--short", action="store_true", help="one run, a few kills")
    parser.add_argument("--seed", type=int, default=int(time.time()), help="of the moments")
    options = parser.parse_args()
    rng = random.Random(options.seed)
    print(f"seed {options.seed}")
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder).resolve()
        for title, words, kills, vary in campaigns(options.short):
            rows += campaign(title, words, kills, root, rng, vary)
            show(rows)
        if not options.short:
            rows += kill_a_sweep(root, rng, 3)
            show(rows)
    killed = sum(bool(row["by"]) for row in rows)
    equal = all(row["equal"] == "yes" for row in rows)
    print(f"{killed} kills, all runs equal to undisturbed ones: {'yes' if equal else 'NO'}")
    sys.exit(not equal)


def show(rows: list[dict[str, Any]]) -> None:
    """Print the table so far."""
    print(f"\n{'run':18} {'where':32} {'by':16} {'step':>5} {'from':>5} {'redone':>6}  equal")
    for row in rows:
        step, saved = row["step"], row.get("saved", 0)
        redone = "" if step is None or not row["by"] else max(step - saved, 0)
        note = row.get("note", "")
        print(
            f"{row['run']:18} {row['where']:32} {row['by']:16} {step!s:>5} {saved:>5} "
            f"{redone!s:>6}  {row['equal']} {note}",
            flush=True,
        )


if __name__ == "__main__":
    main()
