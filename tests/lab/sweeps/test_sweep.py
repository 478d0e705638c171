"""Sweeps with a process a job: what goes wrong in one job stays there, and a repeated command does
only what is missing.
"""

import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import yaml
from hydra import compose, initialize_config_dir

from conftest import ROOT, TINY, run, write
from cyclenet.config.load import register, to_config
from cyclenet.config.restore import CONF
from cyclenet.config.schema import TrainConfig
from cyclenet.files import lock
from cyclenet.lab.sweeps import run_jobs
from cyclenet.lab.sweeps.jobs import job_folders
from cyclenet.lab.sweeps.launcher import visible_gpus
from cyclenet.lab.sweeps.run_jobs import Job, run_all
from cyclenet.runs.results import mark

SCENES = ["dataset.scenes_train=2", "dataset.scenes_val=1", "dataset.scenes_size=[64,96]", *TINY]


def results(folder: Path) -> dict[str, dict]:
    return {
        path.parent.name: json.loads(path.read_text())
        for path in folder.glob("runs/*/*/result.json")
    }


def test_all_jobs_are_checked_before_the_first_starts(tmp_path):
    output = run(
        "train",
        "-m",
        "seed=0,-1",
        "dataset.batch_size=2,3",
        "trainer.devices=2",
        *SCENES,
        cwd=tmp_path,
        ok=False,
    )
    # The later of two values for one key wins, as everywhere; seed -1 is wrong in each job that has
    # it.
    assert "error: seed=-1" in output and "none was started" in output and "Traceback" not in output
    output = run(
        "train",
        "-m",
        "seed=0,1",
        *SCENES,
        "dataset.batch_size=3",
        "trainer.devices=2",
        cwd=tmp_path,
        ok=False,
    )
    assert output.count("dataset.batch_size (3) must be divisible by the 2 processes.") == 2
    output = run("train", "-m", "seed=0,1", *SCENES, "trainer.num_nodes=2", cwd=tmp_path, ok=False)
    assert output.count("has one machine; use hydra/launcher=submitit_slurm") == 2
    assert not results(tmp_path) and not list(tmp_path.glob("runs/*/*/train.log"))


def test_ddp_with_the_basic_launcher_is_refused(tmp_path):
    words = ["-m", "seed=0,1", *SCENES, "trainer.devices=2", "hydra/launcher=basic"]
    assert "use hydra/launcher=process" in run("train", *words, cwd=tmp_path, ok=False)


def test_run_folders_of_a_sweep():
    """What changes no result gets a folder of its own; jobs that are alike share one."""
    register()
    with initialize_config_dir(str(CONF), version_base="1.3"):
        jobs = [["trainer.devices=1"], ["trainer.devices=2"], ["seed=1"], ["trainer.devices=1"]]
        configs = [to_config(TrainConfig, compose("train", words)) for words in jobs]
    one, two, other, again = (path.name for path in job_folders(Path("runs"), configs))
    assert two == one + "-devices=2" and again == one and "seed1" in other


class Sleeper:
    """A job that runs a shell command."""

    def __new__(cls, folder, command, devices="1", accelerator="gpu"):
        cfg = TrainConfig()
        cfg.trainer.devices, cfg.trainer.accelerator = devices, accelerator
        return Job(folder.name, ["sh", "-c", command], folder, cfg)


def test_jobs_share_the_gpus(tmp_path):
    """Two GPUs: jobs that want one run together, the one that wants both runs alone, and each sees
    its own.
    """
    command = 'echo "$CUDA_VISIBLE_DEVICES" > {0}/gpus; date +%s%N >> {0}/gpus; '
    command += "sleep 0.6; date +%s%N >> {0}/gpus"
    wanted = {"a": "1", "b": "1", "c": "2", "d": "auto"}
    jobs = [
        Sleeper(tmp_path / name, command.format(tmp_path / name), devices)
        for name, devices in wanted.items()
    ]
    run_all(jobs, 0, ["4", "6"], 1)
    seen = {name: (tmp_path / name / "gpus").read_text().split() for name in wanted}
    assert [seen[name][0] for name in wanted] == ["4", "6", "4,6", "4,6"]
    spans = {name: (int(times[0]), int(times[1])) for name, (_, *times) in seen.items()}
    assert (
        spans["a"][1] > spans["b"][0]
        and spans["c"][0] > max(spans["a"][1], spans["b"][1])
        and spans["d"][0] > spans["c"][1]
    )
    assert all(job.state == "failed" for job in jobs)  # They left no result.


def test_a_job_that_is_killed_is_told_from_one_that_fails(tmp_path, capsys):
    ends = {"a": "kill -9 $$", "b": "exit 3", "c": "exit 143"}
    jobs = [Sleeper(tmp_path / name, command, accelerator="cpu") for name, command in ends.items()]
    run_all(jobs, 2, [], 1)
    states = [(job.state, job.note.split(" (")[0]) for job in jobs]
    assert states == [
        ("killed", "by SIGKILL"),
        ("failed", "exit code 3"),
        ("interrupted", "before it began to train"),
    ]
    assert "[1/3] a: killed" in capsys.readouterr().out


def test_a_folder_that_cannot_be_made_stops_no_other_job(tmp_path, monkeypatch):
    cfg = TrainConfig()
    long = tmp_path / ("x" * 300)
    monkeypatch.setattr("cyclenet.lab.sweeps.run_jobs.POLL_SECONDS", 0.02)
    jobs = [
        Job("slow", ["sh", "-c", f"sleep 0.3; touch {tmp_path}/end"], tmp_path / "a", cfg),
        Job("long", ["true"], long, cfg),
        Job("gone", ["sh", "-c", f"rm -r {tmp_path}/c; exit 1"], tmp_path / "c", cfg),
    ]
    run_all(jobs, 3, [], 1)
    assert jobs[1].state == "failed" and "File name too long" in jobs[1].note
    assert jobs[2].state == "failed" and (tmp_path / "end").exists()


@pytest.mark.slow
def test_a_job_that_fails_is_not_taken_for_the_run_before_it(tmp_path):
    """Another process holds the folder, where the result of a finished run stays."""
    words = ("-m", "seed=0,1", *SCENES, "hydra.sweep.dir=sweep")
    run("train", *words, cwd=tmp_path)
    (folder,) = tmp_path.glob("sweep/**/*-seed0-*")
    held = lock(folder / "run.lock", 0)
    output = run("train", *words, "resume=never", cwd=tmp_path, ok=False)
    held.release()
    assert "seed=0: failed" in output and "seed=1: finished" in output
    assert json.loads((folder / "result.json").read_text())["status"] == "finished"


@pytest.mark.skipif(not hasattr(signal, "SIGUSR1"), reason="Windows has no such signal")
def test_a_time_limit_gives_jobs_time_to_save(tmp_path, monkeypatch):
    """SLURM's signal goes on to the jobs; then the handler that was there queues the sweep."""
    queued = []

    def requeue(number, frame):
        queued.append(number)
        raise SystemExit(128 + number)

    before = signal.signal(signal.SIGUSR1, requeue)
    try:
        command = f"trap 'sleep 0.3; touch {tmp_path}/saved; exit 0' TERM; touch {tmp_path}/on; "
        command += "while true; do sleep 0.05; done"
        job = Job("a", ["bash", "-c", command], tmp_path / "a", TrainConfig())
        show = run_jobs.JobTable.show

        def signal_once_on(table):
            show(table)
            if (tmp_path / "on").exists() and not queued and not signalled:
                signalled.append(True)
                os.kill(os.getpid(), signal.SIGUSR1)

        signalled = []
        monkeypatch.setattr(run_jobs.JobTable, "show", signal_once_on)
        with pytest.raises(SystemExit):
            run_all([job], 1, [], 10)
        assert (tmp_path / "saved").exists() and queued == [signal.SIGUSR1]
    finally:
        signal.signal(signal.SIGUSR1, before)


def test_an_old_result_does_not_hide_a_new_error(tmp_path):
    job = Sleeper(tmp_path / "a", "echo 'error: no such thing'; exit 1", accelerator="cpu")
    job.folder.mkdir()
    (job.folder / "result.json").write_text('{"status": "finished", "metrics": {"val/mIoU": 0.5}}')
    os.utime(job.folder / "result.json", (0, 0))
    run_all([job], 1, [], 1)
    assert job.state == "failed" and job.note.startswith("no such thing (see ")
    # Nor does a failure of before, while it runs again: it would not count as in progress.
    again = Sleeper(tmp_path / "b", f"test ! -e {tmp_path}/b/result.json", accelerator="cpu")
    again.folder.mkdir()
    mark(again.folder)
    (again.folder / "result.json").write_text('{"status": "failed"}')
    run_all([again], 1, [], 1)
    assert again.note.startswith("exit code 0")


@pytest.mark.parametrize(
    ("named", "gpus"), [("4,6", ["4", "6"]), ("", []), ("-1", []), ("0,-1,1", ["0"])]
)
def test_gpus_are_those_that_cuda_shows(named, gpus, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", named)
    assert visible_gpus() == gpus


def test_jobs_that_do_not_stop_are_killed(tmp_path):
    """SIGTERM is passed on once; after the grace time comes SIGKILL; what has not begun does not
    begin.
    """
    stubborn = Sleeper(tmp_path / "a", "trap '' TERM; sleep 30 & wait; wait", accelerator="cpu")
    jobs = [stubborn, Sleeper(tmp_path / "b", "true", accelerator="cpu")]
    signal.signal(signal.SIGALRM, lambda *args: os.kill(os.getpid(), signal.SIGTERM))
    signal.setitimer(signal.ITIMER_REAL, 0.7)
    began = time.monotonic()
    with pytest.raises(SystemExit) as stopped:
        run_all(jobs, 1, [], 1.0)
    assert stopped.value.code == 143 and 1.5 < time.monotonic() - began < 10
    assert [job.state for job in jobs] == ["killed", "waiting"]


def sweep(folder: Path, *words: str, file_size: int | None = None) -> subprocess.Popen:
    def limit():
        if file_size:
            resource.setrlimit(resource.RLIMIT_FSIZE, (file_size, file_size))

    command = [sys.executable, str(ROOT / "src/train.py"), "-m", *words]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    streams = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    return subprocess.Popen(command, cwd=folder, env=environment, preexec_fn=limit, **streams)


@pytest.mark.slow
def test_a_sweeper_is_given_the_objective(tmp_path):
    """Optuna's, with jobs in processes; a value that was not logged is refused."""
    words = [
        *TINY,
        *("dataset.scenes_train=2", "dataset.scenes_val=1", "dataset.scenes_size=[64,96]"),
        *("hydra/sweeper=optuna", "hydra.sweeper.n_trials=2", "hydra.sweeper.n_jobs=1"),
        "hydra.sweeper.direction=maximize",
    ]
    said = run("train", "-m", *words, "objective=val/mIoU", "seed=choice(1,2)", cwd=tmp_path)
    assert "Report: " in said
    best = yaml.safe_load((tmp_path / "runs/optimization_results.yaml").read_text())
    scores = [
        json.loads(path.read_text())["metrics"]["val/mIoU"]
        for path in tmp_path.glob("runs/train/*/result.json")
    ]
    assert best["best_value"] == pytest.approx(max(scores)) and len(scores) in (1, 2)
    said = run(
        "train", "-m", *words, "objective=val/IoU/what", "seed=choice(1,2)", cwd=tmp_path, ok=False
    )
    assert "objective=val/IoU/what was not logged; logged were " in said


@pytest.mark.slow
def test_a_sweep_survives_what_befalls_its_jobs(camvid, tmp_path):
    """A stop, a disk quota, a corrupt image and an illegal mask; then the same command finishes
    what is missing.
    """
    for name in ("good", "corrupt", "illegal"):
        shutil.copytree(camvid, tmp_path / name)
    (tmp_path / "corrupt/train/frame_1.png").write_bytes(b"\x89PNG")
    write(tmp_path / "illegal/trainannot/frame_1.png", np.full((72, 96), 99, np.uint8))
    for i in range(4, 24):  # Long enough to be stopped.
        for part in ("train", "trainannot"):
            shutil.copy(
                tmp_path / f"good/{part}/frame_0.png", tmp_path / f"good/{part}/frame_{i}.png"
            )
    words = [*TINY, "dataset=camvid", "dataset.root=good,corrupt,illegal", "trainer.max_epochs=2"]

    process = sweep(tmp_path, *words)
    while not any(
        json.loads(path.read_text())["step"] >= 3
        for path in tmp_path.glob("runs/*/*/progress.json")
    ):
        assert process.poll() is None, process.communicate()[0]
        time.sleep(0.02)
    process.send_signal(signal.SIGTERM)
    output, _ = process.communicate(timeout=100)
    assert process.returncode == 143
    assert "3 of 3 jobs are left. The same command continues." in output
    ((good, result),) = results(tmp_path).items()
    assert result["status"] == "interrupted"
    log = next(tmp_path.glob(f"runs/*/{good}/train.log"))
    assert "Stopped by SIGTERM" in log.read_text()

    # No file may be larger than half a checkpoint.
    size = (log.parent / "checkpoints/last.ckpt").stat().st_size // 2
    output, _ = (process := sweep(tmp_path, *words, file_size=size)).communicate(timeout=200)
    assert process.returncode == 1 and "No report: " in output
    assert (
        "Continuing from" in log.read_text()
        and "last.ckpt could not be written (is the disk full?)" in log.read_text()
    )
    for told in (
        "free disk space",
        "frame_1.png is not a readable image",
        "frame_1.png has the illegal class id 99",
    ):
        assert (
            told in output
            and sum(told in result["error"] for result in results(tmp_path).values()) == 1
        )
    assert (log.parent / "checkpoints/last.ckpt").stat().st_size > size

    for name in ("corrupt", "illegal"):
        shutil.copytree(camvid, tmp_path / name, dirs_exist_ok=True)
    output, _ = (process := sweep(tmp_path, *words)).communicate(timeout=200)
    assert process.returncode == 0, output
    found = results(tmp_path)
    assert [result["status"] for result in found.values()] == ["finished"] * 3
    assert run("train", "-m", *words, cwd=tmp_path).count("finished before") == 3
    assert results(tmp_path) == found
